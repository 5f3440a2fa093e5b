"""What a new dataset is made of: chosen episodes of one dataset, and how they are changed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leray.data.lerobot.folder import is_local, open_folder
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError


@dataclass(frozen=True)
class Source:
    """Some episodes of a dataset, with the tasks that they get."""

    reader: DatasetReader
    """Open on the episodes that are taken."""
    renamed_tasks: Mapping[str, str] = field(default_factory=dict)
    """New texts of tasks by their old ones; the others keep theirs."""
    episode_tasks: Mapping[int, str] = field(default_factory=dict)
    """The one task of all frames of an episode, by its index; goes before `renamed_tasks`."""

    @property
    def metadata(self) -> Metadata:
        """What the whole dataset says about itself."""
        return self.reader.metadata

    @property
    def positions(self) -> NDArray[np.int64]:
        """Rows of the episode table that are taken [episodes], ascending."""
        index = self.metadata.episodes.index
        return np.searchsorted(index, self.reader.episodes).astype(np.int64)

    def task(self, episode: int, task: str) -> str:
        """Return the text that a task of an episode has in the new dataset."""
        return self.episode_tasks.get(episode, self.renamed_tasks.get(task, task))

    def tasks(self) -> Iterator[str]:
        """Yield the new texts of all tasks in the order of the old ones, then those that are added.

        Tasks that no frame has keep their place, so that the numbers of the others stay; those that
        only replaced ones had are left out.
        """
        episodes = self.metadata.episodes
        kept: set[str] = set()
        listed: set[str] = set()
        for index, tasks in zip(episodes.index.tolist(), episodes.tasks, strict=True):
            listed.update(tasks)
            if index not in self.episode_tasks:
                kept.update(tasks)
        for task in self.metadata.tasks:
            if task in kept or task not in listed:
                yield self.renamed_tasks.get(task, task)
        yield from self.episode_tasks.values()


def open_source(root: str | Path, episodes: Iterable[int] | None = None) -> Source:
    """Open a local dataset as a source that changes nothing.

    Args:
        root: the dataset's folder.
        episodes: indices of the episodes to take; all when None.

    Raises:
        DatasetError: there is no dataset, it is remote or damaged, or an episode does not exist.
    """
    folder = open_folder(root)
    if not is_local(folder):
        raise DatasetError(
            f"{root} is not a local folder; bring it here with `leray dataset pull` first"
        )
    return Source(DatasetReader.open(folder, episodes=episodes))
