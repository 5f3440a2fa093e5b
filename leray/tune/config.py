"""What `leray sweep` may be told, and the training config of each of its trials."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from leray.algorithms.config import require
from leray.platform.config import TrainConfig
from leray.tune.base import Base
from leray.tune.checks import check
from leray.tune.space import Space, parse_space


@dataclass(kw_only=True)
class SchedulerConfig:
    """Which trials go on, and with what; they are compared at each evaluation.

    Where `train.eval_freq` is not given, it is `grace_steps` or `perturbation_steps`, else a tenth
    of `train.steps`.
    """

    type: Literal["none", "asha", "median", "pbt", "pb2"] = "none"
    """`none`: every trial runs to its end. `asha`: successive halving, trials that are behind
    others of the same age are stopped. `median`: those below the median of the others' averages
    are. `pbt`: the worst take over the best ones' state and vary their values by chance; `pb2`:
    by a model of what helped."""
    grace_steps: int | None = None
    """asha, median: steps that every trial may take; `null` takes `train.eval_freq`."""
    reduction_factor: float = 3.0
    """asha: of so many trials one goes on, to a step so many times further."""
    perturbation_steps: int | None = None
    """pbt, pb2: steps between exchanges; `null` takes `train.eval_freq`."""
    quantile_fraction: float = 0.25
    """pbt, pb2: share of the trials that count as the worst, and as the best."""
    resample_probability: float = 0.25
    """pbt: how likely a value is drawn anew from its domain, instead of moved a little."""

    def __post_init__(self) -> None:
        """Check ranges, and that each option belongs to the type."""
        owners = {"grace_steps": ("asha", "median"), "perturbation_steps": ("pbt", "pb2")}
        for name, types in owners.items():
            value = getattr(self, name)
            label = f"--scheduler.{name}={value}"
            require(value is None or value >= 1, f"{label}: give a whole number >= 1, or null")
            require(
                value is None or self.type in types,
                f"{label}: belongs to --scheduler.type={' or '.join(types)}, not to {self.type}",
            )
        factor, share = self.reduction_factor, self.quantile_fraction
        require(factor > 1, f"--scheduler.reduction_factor={factor}: give a number above 1")
        require(
            0 < share <= 0.5,
            f"--scheduler.quantile_fraction={share}: give a number above 0, up to 0.5",
        )
        chance = self.resample_probability
        require(
            0 <= chance <= 1,
            f"--scheduler.resample_probability={chance}: give a number from 0 to 1",
        )


@dataclass(kw_only=True)
class ResourcesConfig:
    """What Ray reserves for each trial, beside its runners, learners and workers."""

    cpu: float = 1.0
    """Ray CPUs."""
    gpu: float = 0.0
    """Ray GPUs; 0.5 lets two trials share one."""
    custom: dict[str, float] = field(default_factory=dict)
    """Further Ray resources, for example `{robot: 1}`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        named = {"cpu": self.cpu, "gpu": self.gpu}
        named |= {f"custom.{name}": amount for name, amount in self.custom.items()}
        for name, amount in named.items():
            require(amount >= 0, f"--resources.{name}={amount}: give a number >= 0")


@dataclass(kw_only=True)
class SweepConfig:
    """Everything a sweep is told; the resolved copy is saved with it."""

    record: ClassVar[str] = "sweep_config.yaml"
    """Name of that copy."""

    train: dict[str, Any]
    """Options that all trials share, as in a `train_config.yaml`; `--train.steps=100` sets one."""
    space: dict[str, Any]
    """What varies: a domain for each option, as `batch_size: {choice: [64, 256]}`. Domains are
    `choice`, `grid` (each value is tried), `uniform`, `loguniform`, `int`, `logint` (`[low, high]`,
    both possible), and plain values; `when: {policy.type: sac}` beside one makes it conditional."""
    metric: str | list[str] = "eval/success_rate"
    """Figure that trials are compared by; several with `--search=optuna`."""
    mode: str | list[str] = "max"
    """`max` or `min`, for each metric."""
    num_trials: int = 10
    """Configurations that are drawn; each runs at every point of the grid."""
    time_budget_s: float | None = None
    """Seconds after which the sweep ends; `null` sets no limit."""
    search: Literal["random", "grid", "optuna"] = "random"
    """`random`: draw from the space; `grid`: the same, for a space that holds a grid; `optuna`:
    learn from trials where to look, by the tree-structured Parzen estimator. The trials of a grid
    then count as repeats, which are scored together by their mean."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    max_concurrent_trials: int | None = None
    """Trials that run at a time, at most; `null` runs as many as resources allow."""
    max_failures: int = 3
    """How often a trial that dies goes on from its last checkpoint, before it is given up."""
    output_dir: Path | None = None
    """The sweep's folder; `null` makes `outputs/sweep/<date>/<time>_<job_name>`."""
    job_name: str | None = None
    """Name of the sweep; `null` joins env task and policy type."""
    resume: bool = False
    """Go on with the sweep in `output_dir`."""
    seed: int = 0
    """Seed of the search; that of the trainings is `train.seed`."""
    register_as: str | None = None
    """Name under which the best policy enters MLflow's model registry; `null` does not enter it."""

    def __post_init__(self) -> None:
        """Check everything that can be known before a trial starts, and fill the name."""
        self._check_ranges()
        if self.scheduler.type != "none":
            self._fill_eval_freq()
        first = check(self)
        self.job_name = self.job_name or first.job_name

    @property
    def metrics(self) -> list[str]:
        """The metrics, also where it is one."""
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def modes(self) -> list[str]:
        """`max` or `min` for each metric."""
        return [self.mode] if isinstance(self.mode, str) else self.mode

    def search_space(self) -> Space:
        """Return what varies.

        Raises:
            ConfigError: a domain or a condition is none.
        """
        base = Base(self.train)
        return parse_space(self.space, base.leaves, base.value)

    def default_output_dir(self, now: datetime.datetime) -> Path:
        """Return `outputs/sweep/<date>/<time>_<job_name>`."""
        return Path("outputs/sweep") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.job_name}"

    def _check_ranges(self) -> None:
        for name in ("num_trials", "max_concurrent_trials"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"--{name}={value}: give a whole number >= 1")
        require(
            self.max_failures >= 0,
            f"--max_failures={self.max_failures}: give a whole number >= 0",
        )
        require(
            self.time_budget_s is None or self.time_budget_s > 0,
            f"--time_budget_s={self.time_budget_s}: give a number > 0, or null",
        )

    def _fill_eval_freq(self) -> None:
        """Let trials report on the way, where it is not said how often."""
        base, options = Base(self.train), self.scheduler
        steps = base.value("steps")
        if not base.gives("eval_freq") and isinstance(steps, int | float):
            each = options.grace_steps or options.perturbation_steps or max(1, int(steps) // 10)
            self.train = {**self.train, "eval_freq": each}


def trial_config(sweep: SweepConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return the training config of a trial, checked like one of `leray train`.

    Args:
        sweep: what the trial is one of.
        values: what the search chose, by dotted key.

    Raises:
        ConfigError: an option is unknown, missing, of the wrong type or refused.
    """
    return Base(sweep.train).config(values)
