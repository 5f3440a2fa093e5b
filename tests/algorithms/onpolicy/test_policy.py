"""The policy acts as RLlib's env runner does, and survives its checkpoint folder."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.connectors.module_to_env import NormalizeAndClipActions
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES

from leray.algorithms.onpolicy.policy import ActorCriticPolicy, actor_critic_processor
from leray.algorithms.plugins import register_plugins
from leray.algorithms.ppo.algorithm import PPOConfig
from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.data.names import ACTION, OBSERVATION_STATE
from leray.envs.config import GymEnvConfig
from leray.envs.episodes import run_episodes
from leray.errors import CheckpointError

register_plugins()
BOUNDS = {"low": (-2.0, 0.5), "high": (2.0, 3.0)}


def runner_of(task, **options):
    config = PPOConfig().environment(task).training(hidden_dims=[16, 8], **options)
    config.seed = 4
    config.validate()
    return config.env_runner_cls(config=config, worker_index=0)


def policy_of(runner):
    env = runner.env.unwrapped.envs[0].unwrapped
    tensors = runner.module.state_dict()
    return ActorCriticPolicy(
        runner.config.policy_config(),
        actor_critic_processor(env.features),
        tensors,
        num_actions=env.num_actions,
    )


def acting_tensors(outputs, inputs=3, hidden=4):
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "encoder.actor_encoder.net.mlp.0.weight": (hidden, inputs),
        "encoder.actor_encoder.net.mlp.0.bias": (hidden,),
        "pi.net.mlp.0.weight": (outputs, hidden),
        "pi.net.mlp.0.bias": (outputs,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def make_policy(*, num_actions=None, action=None, outputs=4):
    action = action or Feature("float32", (2,), **BOUNDS)
    if num_actions is not None:
        action, outputs = Feature("int64", (1,)), num_actions
    features = Features({OBSERVATION_STATE: Feature("float32", (3,)), ACTION: action})
    config = PPOConfig().training(hidden_dims=[4]).policy_config()
    return ActorCriticPolicy(
        config, actor_critic_processor(features), acting_tensors(outputs), num_actions=num_actions
    )


@pytest.mark.parametrize("task", ["Pendulum-v1", "CartPole-v1", "PandaReach-v3"])
@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_deterministic_actions_equal_those_of_the_stock_runner(task, activation):
    runner = runner_of(task, activation=activation)
    policy = policy_of(runner)
    sent = []
    step = runner.env.step
    runner.env.step = lambda actions: sent.append(np.asarray(actions).copy()) or step(actions)
    (episode, *_) = runner.sample(num_timesteps=20, explore=False)
    flat = episode.get_observations(slice(0, 10))
    names = [name for name in policy.features if name != ACTION]
    sizes = np.cumsum([policy.features[name].size for name in names])[:-1]
    acted = [
        policy.act(
            dict(zip(names, np.split(row[None], sizes, -1), strict=True)), deterministic=True
        )
        for row in np.asarray(flat)
    ]
    count = min(len(acted), len(episode))
    np.testing.assert_array_equal(np.stack(acted[:count]), np.stack(sent[:count]))


@pytest.mark.parametrize("scale", [0.1, 50.0])
def test_actions_beyond_the_bounds_are_clipped_as_the_connectors_do(scale):
    policy = make_policy()
    for tensor in policy.tensors.values():
        tensor.mul_(scale)
    rows = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    space = gym.spaces.Box(np.array(BOUNDS["low"]), np.array(BOUNDS["high"]), dtype=np.float32)
    runner = runner_of("Pendulum-v1")
    runner.sample(num_timesteps=1)
    connector = runner.config.build_module_to_env_connector(
        env=None, spaces={INPUT_ENV_SINGLE_SPACES: (runner.env.single_observation_space, space)}
    )
    (clip,) = (c for c in connector.connectors if type(c) is NormalizeAndClipActions)
    output = policy._forward(torch.from_numpy(rows))
    acted = policy.act({OBSERVATION_STATE: rows}, deterministic=True)
    for row, action in zip(output, acted, strict=True):
        batch = {Columns.ACTIONS: {(runner._ongoing_episodes[0].id_,): [row[:2].numpy()]}}
        clipped = clip(rl_module=None, batch=batch, episodes=runner._ongoing_episodes)
        ((expected,),) = clipped[Columns.ACTIONS_FOR_ENV].values()
        np.testing.assert_array_equal(action, expected)
    assert (acted == space.high).any() == (scale > 1)


def test_sampled_actions_have_the_mean_and_spread_of_the_gaussian():
    policy = make_policy(action=Feature("float32", (2,)))
    observation = np.ones((1, 3), np.float32)
    output = policy._forward(torch.from_numpy(observation))[0]
    policy.seed(0)
    batch = {OBSERVATION_STATE: np.repeat(observation, 20_000, 0)}
    actions = policy.act(batch, deterministic=False)
    np.testing.assert_allclose(actions.mean(0), output[:2], atol=0.05 * output[2:].exp().max())
    np.testing.assert_allclose(actions.std(0), output[2:].exp(), rtol=0.05)


def test_sampled_choices_have_the_probabilities_of_the_softmax():
    policy = make_policy(num_actions=3)
    observation = np.full((1, 3), 0.3, np.float32)
    probabilities = policy._forward(torch.from_numpy(observation))[0].softmax(-1)
    policy.seed(0)
    actions = policy.act({OBSERVATION_STATE: observation.repeat(20_000, 0)}, deterministic=False)
    assert (actions.dtype, actions.shape) == (np.int64, (20_000,))
    np.testing.assert_allclose(np.bincount(actions, minlength=3) / 20_000, probabilities, atol=0.02)


def test_the_same_seed_samples_the_same_actions():
    policy, batch = make_policy(), {OBSERVATION_STATE: np.zeros((5, 3), np.float32)}
    policy.seed(7)
    first = policy.act(batch, deterministic=False)
    second = policy.act(batch, deterministic=False)
    policy.seed(7)
    np.testing.assert_array_equal(policy.act(batch, deterministic=False), first)
    assert (first != second).any()


@pytest.mark.parametrize("num_actions", [None, 3])
def test_a_checkpoint_folder_gives_back_the_same_policy(tmp_path, num_actions):
    policy = make_policy(num_actions=num_actions)
    policy.save_pretrained(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".pkl", ".pt")]
    loaded = load_policy(tmp_path)
    assert loaded.config == policy.config
    assert loaded.num_actions == num_actions
    assert {k: v.shape for k, v in loaded.features.items()} == {
        k: v.shape for k, v in policy.features.items()
    }
    assert all(torch.equal(loaded.tensors[k], v) for k, v in policy.tensors.items())
    batch = {OBSERVATION_STATE: np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)}
    np.testing.assert_array_equal(
        loaded.act(batch, deterministic=True), policy.act(batch, deterministic=True)
    )


def test_the_acting_block_carries_the_policy_over():
    first, second = make_policy(), make_policy()
    for tensor in second.tensors.values():
        tensor.zero_()
    second.load_acting_block(first.acting_block())
    batch = {OBSERVATION_STATE: np.ones((2, 3), np.float32)}
    np.testing.assert_array_equal(
        second.act(batch, deterministic=True), first.act(batch, deterministic=True)
    )


def test_making_and_using_a_policy_leaves_the_global_randomness_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    make_policy().act({OBSERVATION_STATE: np.ones((2, 3), np.float32)}, deterministic=False)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])


def test_weights_of_another_shape_are_refused():
    with pytest.raises(CheckpointError, match=r"names or shapes differ for .*pi\.net\.mlp\.0"):
        make_policy(outputs=6)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "policy_preprocessor.json"])
def test_a_missing_file_is_named(tmp_path, file):
    make_policy().save_pretrained(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        ActorCriticPolicy.from_pretrained(tmp_path)


def test_a_damaged_config_is_named(tmp_path):
    make_policy().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_actions": "many"}))
    with pytest.raises(CheckpointError, match=r"config\.json says num_actions='many'"):
        ActorCriticPolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
def test_whole_episodes_run_with_it(task):
    policy = policy_of(runner_of(task))
    results = run_episodes(
        GymEnvConfig(task=task, max_episode_steps=10),
        lambda observations, slots: policy.act(observations, deterministic=True, envs=slots),
        indices=[0, 1, 2],
        seed=5,
        num_envs=2,
    )
    assert [result.index for result in results] == [0, 1, 2]
    assert all(1 <= result.length <= 10 for result in results)
