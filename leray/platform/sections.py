"""The groups of options of a training run: data, runners, learners, evaluation, tracking."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from leray.algorithms.config import require
from leray.algorithms.imitation.config import ImageTransformsConfig
from leray.algorithms.placement.groups import RunnerGroup, check_resources, read_groups
from leray.algorithms.placement.labels import check_selector


@dataclass(kw_only=True)
class DatasetConfig:
    """Where demonstrations come from or go to."""

    repo_id: str | None = None
    """Name of the dataset, `user/name`; without `root` it is looked up under `$HF_LEROBOT_HOME`,
    then fetched from the Hub."""
    root: Path | None = None
    """Local folder of the dataset (the one that holds `meta/info.json`); where it does not exist
    and `repo_id` is given, the dataset is fetched into it."""
    revision: str | None = None
    """Branch, tag or commit of the Hub; `null` takes the newest format version that can be read."""
    episodes: list[int] | None = None
    """Which episodes to use; `null` uses all."""
    use_imagenet_stats: bool = True
    """Normalise pictures by the mean and standard deviation of ImageNet instead of their own."""
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)
    memory_limit_mb: int | None = None
    """Memory in MiB that the stream to each learner may hold, with `--num_workers` of 1 or more;
    `null` takes 1024 for each worker and 1024 for the rest, more where the data needs it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        limit = self.memory_limit_mb
        require(
            limit is None or limit >= 1,
            f"--dataset.memory_limit_mb={limit}: give a whole number >= 1, or null",
        )


@dataclass(kw_only=True)
class ValidationConfig:
    """Which episodes of the dataset are held out of training, to measure the loss on them."""

    fraction: float = 0.0
    """Share of the episodes that is held out, evenly spaced over the dataset; 0 holds none out."""
    episodes: list[int] | None = None
    """Which episodes to hold out, instead of a share."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            0 <= self.fraction < 1,
            f"--validation.fraction={self.fraction}: give a number from 0 to below 1",
        )
        require(
            not (self.fraction and self.episodes),
            f"--validation.fraction={self.fraction} and --validation.episodes={self.episodes} "
            "contradict each other: give one of them",
        )

    @property
    def is_asked_for(self) -> bool:
        """Whether any episode is held out."""
        return bool(self.fraction or self.episodes)

    def held_out(self, episodes: list[int]) -> list[int]:
        """Return which of the episodes in use are held out; none of several is all of them."""
        if self.episodes or not self.fraction:
            return sorted(set(self.episodes or []))
        total = len(episodes)
        count = min(max(1, round(self.fraction * total)), total - 1)
        return [episodes[(2 * number + 1) * total // (2 * count)] for number in range(count)]


@dataclass(kw_only=True)
class LearnersConfig:
    """Where updates are taken."""

    num_learners: int = 0
    """Ray actors that share each batch in equal parts; 0 learns in the training process."""
    num_cpus_per_learner: float = 1.0
    """Ray CPUs reserved for each learner."""
    num_gpus_per_learner: float | None = None
    """Ray GPUs reserved for each learner; `null` takes 1 where `policy.device` is a GPU, else 0."""
    custom_resources_per_learner: dict[str, float] = field(default_factory=dict)
    """Further Ray resources each learner needs, for example `{fast_disk: 1}`."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels of the nodes that learners run on, for example `{role: learner}`; a value may also be
    `'!value'`, `'in(a, b)'` or `'!in(a, b)'`."""
    max_restarts: int = 3
    """How often training goes on from the last checkpoint after a learner was lost, before the run
    gives up."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_learners", "max_restarts"):
            value = getattr(self, name)
            require(value >= 0, f"--learners.{name}={value}: give a whole number >= 0")
        for name in ("num_cpus_per_learner", "num_gpus_per_learner"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"--learners.{name}={value}: give a number >= 0")
        resources = self.custom_resources_per_learner
        check_resources(resources, "--learners.custom_resources_per_learner")
        check_selector(self.labels, "--learners.labels")
        require(
            self.num_learners > 0 or not (self.labels or resources),
            "--learners.labels and --learners.custom_resources_per_learner need "
            "--learners.num_learners >= 1: 0 learns in the training process, wherever that runs",
        )


