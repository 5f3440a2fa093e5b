"""The linear policy as an RLlib algorithm."""

from typing import Any

from leray.algorithms.imitation.algorithm import Imitation, ImitationConfig
from tests.algorithms.imitation.linear import LinearPolicyConfig


class LinearConfig(ImitationConfig):
    policy_config_class = LinearPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or Linear)


class Linear(Imitation):
    @classmethod
    def get_default_config(cls) -> LinearConfig:
        return LinearConfig()
