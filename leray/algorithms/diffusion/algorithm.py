"""Diffusion Policy as an RLlib algorithm."""

from typing import Any

from leray.algorithms.diffusion.config import DiffusionPolicyConfig
from leray.algorithms.imitation.algorithm import Imitation, ImitationConfig


class DiffusionConfig(ImitationConfig):
    """RLlib config of Diffusion Policy; its options are the fields of `DiffusionPolicyConfig`.

    Example:
        >>> DiffusionConfig().training(noise_scheduler_type="DDIM").policy_config().horizon
        16
    """

    policy_config_class = DiffusionPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or Diffusion)


class Diffusion(Imitation):
    """Actions denoised from what was observed (Chi et al. 2023, arXiv 2303.04137)."""

    @classmethod
    def get_default_config(cls) -> DiffusionConfig:
        """Return Diffusion Policy's config (RLlib's name)."""
        return DiffusionConfig()
