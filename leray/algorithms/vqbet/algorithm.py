"""VQ-BeT as an RLlib algorithm."""

from typing import Any

from leray.algorithms.config import require
from leray.algorithms.imitation.algorithm import Imitation, ImitationConfig
from leray.algorithms.vqbet.config import VQBeTPolicyConfig


class VQBeTConfig(ImitationConfig):
    """RLlib config of VQ-BeT; its options are the fields of `VQBeTPolicyConfig`.

    Example:
        >>> VQBeTConfig().training(action_chunk_size=8).policy_config().action_chunk_size
        8
    """

    policy_config_class = VQBeTPolicyConfig

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or VQBeT)

    def place(self, *, total_steps: int, **options: Any) -> None:
        """Set the dataset and the length of the run; see `TrainableConfig`.

        Raises:
            ConfigError: the run would end before a policy is learnt.
        """
        super().place(total_steps=total_steps, **options)
        policy = self.policy_config()
        first = policy.n_vqvae_training_steps
        require(
            policy.pretrained_path is not None or total_steps > first,
            f"--steps={total_steps}: VQ-BeT learns codes of actions in its first "
            f"--policy.n_vqvae_training_steps={first} updates, and to act after them; give more "
            "steps, or a shorter first phase",
        )


class VQBeT(Imitation):
    """Behaviour transformer over codes of action chunks (Lee et al. 2024, arXiv 2403.03181)."""

    @classmethod
    def get_default_config(cls) -> VQBeTConfig:
        """Return VQ-BeT's config (RLlib's name)."""
        return VQBeTConfig()
