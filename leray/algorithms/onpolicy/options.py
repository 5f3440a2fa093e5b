"""Options that PPO and APPO share; RLlib's names, LeRobot's where sac has the same option."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from leray.algorithms.config import PolicyConfig, require

ACTIVATIONS = ("tanh", "relu", "silu")


@dataclass(kw_only=True)
class ActorCriticConfig(PolicyConfig):
    """A policy and a value network, two separate perceptrons of the same shape."""

    policy_path: ClassVar[str] = "leray.algorithms.onpolicy.policy:ActorCriticPolicy"

    hidden_dims: list[int] = field(default_factory=lambda: [64, 64])
    """Width of each hidden layer, of the policy and of the value network."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """What follows each hidden layer."""
    lr: float = 3e-4
    """Adam learning rate."""
    discount: float = 0.99
    """Discount factor gamma per environment step."""
    clip_param: float = 0.2
    """How far the probability ratio may leave 1 before the objective is clipped."""
    vf_loss_coeff: float = 0.5
    """Weight of the value loss."""
    entropy_coeff: float = 0.0
    """Weight of the entropy bonus."""
    kl_coeff: float = 0.0
    """Initial weight of the penalty on the KL divergence from the old policy; 0 leaves it out."""
    kl_target: float = 0.01
    """KL divergence that the weight of the penalty is steered to, in nats."""
    grad_clip_norm: float | None = 0.5
    """Clip the gradient to this norm; `null` does not clip."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        require(
            len(self.hidden_dims) > 0 and min(self.hidden_dims) > 0,
            f"--policy.hidden_dims={self.hidden_dims}: give at least one width, each >= 1",
        )
        require(
            self.activation in ACTIVATIONS,
            f"--policy.activation={self.activation}: allowed are {', '.join(ACTIVATIONS)}",
        )
        for name in ("lr", "clip_param", "kl_target"):
            value = getattr(self, name)
            require(value > 0, f"--policy.{name}={value}: give a number > 0")
        for name in ("vf_loss_coeff", "entropy_coeff", "kl_coeff"):
            value = getattr(self, name)
            require(value >= 0, f"--policy.{name}={value}: give a number >= 0")
        require(
            0 <= self.discount <= 1,
            f"--policy.discount={self.discount}: give a number from 0 to 1",
        )
        require(
            self.grad_clip_norm is None or self.grad_clip_norm > 0,
            f"--policy.grad_clip_norm={self.grad_clip_norm}: give a number > 0 or null",
        )
