"""RLlib's env runner, in this process."""

import numpy as np
import pytest
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED, NUM_EPISODES

from leray.algorithms.sac.algorithm import SACConfig
from leray.algorithms.sac.config import MLPConfig
from leray.data.names import ACTION
from leray.envs.runner import CollectingEnvRunner
from leray.errors import LerayError

STATE = "observation.state"
SMALL = MLPConfig(hidden_dims=[8, 8])


def small_config(env, *, num_envs=2, seed=3, num_env_runners=0, **options):
    config = SACConfig().environment(env).debugging(seed=seed)
    config.env_runners(num_env_runners=num_env_runners, num_envs_per_env_runner=num_envs)
    config.training(actor_network_kwargs=SMALL, critic_network_kwargs=SMALL, **options)
    return config


@pytest.fixture
def runner(scripted_env):
    runners = []

    def build(worker_index=0, world=None, **options):
        def create(context):
            return scripted_env(**(world or {}))

        config = small_config(scripted_env, **options)
        runners.append(
            CollectingEnvRunner(config=config, worker_index=worker_index, env_creator=create)
        )
        return runners[-1]

    yield build
    for built in runners:
        built.stop()


def test_spaces_are_those_of_the_features(runner):
    spaces = runner().get_spaces()
    assert set(spaces) == {INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID}
    observation, action = spaces[DEFAULT_MODULE_ID]
    assert observation[STATE].shape == (3,)
    assert (action.low.tolist(), action.high.tolist()) == ([-1, -1], [1, 1])
    assert runner().features[ACTION].high == (1.0, 1.0)


def test_timesteps_are_counted_over_all_environments(runner):
    (fragment,) = runner(num_envs=4).sample(num_timesteps=12)
    assert fragment.shape == (3, 4)


def test_episodes_are_sampled_until_enough_ended(runner):
    fragments = runner(num_envs=1, world={"length": 3}).sample(num_episodes=2)
    assert sum(len(fragment.statistics) for fragment in fragments) == 2
    assert sum(fragment.env_steps() for fragment in fragments) == 6


def test_without_a_number_the_fragment_length_counts(runner):
    assert runner(num_envs=2).sample()[0].shape == (1, 2)


def test_blocks_are_numbered(runner):
    sampling = runner()
    numbers = [sampling.sample(num_timesteps=2)[0].sequence for _ in range(3)]
    assert numbers == [0, 1, 2]


def rollout(sampling, *, steps=20, **kwargs):
    (fragment,) = sampling.sample(num_timesteps=steps, **kwargs)
    return fragment.columns


@pytest.mark.parametrize("random_actions", [False, True])
def test_what_follows_a_restart_depends_on_seed_and_step_alone(runner, random_actions):
    first, second = runner(), runner()
    rollout(first, steps=14, random_actions=random_actions)  # two different pasts
    rollout(second, steps=2)
    columns = []
    for sampling in (first, second):
        sampling.restart(40)
        columns.append(rollout(sampling, random_actions=random_actions))
    for key in (STATE, ACTION):
        # the episode's number of the scripted world counts over its whole life
        parts = [c[key][..., 1:] if key == STATE else c[key] for c in columns]
        assert np.array_equal(*parts), key
    first.restart(41)
    assert not np.array_equal(rollout(first)[ACTION], columns[0][ACTION])


def test_seeds_and_runners_differ(runner):
    observations = [
        rollout(runner(worker_index=index, seed=seed, num_env_runners=index))[STATE][0, :, 2]
        for seed, index in ((3, 0), (4, 0), (3, 1))
    ]
    assert len(np.unique(observations)) == 6


@pytest.mark.parametrize("random_actions", [False, True])
def test_environments_of_one_runner_act_differently(runner, random_actions):
    actions = rollout(runner(num_envs=2), random_actions=random_actions)[ACTION]
    assert not np.array_equal(actions[:, 0], actions[:, 1])


def test_random_actions_fill_the_range(runner):
    actions = rollout(runner(), steps=400, random_actions=True)[ACTION]
    assert actions.min() < -0.9
    assert actions.max() > 0.9
    assert abs(actions.mean()) < 0.15