@dataclass(kw_only=True)
class RunnersConfig:
    """How experience is collected."""

    num_env_runners: int = 0
    """Ray actors that step environments; 0 steps them in the training process."""
    num_envs_per_env_runner: int = 1
    """Simulations stepped together in each runner, with one batched policy call."""
    rollout_fragment_length: int | None = None
    """Steps each environment takes before its experience is handed to the learner; `null` takes 1
    in `sync` and 16 in `async`."""
    clock: Literal["sync", "async"] | None = None
    """`sync`: sample, then learn, the same result for the same seed. `async`: neither waits.
    `null` takes `sync` for 0 runners and `async` otherwise."""
    num_cpus_per_env_runner: float = 1.0
    """Ray CPUs reserved for each runner."""
    num_gpus_per_env_runner: float = 0.0
    """Ray GPUs reserved for each runner."""
    custom_resources_per_env_runner: dict[str, float] = field(default_factory=dict)
    """Further Ray resources each runner needs, for example `{sim: 1}`."""
    groups: list[dict[str, Any]] = field(default_factory=list)
    """Runners of several kinds, instead of `num_env_runners` alike: for each kind a `name`, and
    what differs from the options above: `num_env_runners` (1 where it is not said),
    `num_envs_per_env_runner`, `num_cpus`, `num_gpus`, `resources`, `labels` of the nodes it runs on
    (values as in `learners.labels`), `env_kwargs` beside or instead of `env.kwargs`. For example
    `[{name: sims, num_env_runners: 4, labels: {role: sim}}, {name: arm, resources: {robot: 1}}]`.
    """
    max_restarts: int = 100
    """How often lost runners are replaced before the run gives up."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.num_env_runners >= 0,
            f"--runners.num_env_runners={self.num_env_runners}: give a whole number >= 0",
        )
        for name in ("num_envs_per_env_runner", "rollout_fragment_length"):
            value = getattr(self, name)
            require(
                value is None or value >= 1, f"--runners.{name}={value}: give a whole number >= 1"
            )
        for name in ("num_cpus_per_env_runner", "num_gpus_per_env_runner"):
            value = getattr(self, name)
            require(value >= 0, f"--runners.{name}={value}: give a number >= 0")
        name = "custom_resources_per_env_runner"
        check_resources(getattr(self, name), f"--runners.{name}")
        require(
            self.clock in ("sync", "async", None),
            f"--runners.clock={self.clock}: allowed are sync, async, null",
        )
        require(
            not (self.groups and self.num_env_runners),
            f"--runners.num_env_runners={self.num_env_runners} contradicts --runners.groups, where "
            "each group says how many it has: drop it",
        )
        self.runner_groups()
        require(
            not (self.clock == "async" and self.total_env_runners == 0),
            "--runners.clock=async needs --runners.num_env_runners >= 1",
        )

    def runner_groups(self) -> list[RunnerGroup]:
        """Return what each group of runners needs; none without `groups`."""
        return read_groups(self.groups, self._flat())

    def kinds(self) -> list[RunnerGroup]:
        """Return the groups, or runners that are alike as one; none without runners."""
        return self.runner_groups() or [self._flat()] * (self.num_env_runners > 0)

    @property
    def total_env_runners(self) -> int:
        """Runners of all groups."""
        return sum(group.num_env_runners for group in self.kinds())

    @property
    def total_envs(self) -> int:
        """Environments of all runners, or of the training process without any."""
        kinds = self.kinds()
        envs = sum(each.num_env_runners * each.num_envs_per_env_runner for each in kinds)
        return envs or self.num_envs_per_env_runner

    @property
    def total_cpus(self) -> int:
        """Ray CPUs of all runners, rounded up."""
        return math.ceil(sum(each.num_env_runners * each.num_cpus for each in self.kinds()))

    @property
    def resolved_clock(self) -> Literal["sync", "async"]:
        """The clock in force: the one asked for, else by the number of runners."""
        return self.clock or ("sync" if self.total_env_runners == 0 else "async")

    @property
    def fragment_length(self) -> int:
        """Steps per fragment in force."""
        return self.rollout_fragment_length or (1 if self.resolved_clock == "sync" else 16)

    def _flat(self) -> RunnerGroup:
        return RunnerGroup(
            name="all",
            num_env_runners=max(1, self.num_env_runners),
            num_envs_per_env_runner=self.num_envs_per_env_runner,
            num_cpus=self.num_cpus_per_env_runner,
            num_gpus=self.num_gpus_per_env_runner,
            resources=self.custom_resources_per_env_runner,
        )


@dataclass(kw_only=True)
class EvalConfig:
    """How a policy is judged."""

    n_episodes: int = 50
    """Episodes per evaluation, with deterministic actions and fixed seeds."""
    batch_size: int = 10
    """Environments stepped together during evaluation."""
    num_env_runners: int = 0
    """Ray actors that evaluate; 0 evaluates in the training process."""
    max_episodes_rendered: int = 1
    """Episodes of each evaluation that are saved as video; 0 records none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("n_episodes", "batch_size"):
            value = getattr(self, name)
            require(value >= 1, f"--eval.{name}={value}: give a whole number >= 1")
        for name in ("num_env_runners", "max_episodes_rendered"):
            value = getattr(self, name)
            require(value >= 0, f"--eval.{name}={value}: give a whole number >= 0")


@dataclass(kw_only=True)
class MLflowConfig:
    """Where metrics go."""

    enable: bool = True
    """Record this run in MLflow."""
    tracking_uri: str | None = None
    """MLflow server or store; `null` takes `$MLFLOW_TRACKING_URI`, else `outputs/mlflow.db`."""
    experiment: str = "leray"
    """MLflow experiment the run belongs to."""
    log_checkpoints: bool = False
    """Keep the best and last checkpoint's policy folder as artifacts."""
    register_as: str | None = None
    """Name in the model registry that the best policy is registered under at the end."""

    def __post_init__(self) -> None:
        """Check the name."""
        name = self.register_as
        require(
            name is None or re.fullmatch(r"\w[\w .-]*", name) is not None,
            f"--mlflow.register_as={name}: give letters, digits, spaces, `.`, `_` and `-`, "
            "beginning with a letter or digit",
        )
