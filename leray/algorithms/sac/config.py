"""Options of SAC, named as in LeRobot where LeRobot has them."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from leray.algorithms.config import PolicyConfig, require


@dataclass(kw_only=True)
class MLPConfig:
    """A multi-layer perceptron's shape."""

    hidden_dims: list[int] = field(default_factory=lambda: [256, 256])
    """Width of each hidden layer."""
    layer_norm: bool = False
    """Normalise each hidden layer before its activation (RLPD, section 4.2)."""

    def __post_init__(self) -> None:
        """Refuse empty networks and widths below one."""
        require(
            len(self.hidden_dims) > 0 and min(self.hidden_dims) > 0,
            f"hidden_dims={self.hidden_dims}: give at least one width, each >= 1",
        )


@PolicyConfig.register_subclass("sac")
@dataclass(kw_only=True)
class SACPolicyConfig(PolicyConfig):
    """Soft actor-critic: networks, losses, optimisers, replay and mixing."""

    policy_path: ClassVar[str] = "leray.algorithms.sac.policy:SACPolicy"
    algorithm_path: ClassVar[str] = "leray.algorithms.sac.algorithm:SACConfig"

    actor_network_kwargs: MLPConfig = field(default_factory=MLPConfig)
    """Shape of the actor network."""
    critic_network_kwargs: MLPConfig = field(default_factory=MLPConfig)
    """Shape of each critic network."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {"STATE": "MEAN_STD", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}
    )
    """How each type of feature is normalised: IDENTITY, MEAN_STD, MIN_MAX, QUANTILES (q01 to q99)
    or QUANTILE10 (q10 to q90); observations only where a dataset gives statistics."""
    num_critics: int = 2
    """Size of the critic ensemble."""
    num_subsample_critics: int | None = None
    """How many random target critics the minimum is taken over (REDQ); `null` means all."""
    actor_lr: float = 3e-4
    """Adam learning rate of the actor."""
    critic_lr: float = 1e-3
    """Adam learning rate of the critics."""
    temperature_lr: float = 1e-3
    """Adam learning rate of the entropy temperature."""
    temperature_init: float = 1.0
    """Initial entropy temperature alpha."""
    target_entropy: float | None = None
    """Entropy the temperature is tuned to, in nats; `null` means minus the number of actions."""
    use_backup_entropy: bool = True
    """Subtract the entropy term in the critic's target."""
    discount: float = 0.99
    """Discount factor gamma per environment step."""
    n_step: int = 1
    """Number of rewards summed in the critic's target before bootstrapping."""
    critic_target_update_weight: float = 0.005
    """Weight tau of the moving average that the target critics follow."""
    utd_ratio: float = 1.0
    """Critic updates per environment step."""
    policy_update_freq: int = 1
    """Critic updates per actor (and temperature) update."""
    grad_clip_norm: float | None = None
    """Clip each network's gradient to this norm; `null` does not clip."""
    online_ratio: float = 0.5
    """Share of each batch drawn from online data when offline data is present."""
    online_buffer_capacity: int = 1_000_000
    """Online replay size in transitions."""
    offline_buffer_capacity: int = 1_000_000
    """Offline replay size in transitions; it grows to hold the dataset if that is larger."""
    online_step_before_learning: int = 1_000
    """Environment steps taken (with random actions) before the first update."""
    bc_weight: float = 0.0
    """Weight of imitating the actions of offline samples in the actor's loss."""
    bc_q_filter: bool = False
    """Imitate only where the critics rate the recorded action above the actor's own (Nair et al.
    2018), for demonstrations that are not good throughout."""
    her_ratio: float = 0.8
    """Share of samples that get a goal their own episode came to (hindsight experience replay);
    only where observations hold goals and the environment has `compute_reward`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the large matrix products; weights and sums stay float32."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        positive = ("actor_lr", "critic_lr", "temperature_lr", "temperature_init", "utd_ratio")
        for name in positive:
            value = getattr(self, name)
            require(value > 0, f"--policy.{name}={value}: give a number > 0")
        counts = ("num_critics", "n_step", "policy_update_freq", "online_buffer_capacity")
        for name in (*counts, "offline_buffer_capacity"):
            value = getattr(self, name)
            require(value >= 1, f"--policy.{name}={value}: give a whole number >= 1")
        for name in ("discount", "online_ratio", "critic_target_update_weight", "her_ratio"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"--policy.{name}={value}: give a number from 0 to 1")
        subset = self.num_subsample_critics
        require(
            subset is None or 1 <= subset <= self.num_critics,
            f"--policy.num_subsample_critics={subset}: give 1 to num_critics={self.num_critics}",
        )
        require(
            self.grad_clip_norm is None or self.grad_clip_norm > 0,
            f"--policy.grad_clip_norm={self.grad_clip_norm}: give a number > 0 or null",
        )
        before = self.online_step_before_learning
        require(before >= 0, f"--policy.online_step_before_learning={before}: give a number >= 0")
        require(self.bc_weight >= 0, f"--policy.bc_weight={self.bc_weight}: give a number >= 0")
        require(
            self.precision in ("float32", "bfloat16"),
            f"--policy.precision={self.precision}: allowed are float32, bfloat16",
        )
