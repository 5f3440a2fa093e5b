"""Options of PPO and APPO: ranges, and how they reach RLlib."""

import pytest

from leray.algorithms.appo.config import APPOPolicyConfig
from leray.algorithms.ppo.config import PPOPolicyConfig
from leray.errors import ConfigError


@pytest.mark.parametrize("kind", [PPOPolicyConfig, APPOPolicyConfig])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("discount", 1.5),
        ("clip_param", 0.0),
        ("entropy_coeff", -0.1),
        ("vf_loss_coeff", -1.0),
        ("kl_coeff", -1.0),
        ("kl_target", 0.0),
        ("grad_clip_norm", 0.0),
        ("hidden_dims", []),
        ("hidden_dims", [64, 0]),
        ("activation", "gelu"),
    ],
)
def test_shared_options_are_checked(kind, name, value):
    with pytest.raises(ConfigError, match=f"--policy.{name}="):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("gae_lambda", 1.1), ("num_epochs", 0), ("minibatch_size", 0), ("vf_clip_param", 0.0)],
)
def test_options_of_ppo_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"--policy.{name}="):
        PPOPolicyConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trajectory_length", 0),
        ("circular_buffer_num_batches", 0),
        ("circular_buffer_iterations_per_batch", 0),
        ("target_network_update_freq", 0.0),
    ],
)
def test_options_of_appo_are_checked(name, value):
    with pytest.raises(ConfigError, match=f"--policy.{name}="):
        APPOPolicyConfig(**{name: value})
