"""`leray dataset edit`: delete, split, merge, drop features, rename tasks; into new datasets."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import draccus

from leray.algorithms.config import require
from leray.data.tools import edit
from leray.data.tools.rewriting.rewrite import Rewritten
from leray.platform.dataset.steps import Steps

OnProgress = Callable[[int, int], None]


@dataclass(kw_only=True)
class OperationConfig(draccus.ChoiceRegistry, abc.ABC):  # type: ignore[misc]
    """What is to be done; `--operation.type` picks it."""

    needs_root = True
    """Whether it edits the one dataset of `root` or `repo_id`."""

    @property
    def type(self) -> str:
        """The name under which this operation is registered."""
        return str(self.get_choice_name(self.__class__))

    @abc.abstractmethod
    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new datasets."""


@OperationConfig.register_subclass("delete_episodes")
@dataclass(kw_only=True)
class DeleteEpisodesConfig(OperationConfig):
    """Leave episodes out; the others are numbered anew."""

    episode_indices: list[int]
    """Which episodes to leave out, such as `[0,3]`."""

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new dataset."""
        indices = self.episode_indices
        return [edit.delete_episodes(root, output, indices, on_progress=on_progress)]


@OperationConfig.register_subclass("split")
@dataclass(kw_only=True)
class SplitConfig(OperationConfig):
    """Write parts as datasets of their own, `<output>/<name>`."""

    splits: dict[str, Any]
    """Episodes of each part by its name: fractions of all, taken in order (`{train: 0.8, val:
    0.2}`), or lists of indices (`{train: [0,1], val: [2]}`)."""

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new datasets."""
        return list(edit.split(root, output, self.splits, on_progress=on_progress).values())


@OperationConfig.register_subclass("merge")
@dataclass(kw_only=True)
class MergeConfig(OperationConfig):
    """Join datasets of the same features and rate, episodes one after the other."""

    needs_root = False

    roots: list[Path] = field(default_factory=list)
    """Local folders of the datasets, in order, such as `[data/a,data/b]`."""
    repo_ids: list[str] = field(default_factory=list)
    """Names of the datasets, looked up on this machine and then on the Hub; after `roots`."""

    def __post_init__(self) -> None:
        """Check that there is something to merge."""
        require(
            len(self.roots) + len(self.repo_ids) > 0,
            "nothing to merge: give --operation.roots=[<folder>,<folder>]",
        )

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new dataset."""
        folders = [*self.roots, *map(_resolve, self.repo_ids)]
        return [edit.merge(folders, output, on_progress=on_progress)]


@OperationConfig.register_subclass("remove_feature")
@dataclass(kw_only=True)
class RemoveFeatureConfig(OperationConfig):
    """Leave features out, cameras included."""

    feature_names: list[str]
    """Which features to leave out, such as `[observation.images.wrist]`."""

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new dataset."""
        names = self.feature_names
        return [edit.remove_features(root, output, names, on_progress=on_progress)]


@OperationConfig.register_subclass("rename_task")
@dataclass(kw_only=True)
class RenameTaskConfig(OperationConfig):
    """Give a task another text; one that exists already unites the two."""

    old: str
    """The text as it is."""
    new: str
    """The text as it shall be."""

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new dataset."""
        return [edit.rename_tasks(root, output, {self.old: self.new}, on_progress=on_progress)]


@OperationConfig.register_subclass("modify_tasks")
@dataclass(kw_only=True)
class ModifyTasksConfig(OperationConfig):
    """Give all frames of episodes one task."""

    new_task: str | None = None
    """The task of every episode that `episode_tasks` does not name; `null` leaves theirs."""
    episode_tasks: dict[int, str] = field(default_factory=dict)
    """Tasks by episode, such as `{0: pick, 3: place}`."""

    def apply(self, root: Path, output: Path, on_progress: OnProgress) -> list[Rewritten]:
        """Write the new dataset."""
        tasks = (self.new_task, self.episode_tasks)
        return [edit.modify_tasks(root, output, *tasks, on_progress=on_progress)]


@dataclass(kw_only=True)
class EditConfig:
    """Everything `leray dataset edit` is told."""

    operation: OperationConfig
    output: Path
    """New folder for the result, a v3.0 dataset; the source stays as it is."""
    root: Path | None = None
    """Local folder of the dataset to edit, of any version."""
    repo_id: str | None = None
    """Name of the dataset, `user/name`, looked up on this machine and then on the Hub; not used
    where `root` is given."""

    def __post_init__(self) -> None:
        """Check combinations."""
        given = self.root is not None or self.repo_id is not None
        require(
            given or not self.operation.needs_root,
            "no dataset given: say --root=<folder>, or --repo_id=<user/name>",
        )
        require(
            not given or self.operation.needs_root,
            "merge takes its datasets from --operation.roots=[<folder>,<folder>], not from --root",
        )


def run(config: EditConfig) -> None:
    """Write the new datasets, and say what was found on the way.

    Raises:
        LerayError: a dataset, episode, feature or task does not exist, datasets do not fit
            together, the output exists, or the disk is full.
    """
    root = config.root or (_resolve(config.repo_id) if config.repo_id else Path())
    with Steps() as steps:
        made = config.operation.apply(root, config.output, steps)
    for note in dict.fromkeys(note for each in made for note in each.notes):
        print(f"note: {note}")
    for each in made:
        print(f"{each.folder}: {each.num_episodes:,} episodes, {each.num_frames:,} frames, v3.0")


def _resolve(repo_id: str) -> Path:
    from leray.data.hub.download import resolve

    return resolve(repo_id)
