"""What the training loop asks of an algorithm, whatever RLlib class is behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from leray.algorithms.imitation.config import ImageTransformsConfig
from leray.algorithms.placement.groups import RunnerGroup
from leray.envs.config import EnvConfig


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """The dataset of a run, and how it is read."""

    root: str
    """Local folder."""
    episodes: list[int] | None = None
    """Those to learn from; None is all that are not held out."""
    held_out: list[int] = field(default_factory=list)
    """Episodes that are only validated on."""
    use_imagenet_stats: bool = True
    """Normalise pictures by ImageNet's statistics instead of their own."""
    image_transforms: ImageTransformsConfig = field(default_factory=ImageTransformsConfig)
    num_workers: int = 0
    """Ray actors that decode for each learner; 0 decodes in the learner's own threads."""
    memory_limit_mb: int | None = None
    """Of each learner's stream with workers."""


class TrainableConfig(Protocol):
    """An RLlib `AlgorithmConfig` that a run can be described to, piece by piece.

    `prepare` comes first, then `place`; with an environment, `env_options` and `pace` follow.
    """

    seed: int | None
    env_options: EnvConfig | None
    goal_relative: bool
    observation_space: Any
    action_space: Any

    def prepare(self, options: dict[str, Any], batch_size: int) -> None:
        """Set the policy's options by name, and the batch size.

        Args:
            options: the fields of the policy's dataclass.
            batch_size: transitions per update of off-policy algorithms, transitions per iteration
                of on-policy ones.

        Raises:
            ConfigError: a value is out of range.
        """
        ...

    def place(
        self,
        *,
        online: bool,
        replay_folder: str,
        replay_slack: int,
        dataset: DataSource | None,
        total_steps: int,
    ) -> None:
        """Say where experience comes from and where it lies, and how long the run is.

        Raises:
            ConfigError: the algorithm cannot learn from that.
        """
        ...

    def pace(self, clock: str, fragment_length: int) -> None:
        """Set the clock (`sync` or `async`) and the steps of each environment per fragment.

        Raises:
            ConfigError: the algorithm does not work on that clock.
        """
        ...

    def environment(self, env: str | None = None, **options: Any) -> Any:
        """Set environment and spaces (RLlib's own)."""
        ...

    def env_runners(self, **options: Any) -> Any:
        """Set how many env runners there are and what they need (RLlib's own)."""
        ...

    def group_env_runners(self, groups: Sequence[RunnerGroup]) -> Any:
        """Have groups of env runners that differ in what they need and where they run."""
        ...

    def fault_tolerance(self, **options: Any) -> Any:
        """Set what happens when runners are lost (RLlib's own)."""
        ...

    def learners(self, **options: Any) -> Any:
        """Set where updates happen (RLlib's own)."""
        ...

    def label_learners(self, labels: Mapping[str, str]) -> Any:
        """Have learners run on nodes with these labels only."""
        ...

    def validate(self) -> None:
        """Check the options together; with no environment, the spaces are then the policy's own.

        RLlib does so once more when it builds.

        Raises:
            LerayError: dataset and policy do not exist or do not fit together.
        """
        ...

    def build_algo(self) -> Any:
        """Build the algorithm, which follows `Trainable` (RLlib's own)."""
        ...


class Trainable(Protocol):
    """A built algorithm, as `leray train` drives it."""

    boundary: int | None
    """Progress at which the caller wants to look around next; an algorithm that learns in larger
    pieces may go beyond it by less than one piece."""
    stop_requested: bool
    """Set by the caller to end a call of `train` early, where that is possible."""

    @property
    def progress(self) -> int:
        """What the run's length is counted in: environment steps, or updates offline."""
        ...

    @property
    def env_steps(self) -> int:
        """Environment steps since the start of training, resumed parts included."""
        ...

    @property
    def num_updates(self) -> int:
        """Gradient updates since the start of training, resumed parts included."""
        ...

    def train(self) -> Any:
        """Go on by a small piece of training.

        Raises:
            LearnerError: a learner was lost; the last checkpoint is where training can go on.
        """
        ...

    def report(self) -> dict[str, float]:
        """Return figures under the names all algorithms share (`train/...`, `loss/...`)."""
        ...

    def validate(self) -> dict[str, float]:
        """Return figures on held-out data as `validation/...`; empty where there is none."""
        ...

    def checkpoint_boundary(self) -> None:
        """Come to a state that a checkpoint can hold; called before every checkpoint."""
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write the policy as a LeRobot checkpoint folder."""
        ...

    def save_training_state(self, folder: Path) -> dict[str, Any]:
        """Write what resuming needs beside the policy, and return counters fit for JSON."""
        ...

    def load_training_state(self, folder: Path, counters: dict[str, Any]) -> None:
        """Go back to a saved state; weights come from the policy's `pretrained_path`.

        Raises:
            CheckpointError: the state is incomplete, damaged or of another policy.
        """
        ...

    def stop(self) -> None:
        """Let go of runners, learners and files."""
        ...
