"""What `leray train` and `leray eval` may be told: one nested, validated dataclass each."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leray.algorithms.config import PolicyConfig, require
from leray.envs.config import EnvConfig
from leray.platform.sections import (
    DatasetConfig,
    EvalConfig,
    LearnersConfig,
    MLflowConfig,
    RunnersConfig,
    ValidationConfig,
)

EVAL_METRICS = ("eval/success_rate", "eval/return_mean", "eval/episode_length")
"""Figures of evaluation that tell which policy is best."""


@dataclass(kw_only=True)
class TrainConfig:
    """Everything a training run is told; the resolved copy is saved with the run."""

    policy: PolicyConfig
    env: EnvConfig | None = None
    dataset: DatasetConfig | None = None
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    runners: RunnersConfig = field(default_factory=RunnersConfig)
    learners: LearnersConfig = field(default_factory=LearnersConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    mlflow: MLflowConfig = field(default_factory=MLflowConfig)
    output_dir: Path | None = None
    """The run's folder, or a place in an object store such as `s3://bucket/runs/1`; `null` makes
    `outputs/train/<date>/<time>_<job_name>`."""
    job_name: str | None = None
    """Name of the run; `null` joins env task and policy type."""
    resume: bool = False
    """Go on from the last checkpoint in `output_dir`, or of the run `config_path` belongs to."""
    seed: int = 1000
    """Seed of everything random in the run."""
    steps: int = 100_000
    """Environment steps to train for; offline, gradient updates."""
    batch_size: int | None = None
    """Samples per batch, of all learners together; `null` takes the policy's own (256 for sac)."""
    num_workers: int = 0
    """Ray actors that read and decode pictures for each learner; 0 does it in the learner's own
    threads."""
    use_online_training: bool | None = None
    """Collect experience while training; `null` does so when an environment is given to a policy
    that can learn from it."""
    eval_freq: int = 20_000
    """Steps between evaluations, in the environment and on held-out episodes; 0 evaluates only at
    the end."""
    best_metric: str | None = None
    """Figure that `checkpoints/best` is the best by, such as `validation/loss`; higher is better
    unless its name holds `loss`. `null` takes `eval/success_rate` where the environment reports it,
    else `validation/loss` where episodes are held out."""
    log_freq: int = 1_000
    """Steps between metric reports."""
    save_checkpoint: bool = True
    """Write checkpoints at all."""
    save_freq: int = 20_000
    """Steps between checkpoints."""
    keep_checkpoints: int | None = 3
    """How many of the newest checkpoints to keep, beside the best one; `null` keeps all."""

    def __post_init__(self) -> None:
        """Check ranges and combinations, and fill what follows from other fields."""
        for name in ("steps", "log_freq", "save_freq"):
            value = getattr(self, name)
            require(value >= 1, f"--{name}={value}: give a whole number >= 1")
        for name in ("eval_freq", "num_workers"):
            value = getattr(self, name)
            require(value >= 0, f"--{name}={value}: give a whole number >= 0")
        require(
            self.batch_size is None or self.batch_size >= 1,
            f"--batch_size={self.batch_size}: give a whole number >= 1",
        )
        self._settle_experience()
        self._check_judging()
        if self.job_name is None:
            task = self.env.task if self.env is not None else "offline"
            self.job_name = f"{task.replace('/', '_')}_{self.policy.type}"

    def _settle_experience(self) -> None:
        """Fill whether experience is collected, and check that there is something to learn from."""
        kind, can_collect = self.policy.type, self.policy.learns_online
        if self.use_online_training is None:
            self.use_online_training = self.env is not None and can_collect
        require(
            can_collect or not self.use_online_training,
            f"--use_online_training=true: {kind} learns from demonstrations only; drop the flag "
            "(an environment then serves for evaluation), or use another --policy.type",
        )
        require(
            can_collect or self.dataset is not None,
            f"--policy.type={kind} learns from demonstrations: give --dataset.root=<folder> or "
            "--dataset.repo_id=<user/name>",
        )
        require(
            not self.use_online_training or self.env is not None,
            "--use_online_training=true needs an environment: "
            "give --env.type=gym --env.task=..., or --use_online_training=false",
        )
        require(
            self.use_online_training or self.dataset is not None,
            "--use_online_training=false needs a dataset: give --dataset.root=<folder>",
        )
        require(
            self.use_online_training or self.runners.total_env_runners == 0,
            f"--runners.num_env_runners={self.runners.total_env_runners}: nothing is collected "
            "without online training; drop the flag (--eval.num_env_runners is for evaluation)",
        )

    def _check_judging(self) -> None:
        """Check that what policies are judged by can be had."""
        require(
            self.dataset is not None or not self.validation.is_asked_for,
            "--validation holds episodes of a dataset out, and there is none: give "
            "--dataset.root=<folder>, or drop --validation.*",
        )
        metric = self.best_metric
        sources = {"eval": self.env is not None, "validation": self.validation.is_asked_for}
        require(
            metric is None or metric in EVAL_METRICS or metric.startswith("validation/"),
            f"--best_metric={metric}: allowed are validation/loss, {', '.join(EVAL_METRICS)}",
        )
        require(
            metric is None or sources[metric.split("/")[0]],
            f"--best_metric={metric}: needs an environment (--env.type=...) for eval/..., "
            "or held-out episodes (--validation.fraction=0.1) for validation/...",
        )

    @property
    def samples_per_update(self) -> int:
        """Samples that an update from a dataset takes, of all learners together."""
        batch_size = self.batch_size or self.policy.default_batch_size
        return batch_size * self.policy.batches_per_update

    def default_output_dir(self, now: datetime.datetime) -> Path:
        """Return `outputs/train/<date>/<time>_<job_name>`, as LeRobot lays it out."""
        return Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.job_name}"


