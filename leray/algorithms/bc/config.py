"""Options of behaviour cloning."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from leray.algorithms.config import PolicyConfig, require
from leray.algorithms.imitation.config import ImitationPolicyConfig, OptimizerPreset
from leray.algorithms.sac.config import MLPConfig


@PolicyConfig.register_subclass("bc")
@dataclass(kw_only=True)
class BCPolicyConfig(ImitationPolicyConfig):
    """Behaviour cloning with the actor of SAC: vectors in, one action out."""

    policy_path: ClassVar[str] = "leray.algorithms.bc.policy:BCPolicy"
    algorithm_path: ClassVar[str] = "leray.algorithms.bc.algorithm:BCConfig"
    default_batch_size: ClassVar[int] = 256
    reads_pictures: ClassVar[bool] = False

    actor_network_kwargs: MLPConfig = field(default_factory=MLPConfig)
    """Shape of the actor network; SAC goes on with it only in the same shape."""
    distribution: Literal["deterministic", "gaussian"] = "deterministic"
    """`deterministic`: learn the action by squared error; `gaussian`: learn also how much
    demonstrations differ, by likelihood."""
    exploration_std: float = 0.1
    """Standard deviation of actions before the tanh: what a `deterministic` actor is given for SAC
    to explore with, and the least that a `gaussian` one learns."""
    normalization_mapping: dict[str, str] = field(
        default_factory=lambda: {"STATE": "MEAN_STD", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}
    )
    """How each type of feature (STATE, ENV, ACTION) is normalised: IDENTITY, MEAN_STD, MIN_MAX,
    QUANTILES (q01 to q99) or QUANTILE10 (q10 to q90); of actions, declared bounds go before
    statistics."""
    optimizer_lr: float = 3e-4
    """Adam learning rate."""

    def __post_init__(self) -> None:
        """Check ranges, naming the flag, its value and what is allowed."""
        super().__post_init__()
        require(self.n_obs_steps == 1, f"--policy.n_obs_steps={self.n_obs_steps}: bc allows only 1")
        kind = self.distribution
        require(
            kind in ("deterministic", "gaussian"),
            f"--policy.distribution={kind}: allowed are deterministic, gaussian",
        )
        for name in ("exploration_std", "optimizer_lr"):
            value = getattr(self, name)
            require(value > 0, f"--policy.{name}={value}: give a number > 0")

    @property
    def observation_delta_indices(self) -> None:
        """The present frame only."""
        return

    @property
    def action_delta_indices(self) -> list[int]:
        """The present frame only."""
        return [0]

    @property
    def optimizer(self) -> OptimizerPreset:
        """Adam."""
        return OptimizerPreset(type="adam", lr=self.optimizer_lr)
