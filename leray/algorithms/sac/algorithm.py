"""SAC as an RLlib algorithm."""

from typing import Any

from leray.algorithms.offpolicy.algorithm import OffPolicyAlgorithm
from leray.algorithms.offpolicy.config import OffPolicyConfig
from leray.algorithms.sac.config import SACPolicyConfig


class SACConfig(OffPolicyConfig):
    """RLlib config of SAC; its options are the fields of `SACPolicyConfig`.

    Example:
        >>> config = SACConfig().environment("Pendulum-v1").training(utd_ratio=1.0)
        >>> config.policy_config().num_critics
        2
    """

    policy_config_class = SACPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or SAC)


class SAC(OffPolicyAlgorithm):
    """Soft actor-critic with offline mixing (Haarnoja et al. 2018b; Ball et al. 2023, RLPD)."""

    @classmethod
    def get_default_config(cls) -> SACConfig:
        """Return SAC's config (RLlib's name)."""
        return SACConfig()