@dataclass(kw_only=True)
class EvalPolicyConfig:
    """Which trained policy to judge."""

    path: Path
    """Checkpoint folder: `.../pretrained_model`, or the checkpoint or run folder that holds one,
    here or in an object store (`s3://bucket/runs/1`); or the name of a policy on the Hub,
    `user/name`."""
    device: str | None = None
    """Torch device for the policy; `null` takes the best found."""


@dataclass(kw_only=True)
class EvalRunConfig:
    """Everything `leray eval` is told."""

    policy: EvalPolicyConfig
    env: EnvConfig | None = None
    """The environment; `null` takes the one the policy was trained on."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    output_dir: Path | None = None
    """Where `eval_info.json` and videos go; `null` makes `outputs/eval/<date>/<time>_<task>`."""
    seed: int = 1000
    """Seed of the first episode; each further episode adds one."""


@dataclass(kw_only=True)
class RecordPolicyConfig:
    """Who acts while demonstrations are recorded."""

    type: Literal["expert", "random"] = "expert"
    """`expert`: the task's scripted expert; `random`: uniform actions."""
    path: Path | None = None
    """Record a trained policy instead: its checkpoint folder."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise added to the actions, as a share of half their range."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.type in ("expert", "random"),
            f"--policy.type={self.type}: allowed are expert, random; or give --policy.path",
        )
        require(self.noise >= 0, f"--policy.noise={self.noise}: give a number >= 0")


@dataclass(kw_only=True)
class RecordDatasetConfig:
    """Which dataset to write."""

    root: Path
    """Folder of the dataset; it must not exist unless `--resume=true`."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`; `null` takes the folder's name."""
    num_episodes: int = 50
    """Episodes to save."""
    only_successes: bool = True
    """Save only episodes that end in success, where the environment reports success."""
    video: bool = True
    """Keep pictures as video (AV1, near key frames), `false` as PNG images, exact and larger."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.num_episodes >= 1,
            f"--dataset.num_episodes={self.num_episodes}: give a whole number >= 1",
        )


@dataclass(kw_only=True)
class RecordConfig:
    """Everything `leray record` is told."""

    env: EnvConfig
    dataset: RecordDatasetConfig
    policy: RecordPolicyConfig = field(default_factory=RecordPolicyConfig)
    seed: int = 1000
    """Seed of the first episode; each further episode adds one."""
    resume: bool = False
    """Append to the dataset that is already in `dataset.root`."""
