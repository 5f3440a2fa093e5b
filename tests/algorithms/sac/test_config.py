"""SAC's options: defaults, and every range with its message."""

import pytest

from leray.algorithms.config import PolicyConfig
from leray.algorithms.registry import algorithm_config, policy_class
from leray.algorithms.sac.algorithm import SACConfig
from leray.algorithms.sac.config import MLPConfig, SACPolicyConfig
from leray.algorithms.sac.policy import SACPolicy
from leray.errors import ConfigError

REFUSED = [
    ({"actor_lr": 0.0}, "--policy.actor_lr=0.0: give a number > 0"),
    ({"critic_lr": -1.0}, "--policy.critic_lr=-1.0: give a number > 0"),
    ({"temperature_lr": float("nan")}, "--policy.temperature_lr=nan: give a number > 0"),
    ({"temperature_init": 0.0}, "--policy.temperature_init=0.0: give a number > 0"),
    ({"utd_ratio": 0.0}, "--policy.utd_ratio=0.0: give a number > 0"),
    ({"num_critics": 0}, "--policy.num_critics=0: give a whole number >= 1"),
    ({"n_step": 0}, "--policy.n_step=0: give a whole number >= 1"),
    ({"policy_update_freq": 0}, "--policy.policy_update_freq=0: give a whole number >= 1"),
    ({"online_buffer_capacity": 0}, "--policy.online_buffer_capacity=0: give a whole number >= 1"),
    ({"offline_buffer_capacity": 0}, "--policy.offline_buffer_capacity=0: give a whole number"),
    ({"discount": 1.01}, "--policy.discount=1.01: give a number from 0 to 1"),
    ({"online_ratio": -0.1}, "--policy.online_ratio=-0.1: give a number from 0 to 1"),
    ({"critic_target_update_weight": 2}, "--policy.critic_target_update_weight=2: give a number"),
    ({"num_subsample_critics": 3}, "--policy.num_subsample_critics=3: give 1 to num_critics=2"),
    ({"num_subsample_critics": 0}, "--policy.num_subsample_critics=0: give 1 to num_critics=2"),
    ({"grad_clip_norm": 0.0}, "--policy.grad_clip_norm=0.0: give a number > 0 or null"),
    ({"online_step_before_learning": -1}, "--policy.online_step_before_learning=-1: give a number"),
    ({"bc_weight": -1.0}, "--policy.bc_weight=-1.0: give a number >= 0"),
    ({"critic_warmup_updates": -1}, "--policy.critic_warmup_updates=-1: give a number >= 0"),
    ({"precision": "float16"}, "--policy.precision=float16: allowed are float32, bfloat16"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[next(iter(o)) for o, _ in REFUSED])
def test_a_value_out_of_range_names_flag_value_and_range(options, message):
    with pytest.raises(ConfigError) as caught:
        SACPolicyConfig(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widths", [[], [256, 0], [-1]])
def test_networks_need_widths(widths):
    with pytest.raises(ConfigError, match="at least one width, each >= 1"):
        MLPConfig(hidden_dims=widths)


def test_bounds_themselves_are_allowed():
    SACPolicyConfig(discount=1.0, online_ratio=0.0, critic_target_update_weight=1.0)
    SACPolicyConfig(num_critics=10, num_subsample_critics=10, online_step_before_learning=0)


def test_instances_share_no_defaults():
    first, second = SACPolicyConfig(), SACPolicyConfig()
    first.actor_network_kwargs.hidden_dims.append(1)
    first.normalization_mapping["STATE"] = "IDENTITY"
    assert second == SACPolicyConfig()


def test_the_type_leads_to_policy_and_algorithm():
    assert PolicyConfig.get_choice_class("sac") is SACPolicyConfig
    assert SACPolicyConfig().type == "sac"
    assert policy_class("sac") is SACPolicy
    assert isinstance(algorithm_config(SACPolicyConfig()), SACConfig)
    with pytest.raises(ConfigError, match=r"policy type 'sack' is unknown: allowed are .*sac"):
        policy_class("sack")
