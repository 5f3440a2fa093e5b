"""Reading LeRobot datasets of versions 2.0, 2.1 and 3.0 as contiguous columns."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leray.data import statistics
from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.columns import ColumnLoader, Columns
from leray.data.lerobot.metadata import Metadata, read_metadata
from leray.errors import DatasetError


class DatasetReader:
    """A LeRobot dataset folder, or some episodes of one.

    Opening reads metadata only; `read` brings columns into memory and checks them against the
    metadata on the way. Frames of videos and encoded images are not read here.

    Example:
        >>> dataset = DatasetReader.open("outputs/demonstrations")  # doctest: +SKIP
        >>> actions = dataset.read(["action"])["action"]  # doctest: +SKIP
    """

    metadata: Metadata
    """What the whole dataset says about itself, whichever episodes are selected."""

    def __init__(self, metadata: Metadata, selected: NDArray[np.int64]) -> None:
        self.metadata = metadata
        self._selected = selected

    @classmethod
    def open(cls, root: str | Path, *, episodes: Iterable[int] | None = None) -> "DatasetReader":
        """Open a dataset folder of version 2.0, 2.1 or 3.0.

        Args:
            root: the folder that holds `meta/` and `data/`.
            episodes: indices of the episodes to read, in any order (they are read ascending); all
                when None.

        Raises:
            DatasetError: there is no dataset, it is damaged or of another version, or an episode
                does not exist.
        """
        metadata = read_metadata(Path(root))
        return cls(metadata, _select(metadata, episodes))

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.metadata.root

    @property
    def version(self) -> str:
        """`v2.0`, `v2.1` or `v3.0`."""
        return self.metadata.version

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.metadata.fps

    @property
    def robot_type(self) -> str | None:
        """The robot that recorded the dataset, as it names it."""
        return self.metadata.robot_type

    @property
    def features(self) -> Features:
        """The features that can be read, cameras included, bookkeeping columns excluded."""
        return self.metadata.features

    @property
    def tasks(self) -> list[str]:
        """Task strings by task index."""
        return self.metadata.tasks

    @property
    def findings(self) -> list[str]:
        """Oddities that do not prevent reading, one line each."""
        return self.metadata.findings

    @property
    def episodes(self) -> list[int]:
        """Indices of the selected episodes, ascending."""
        indices: list[int] = self.metadata.episodes.index[self._selected].tolist()
        return indices

    @property
    def num_episodes(self) -> int:
        """Number of selected episodes."""
        return len(self._selected)

    @property
    def num_frames(self) -> int:
        """Number of frames in the selected episodes."""
        return int(self.metadata.episodes.length[self._selected].sum())

    @cached_property
    def stats(self) -> statistics.Statistics:
        """Statistics of the whole dataset by feature; what its files lack is computed exactly.

        Raises:
            DatasetError: the statistics files, or the data needed to complete them, are damaged.
        """
        stats = _stored_statistics(self.metadata)
        lacking = [
            name
            for name, feature in self.features.items()
            if feature.is_numeric and not set(statistics.KEYS) <= set(stats.get(name, ()))
        ]
        if lacking and len(self.metadata.episodes):
            everything = DatasetReader(self.metadata, _select(self.metadata, None))
            for name in lacking:
                computed = statistics.compute(everything.read([name])[name])
                stats[name] = computed | stats.get(name, {})
            self.findings.append(
                f"stored statistics are incomplete, computed for: {', '.join(lacking)}"
            )
        return stats

    def read(self, keys: Sequence[str] | None = None) -> Columns:
        """Read columns of the selected episodes; only the columns asked for are decoded.

        Peak memory is the result plus one batch of rows.

        Args:
            keys: names of features; all but cameras and images when None.

        Raises:
            DatasetError: a key cannot be read as a column, a file is damaged, or its rows disagree
                with the metadata.
        """
        return ColumnLoader(self.metadata, self._selected, self._readable(keys)).load()

    def _readable(self, keys: Sequence[str] | None) -> Features:
        readable = [
            name for name, f in self.features.items() if f.is_numeric or f.dtype == "string"
        ]
        wanted = readable if keys is None else list(keys)
        if unknown := [key for key in wanted if key not in readable]:
            raise DatasetError(
                f"{self.root} has no column {unknown[0]!r}; "
                f"there are: {', '.join(readable) or 'none'}"
            )
        return self.features.select(wanted)


def _select(metadata: Metadata, episodes: Iterable[int] | None) -> NDArray[np.int64]:
    """Return the positions of episodes in the table, ascending."""
    index = metadata.episodes.index
    if episodes is None:
        return np.arange(len(index), dtype=np.int64)
    wanted = np.unique(np.fromiter(episodes, dtype=np.int64))
    unknown = np.setdiff1d(wanted, index)
    if len(unknown):
        there = f"0 to {index[-1]}" if len(index) else "none"
        raise DatasetError(f"{metadata.root} has no episode {unknown[0]}; there are: {there}")
    return np.searchsorted(index, wanted).astype(np.int64)


def _stored_statistics(metadata: Metadata) -> statistics.Statistics:
    path = metadata.root / layout.STATS
    try:
        if path.is_file():
            return statistics.from_json(layout.read_json(path))
        path = metadata.root / layout.EPISODES_STATS_JSONL
        if metadata.version == "v2.1" and path.is_file():
            rows = layout.read_json_lines(path)
            return statistics.aggregate(statistics.from_json(row.get("stats")) for row in rows)
    except DatasetError as error:
        raise error if str(path) in str(error) else DatasetError(f"{path}: {error}") from error
    return {}
