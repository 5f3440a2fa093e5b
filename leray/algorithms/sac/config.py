"""Options of SAC, named as in LeRobot where LeRobot has them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from leray.algorithms.config import PolicyConfig, require

FRESH: dict[str, Any] = {"temperature_init": 1.0, "critic_warmup_updates": 0, "bc_weight": 0.0}
"""What options that are left open become."""
CLONED: dict[str, Any] = {
    "temperature_init": 0.01,
    "critic_warmup_updates": 3_000,
    "bc_weight": 100.0,
}
"""What they become where training starts from an actor that `bc` trained. New critics know nothing
of actions that were not demonstrated and would lead it away at once: they learn first, and
demonstrations hold it. A high temperature would make its nearly certain actions random."""


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
    temperature_init: float | None = None
    """Initial entropy temperature alpha; `null` takes 1, or 0.01 after `bc`."""
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
    """Environment steps taken before the first update."""
    random_before_learning: bool | None = None
    """Take those steps with random actions instead of the policy's; `null` does so unless training
    starts from a checkpoint."""
    critic_warmup_updates: int | None = None
    """Updates of the critics alone before the actor moves, taken at once when learning begins and
    not counted in `utd_ratio`; `null` takes 0, or 3000 after `bc`."""
    bc_weight: float | None = None
    """Weight of imitating the actions of offline samples in the actor's loss; `null` takes 0, or
    100 after `bc`."""
    bc_q_filter: bool = False
    """Imitate only where the critics rate the recorded action above the actor's own (Nair et al.
    2018), for demonstrations that are not good throughout."""
    her_ratio: float = 0.8
    """Share of samples that get a goal their own episode came to (hindsight experience replay);
    only where observations hold goals and the environment has `compute_reward`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the large matrix products; weights and sums stay float32."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed, and fill what follows."""
        self._fill()
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
        for name in ("online_step_before_learning", "critic_warmup_updates", "bc_weight"):
            value = getattr(self, name)
            require(value >= 0, f"--policy.{name}={value}: give a number >= 0")
        require(
            self.precision in ("float32", "bfloat16"),
            f"--policy.precision={self.precision}: allowed are float32, bfloat16",
        )

    def _fill(self) -> None:
        """Settle what is left open by what training starts from."""
        path = self.pretrained_path
        if self.random_before_learning is None:
            self.random_before_learning = path is None
        for name, value in (CLONED if path is not None and _is_clone(path) else FRESH).items():
            if getattr(self, name) is None:
                setattr(self, name, value)


def _is_clone(path: str) -> bool:
    """Tell whether a run, a checkpoint or a folder of a policy on this machine is one of `bc`."""
    for inside in ("", "pretrained_model", "checkpoints/last/pretrained_model"):
        file = Path(path).expanduser() / inside / "config.json"
        if file.is_file():
            try:
                return bool(json.loads(file.read_text())["type"] == "bc")
            except (OSError, ValueError, KeyError, TypeError):
                return False  # what is wrong with it is said where it is read
    return False
