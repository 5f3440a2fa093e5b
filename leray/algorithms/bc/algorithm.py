"""Behaviour cloning as an RLlib algorithm."""

from typing import Any

from leray.algorithms.bc.config import BCPolicyConfig
from leray.algorithms.imitation.algorithm import Imitation, ImitationConfig


class BCConfig(ImitationConfig):
    """RLlib config of behaviour cloning; its options are the fields of `BCPolicyConfig`.

    Example:
        >>> BCConfig().training(distribution="gaussian").policy_config().exploration_std
        0.1
    """

    policy_config_class = BCPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or BC)


class BC(Imitation):
    """Behaviour cloning (Pomerleau 1989)."""

    @classmethod
    def get_default_config(cls) -> BCConfig:
        """Return its config (RLlib's name)."""
        return BCConfig()
