"""SAC goes on with an actor that behaviour cloning trained."""

import json

import numpy as np
import pytest
import torch

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.bc.policy import BCPolicy
from leray.algorithms.plugins import register_plugins
from leray.algorithms.processor import Processor
from leray.algorithms.sac.config import MLPConfig, SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.data.features import Feature, Features
from leray.errors import CheckpointError

FEATURES = Features(
    {
        "observation.environment_state": Feature("float32", (2,)),
        "observation.state": Feature("float32", (3,)),
        "action": Feature("float32", (2,), low=(-2.0, -1.0), high=(2.0, 3.0)),
    }
)
STATS = {"observation.state": {"mean": [0.5, 0.0, -1.0], "std": [2.0, 1.0, 0.5]}}
NETWORK = MLPConfig(hidden_dims=[16, 12])
SIZE = 32


@pytest.fixture
def cloned(tmp_path):
    """The folder of an actor with weights of its own."""
    torch.manual_seed(4)
    config = BCPolicyConfig(actor_network_kwargs=NETWORK, exploration_std=0.07)
    processor = BCPolicy.make_processor(FEATURES, config, STATS, use_imagenet_stats=True)
    BCPolicy(config, processor).save_pretrained(tmp_path / "bc")
    return tmp_path / "bc"


def _start(folder, features=FEATURES, seed=0, network=NETWORK, **options) -> SACPolicy:
    """Build a policy as a run does that starts from a folder."""
    config = SACPolicyConfig(
        actor_network_kwargs=network,
        critic_network_kwargs=MLPConfig(hidden_dims=[16, 12], layer_norm=True),
        pretrained_path=str(folder),
        **options,
    )
    policy = SACPolicy(config, Processor.load(folder, features))
    policy.initialize(torch.Generator().manual_seed(seed))
    policy.start_from(folder)
    return policy


def _observations():
    rng = np.random.default_rng(0)
    return {
        "observation.environment_state": rng.normal(size=(6, 2)).astype(np.float32),
        "observation.state": rng.normal(size=(6, 3)).astype(np.float32) * 20,  # some clipped
    }


def test_it_acts_as_the_cloned_actor_and_has_fresh_critics(cloned):
    policy = _start(cloned, temperature_init=0.02)
    expected = BCPolicy.from_pretrained(cloned).act(_observations())
    found = policy.act(_observations(), deterministic=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    fresh = SACPolicy(policy.config, policy.processor)
    fresh.initialize(torch.Generator().manual_seed(0))
    for name in ("critic", "critic_target", "log_alpha"):
        assert torch.equal(policy.blocks()[name], fresh.blocks()[name])


def test_it_explores_with_the_std_it_was_given(cloned):
    policy = _start(cloned)
    draws = [
        policy.action_normalizer(torch.as_tensor(policy.act(_observations(), deterministic=False)))
        for _ in range(400)
    ]
    assert torch.atanh(torch.stack(draws)).std(0).mean().item() == pytest.approx(0.07, rel=0.05)


def test_a_saved_start_is_a_checkpoint_of_sac(cloned, tmp_path):
    policy = _start(cloned)
    policy.save_pretrained(tmp_path / "sac")
    again = _start(tmp_path / "sac", seed=9)
    for name, block in policy.blocks().items():
        assert torch.equal(block, again.blocks()[name])


@pytest.mark.parametrize("network", [MLPConfig(), MLPConfig(hidden_dims=[16, 12], layer_norm=True)])
def test_another_shape_names_the_options_to_give(cloned, network):
    with pytest.raises(CheckpointError) as caught:
        _start(cloned, network=network)
    message = str(caught.value)
    assert "give --policy.actor_network_kwargs.hidden_dims=[16, 12] " in message
    assert "--policy.actor_network_kwargs.layer_norm=false" in message
    assert "\n" not in message


def test_other_observations_are_refused(cloned):
    features = Features({key: FEATURES[key] for key in ("observation.state", "action")})
    with pytest.raises(CheckpointError, match=r"observation\.environment_state.*; this run has"):
        _start(cloned, features=features)


def test_a_policy_of_another_type_is_refused(cloned):
    register_plugins()
    config = json.loads((cloned / "config.json").read_text())
    config = {key: config[key] for key in ("input_features", "output_features")}
    (cloned / "config.json").write_text(json.dumps({"type": "act", **config}))
    with pytest.raises(CheckpointError, match="of type act: sac starts from sac or bc only"):
        _start(cloned)


def test_options_left_open_follow_what_training_starts_from(cloned, make_policy, tmp_path):
    fresh = SACPolicyConfig()
    assert (fresh.temperature_init, fresh.critic_warmup_updates, fresh.bc_weight) == (1.0, 0, 0.0)
    assert fresh.random_before_learning is True
    make_policy().save_pretrained(tmp_path / "sac")
    tuned = SACPolicyConfig(pretrained_path=str(tmp_path / "sac"))
    assert tuned.random_before_learning is False
    assert tuned.critic_warmup_updates == 0
    assert tuned.bc_weight == 0.0
    after = SACPolicyConfig(pretrained_path=str(cloned))
    assert after.random_before_learning is False
    assert after.temperature_init == 0.01
    assert after.critic_warmup_updates == 3_000
    assert after.bc_weight == 100.0
    given = {"temperature_init": 0.3, "critic_warmup_updates": 0, "bc_weight": 0.0}
    given |= {"random_before_learning": True}
    chosen = SACPolicyConfig(pretrained_path=str(cloned), **given)
    assert {name: getattr(chosen, name) for name in given} == given


@pytest.mark.parametrize("inside", ["pretrained_model", "checkpoints/last/pretrained_model"])
def test_a_run_of_bc_is_known_by_its_checkpoint(cloned, tmp_path, inside):
    (tmp_path / "run" / inside).parent.mkdir(parents=True)
    cloned.rename(tmp_path / "run" / inside)
    assert SACPolicyConfig(pretrained_path=str(tmp_path / "run")).bc_weight == 100.0


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_that_is_not_readable_settles_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert SACPolicyConfig(pretrained_path=str(tmp_path)).bc_weight == 0.0


def test_the_actor_rests_while_the_critics_warm_up(cloned, make_batch):
    policy = _start(cloned, critic_warmup_updates=4, policy_update_freq=2)
    learner = policy.make_learner(batch_size=SIZE, seed=1)
    actor, alpha = policy.networks.actor.flat.clone(), policy.networks.log_alpha.clone()
    moved = []
    for index in range(8):
        critic = policy.networks.critic.flat.clone()
        learner.update(make_batch(index))
        assert not torch.equal(policy.networks.critic.flat, critic)
        same = torch.equal(policy.networks.actor.flat, actor)
        assert same == torch.equal(policy.networks.log_alpha, alpha)
        moved.append(not same)
    assert moved == [False] * 5 + [True] * 3
