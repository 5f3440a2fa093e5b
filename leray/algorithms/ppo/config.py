"""Options of PPO."""

from dataclasses import dataclass
from typing import ClassVar

from leray.algorithms.config import PolicyConfig, require
from leray.algorithms.onpolicy.options import ActorCriticConfig


@PolicyConfig.register_subclass("ppo")
@dataclass(kw_only=True)
class PPOPolicyConfig(ActorCriticConfig):
    """Proximal policy optimisation; `--batch_size` is the environment steps of one iteration."""

    algorithm_path: ClassVar[str] = "leray.algorithms.ppo.algorithm:PPOConfig"
    default_batch_size: ClassVar[int] = 2048

    gae_lambda: float = 0.95
    """Weight lambda of generalised advantage estimation."""
    num_epochs: int = 10
    """Passes over each batch."""
    minibatch_size: int = 128
    """Transitions per gradient step; at most the batch size."""
    vf_clip_param: float | None = None
    """Squared value errors above this give no gradient, in squared return; `null` clips nothing."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        super().__post_init__()
        require(
            0 <= self.gae_lambda <= 1,
            f"--policy.gae_lambda={self.gae_lambda}: give a number from 0 to 1",
        )
        for name in ("num_epochs", "minibatch_size"):
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        require(
            self.vf_clip_param is None or self.vf_clip_param > 0,
            f"--policy.vf_clip_param={self.vf_clip_param}: give a number > 0 or null",
        )
