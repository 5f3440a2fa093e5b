"""Behaviour cloning's options: defaults, ranges, and where the type leads."""

import pytest

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.bc.policy import BCPolicy
from leray.algorithms.config import PolicyConfig
from leray.algorithms.registry import policy_class
from leray.algorithms.sac.config import SACPolicyConfig
from leray.errors import ConfigError

REFUSED = [
    ({"n_obs_steps": 2}, "--policy.n_obs_steps=2: bc allows only 1"),
    ({"distribution": "beta"}, "--policy.distribution=beta: allowed are deterministic, gaussian"),
    ({"exploration_std": 0.0}, "--policy.exploration_std=0.0: give a number > 0"),
    ({"optimizer_lr": -1.0}, "--policy.optimizer_lr=-1.0: give a number > 0"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[next(iter(o)) for o, _ in REFUSED])
def test_a_value_out_of_range_names_flag_value_and_range(options, message):
    with pytest.raises(ConfigError) as caught:
        BCPolicyConfig(**options)
    assert str(caught.value) == message


def test_the_type_leads_to_the_policy():
    assert PolicyConfig.get_choice_class("bc") is BCPolicyConfig
    assert policy_class("bc") is BCPolicy


def test_one_action_follows_from_one_observation():
    config = BCPolicyConfig()
    windows = config.dataset_windows(["observation.state", "action"], fps=20)
    assert windows == {"action": [0.0]}


def test_network_and_normalisation_are_those_of_sac():
    bc, sac = BCPolicyConfig(), SACPolicyConfig()
    assert bc.actor_network_kwargs == sac.actor_network_kwargs
    assert bc.normalization_mapping == sac.normalization_mapping
