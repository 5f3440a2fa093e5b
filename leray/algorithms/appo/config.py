"""Options of APPO."""

from dataclasses import dataclass
from typing import ClassVar

from leray.algorithms.config import PolicyConfig, require
from leray.algorithms.onpolicy.options import ActorCriticConfig


@PolicyConfig.register_subclass("appo")
@dataclass(kw_only=True)
class APPOPolicyConfig(ActorCriticConfig):
    """Asynchronous PPO with V-trace and a target network (IMPACT, arXiv 1912.00167).

    `--batch_size` is the environment steps of one gradient step.
    """

    algorithm_path: ClassVar[str] = "leray.algorithms.appo.algorithm:APPOConfig"
    default_batch_size: ClassVar[int] = 500

    lr: float = 5e-4
    """Adam learning rate."""
    clip_param: float = 0.4
    """How far the probability ratio may leave 1 before the objective is clipped."""
    entropy_coeff: float = 0.01
    """Weight of the entropy bonus."""
    grad_clip_norm: float | None = 40.0
    """Clip the gradient to this norm; `null` does not clip."""
    trajectory_length: int = 50
    """Least steps of each environment that V-trace looks at together; a longer
    `--runners.rollout_fragment_length` replaces it."""
    circular_buffer_num_batches: int = 8
    """Batches kept for reuse."""
    circular_buffer_iterations_per_batch: int = 2
    """Gradient steps taken on each batch."""
    target_network_update_freq: float = 2.0
    """Updates of the target network, in turnovers of the buffer: every (this x batches x
    iterations x batch size) trained steps."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        super().__post_init__()
        counts = ("trajectory_length", "circular_buffer_num_batches")
        for name in (*counts, "circular_buffer_iterations_per_batch"):
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        frequency = self.target_network_update_freq
        require(
            frequency > 0,
            f"--policy.target_network_update_freq={frequency}: give a number > 0",
        )