def test_without_exploration_actions_are_a_function_of_the_observation(runner):
    sampling = runner(num_envs=1, world={"length": 1000})
    columns = rollout(sampling, steps=5, explore=False)
    observations = {STATE: columns[STATE][:, 0]}
    again = sampling.module.policy.act(observations, deterministic=True)
    np.testing.assert_allclose(columns[ACTION][:, 0], again, atol=1e-6)


def test_force_reset_begins_new_episodes(runner):
    sampling = runner(num_envs=1, world={"length": 1000})
    rollout(sampling, steps=5)
    assert rollout(sampling, steps=1, force_reset=True)[STATE][0, 0, 1] == 0


def test_weights_act_from_the_next_fragment_on(runner):
    sampling, other = runner(), runner()
    block = sampling.module.policy.acting_block().clone()
    observations = {STATE: np.ones((1, 3), np.float32)}
    before = other.module.policy.act(observations, deterministic=True)
    other.set_weights(7, block + 0.5)
    after = other.module.policy.act(observations, deterministic=True)
    assert not np.array_equal(before, after)
    (fragment,) = other.try_sample(version=9, block=block, num_timesteps=2)
    assert fragment.policy_version == 9
    assert np.array_equal(
        other.module.policy.act(observations, deterministic=True),
        sampling.module.policy.act(observations, deterministic=True),
    )


def test_an_error_of_the_environment_comes_back_as_its_message(runner):
    sampling = runner(world={"change": lambda observation, _: (observation, np.nan)})
    message = sampling.try_sample(num_timesteps=2)
    assert isinstance(message, str)
    assert message.startswith("environment ScriptedEnv (0) returned nan in next.reward")


def test_state_goes_from_one_runner_to_another(runner):
    source, target = runner(), runner(seed=77)
    source.set_weights(5, source.module.policy.acting_block() + 0.25)
    source.sample(num_timesteps=8)
    target.set_state(source.get_state())
    observations = {STATE: np.ones((1, 3), np.float32)}
    expected = source.module.policy.act(observations, deterministic=True)
    assert np.array_equal(target.module.policy.act(observations, deterministic=True), expected)
    counters = [runner.get_state(not_components=COMPONENT_RL_MODULE) for runner in (source, target)]
    assert counters[0] == counters[1]
    assert COMPONENT_RL_MODULE not in counters[0]
    assert target.sample(num_timesteps=2)[0].policy_version == 5


def test_metrics_count_steps_and_episodes_once(runner):
    sampling = runner(num_envs=2, world={"length": 3})
    sampling.sample(num_timesteps=8)
    metrics = sampling.get_metrics()
    assert float(metrics[NUM_ENV_STEPS_SAMPLED]) == 8
    assert float(metrics[NUM_EPISODES]) == 2
    sampling.sample(num_timesteps=2)
    assert float(sampling.get_metrics()[NUM_ENV_STEPS_SAMPLED]) == 2


def test_a_local_runner_beside_remote_ones_builds_one_environment_for_the_spaces(runner):
    sampling = runner(num_envs=4, num_env_runners=2)
    assert sampling.env.num_envs == 1
    assert sampling.get_spaces()[DEFAULT_MODULE_ID][0][STATE].shape == (3,)


def test_without_an_environment_only_spaces_are_served(runner):
    spaces = runner().get_spaces()[DEFAULT_MODULE_ID]
    config = small_config(None)
    config.environment(None, observation_space=spaces[0], action_space=spaces[1])
    offline = CollectingEnvRunner(config=config, worker_index=0)
    assert offline.get_spaces()[DEFAULT_MODULE_ID] == spaces
    offline.restart(3)
    with pytest.raises(LerayError, match="no environment"):
        offline.sample(num_timesteps=1)
    offline.stop()


def test_stop_closes_the_environments(runner):
    sampling = runner()
    sampling.stop()
    assert all(env.unwrapped.is_closed for env in sampling.env.envs)


def test_a_healthy_runner_says_so_and_can_be_built_again(runner):
    sampling = runner()
    sampling.assert_healthy()
    _, kwargs = sampling.get_ctor_args_and_kwargs()
    again = CollectingEnvRunner(**kwargs)
    assert np.array_equal(rollout(sampling)[ACTION], rollout(again)[ACTION])
    again.stop()
