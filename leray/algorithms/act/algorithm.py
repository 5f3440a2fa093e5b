"""ACT as an RLlib algorithm."""

from typing import Any

from leray.algorithms.act.config import ACTPolicyConfig
from leray.algorithms.imitation.algorithm import Imitation, ImitationConfig


class ACTConfig(ImitationConfig):
    """RLlib config of ACT; its options are the fields of `ACTPolicyConfig`.

    Example:
        >>> ACTConfig().training(chunk_size=20, n_action_steps=10).policy_config().chunk_size
        20
    """

    policy_config_class = ACTPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or ACT)


class ACT(Imitation):
    """Action chunking with transformers (Zhao et al. 2023, arXiv 2304.13705)."""

    @classmethod
    def get_default_config(cls) -> ACTConfig:
        """Return ACT's config (RLlib's name)."""
        return ACTConfig()
