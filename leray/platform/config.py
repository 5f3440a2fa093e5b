"""What `leray train` and `leray eval` may be told: one nested, validated dataclass each."""

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from leray.algorithms.config import PolicyConfig, require
from leray.envs.config import EnvConfig


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
        require(
            self.clock in ("sync", "async", None),
            f"--runners.clock={self.clock}: allowed are sync, async, null",
        )
        require(
            not (self.clock == "async" and self.num_env_runners == 0),
            "--runners.clock=async needs --runners.num_env_runners >= 1",
        )

    @property
    def resolved_clock(self) -> Literal["sync", "async"]:
        """The clock in force: the one asked for, else by the number of runners."""
        return self.clock or ("sync" if self.num_env_runners == 0 else "async")

    @property
    def fragment_length(self) -> int:
        """Steps per fragment in force."""
        return self.rollout_fragment_length or (1 if self.resolved_clock == "sync" else 16)


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


@dataclass(kw_only=True)
class TrainConfig:
    """Everything a training run is told; the resolved copy is saved with the run."""

    policy: PolicyConfig
    env: EnvConfig | None = None
    dataset: DatasetConfig | None = None
    runners: RunnersConfig = field(default_factory=RunnersConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    mlflow: MLflowConfig = field(default_factory=MLflowConfig)
    output_dir: Path | None = None
    """The run's folder; `null` makes `outputs/train/<date>/<time>_<job_name>`."""
    job_name: str | None = None
    """Name of the run; `null` joins env task and policy type."""
    resume: bool = False
    """Go on from the last checkpoint in `output_dir`, or of the run `config_path` belongs to."""
    seed: int = 1000
    """Seed of everything random in the run."""
    steps: int = 100_000
    """Environment steps to train for; offline, gradient updates."""
    batch_size: int | None = None
    """Transitions per update; `null` takes the policy's own (256 for sac)."""
    use_online_training: bool | None = None
    """Collect experience while training; `null` does so when an environment is given."""
    eval_freq: int = 20_000
    """Steps between evaluations; 0 evaluates only at the end."""
    log_freq: int = 1_000
    """Steps between metric reports."""
    save_checkpoint: bool = True
    """Write checkpoints at all."""
    save_freq: int = 20_000
    """Steps between checkpoints."""
    keep_checkpoints: int | None = 3
    """How many of the newest checkpoints to keep; `null` keeps all."""

    def __post_init__(self) -> None:
        """Check ranges and combinations, and fill what follows from other fields."""
        for name in ("steps", "log_freq", "save_freq"):
            value = getattr(self, name)
            require(value >= 1, f"--{name}={value}: give a whole number >= 1")
        require(self.eval_freq >= 0, f"--eval_freq={self.eval_freq}: give a whole number >= 0")
        require(
            self.batch_size is None or self.batch_size >= 1,
            f"--batch_size={self.batch_size}: give a whole number >= 1",
        )
        if self.use_online_training is None:
            self.use_online_training = self.env is not None
        require(
            not self.use_online_training or self.env is not None,
            "--use_online_training=true needs an environment: "
            "give --env.type=gym --env.task=..., or --use_online_training=false",
        )
        require(
            self.use_online_training or self.dataset is not None,
            "--use_online_training=false needs a dataset: give --dataset.root=<folder>",
        )
        if self.job_name is None:
            task = self.env.task if self.env is not None else "offline"
            self.job_name = f"{task.replace('/', '_')}_{self.policy.type}"

    def default_output_dir(self, now: datetime.datetime) -> Path:
        """Return `outputs/train/<date>/<time>_<job_name>`, as LeRobot lays it out."""
        return Path("outputs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{self.job_name}"


@dataclass(kw_only=True)
class EvalPolicyConfig:
    """Which trained policy to judge."""

    path: Path
    """Checkpoint folder: `.../pretrained_model`, or the checkpoint or run folder that holds one."""
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
