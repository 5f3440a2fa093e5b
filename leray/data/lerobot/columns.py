"""The frames of a dataset as contiguous arrays, checked against the metadata."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Features
from leray.data.lerobot.episodes import EpisodeTable
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.parquet import damage_reported, iterate_rows, open_parquet, to_numpy
from leray.data.lerobot.schema import BOOKKEEPING
from leray.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Columns:
    """The frames of some episodes, one contiguous array per feature, episode after episode."""

    arrays: dict[str, NDArray[Any]]
    """Per feature [frames, *shape] in its declared dtype; [frames] for scalars."""
    episode_index: NDArray[np.int64]
    """[frames], the number of the episode in the dataset."""
    frame_index: NDArray[np.int64]
    """[frames], counted from 0 in every episode."""
    timestamp: NDArray[Any]
    """[frames], seconds from the start of the episode, in its stored dtype."""
    task_index: NDArray[np.int64]
    """[frames], position in the dataset's `tasks`."""
    episode_ends: NDArray[np.int64]
    """[episodes], position after the last frame of each episode."""

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self.arrays[key]

    def __len__(self) -> int:
        return len(self.episode_index)


class ColumnLoader:
    """One read: the arrays to fill, and which rows of each file go where.

    Args:
        metadata: of the whole dataset.
        selected: ascending positions in its episode table [episodes].
        wanted: the numeric and text features to read.
    """

    def __init__(self, metadata: Metadata, selected: NDArray[np.int64], wanted: Features) -> None:
        self.metadata = metadata
        self.episodes: EpisodeTable = metadata.episodes
        self.selected = selected
        self.lengths = self.episodes.length[selected]
        self.ends = np.cumsum(self.lengths, dtype=np.int64)
        self.frames = int(self.ends[-1]) if len(self.ends) else 0
        self.wanted = wanted
        self.stored = metadata.bookkeeping.select(
            name
            for name in (names.EPISODE_INDEX, names.FRAME_INDEX, names.TIMESTAMP, names.TASK_INDEX)
            if name in metadata.bookkeeping
        )
        self.features = Features({**wanted, **self.stored})
        self.arrays = {name: self._allocate(name) for name in self.features}

    def _allocate(self, name: str) -> NDArray[Any]:
        shape = (self.frames, *self.features[name].frame_shape)
        try:
            return np.empty(shape, self.features.numpy_dtype(name))
        except (MemoryError, ValueError) as error:
            raise DatasetError(
                f"{self.metadata.root}: column {name!r} of {self.frames} frames does not fit into "
                "memory; read fewer columns or episodes"
            ) from error

    def load(self) -> Columns:
        """Read all files that hold selected episodes.

        Raises:
            DatasetError: a file is damaged or its rows disagree with the episodes metadata.
        """
        rows = np.zeros(len(self.episodes.files), dtype=np.int64)
        np.add.at(rows, self.episodes.file, self.episodes.length)
        file = self.episodes.file[self.selected]
        order = np.argsort(file, kind="stable")
        edges = np.flatnonzero(np.diff(file[order])) + 1
        for here in np.split(order, edges) if len(order) else ():
            number = int(file[here[0]])
            self._read_file(number, int(rows[number]), here)
        return self._columns()

    def _read_file(self, number: int, rows: int, here: NDArray[np.int64]) -> None:
        """Fill the selected episodes `here` of one data file, with `rows` rows, into the arrays."""
        path = self.metadata.root / self.episodes.files[number]
        starts = self.episodes.start[self.selected[here]]
        runs = np.stack([starts, starts + self.lengths[here]], axis=1)
        targets = self.ends[here] - self.lengths[here]
        with damage_reported(path), open_parquet(path) as file:
            self._check_rows(path, file, number, rows)
            for first, batch in iterate_rows(file, list(self.features), runs):
                self._fill(path, batch, first, runs, targets)
        self._check_episodes(path, here, targets)

    def _columns(self) -> Columns:
        """Return the filled arrays; what the dataset does not store is counted."""
        index = np.repeat(self.episodes.index[self.selected], self.lengths)
        counted = np.arange(self.frames) - np.repeat(self.ends - self.lengths, self.lengths)
        seconds = (counted / self.metadata.fps).astype(np.float32)
        zeros = np.zeros(self.frames, dtype=np.int64)
        return Columns(
            arrays={name: self.arrays[name] for name in self.wanted},
            episode_index=index,
            frame_index=self.arrays.get(names.FRAME_INDEX, counted),
            timestamp=self.arrays.get(names.TIMESTAMP, seconds),
            task_index=self.arrays.get(names.TASK_INDEX, zeros),
            episode_ends=self.ends,
        )

    def _check_rows(self, path: Path, file: pq.ParquetFile, number: int, expected: int) -> None:
        """Refuse missing columns and rows; rows of a save cut short are only reported."""
        if missing := [name for name in self.features if name not in file.schema_arrow.names]:
            raise DatasetError(f"{path} lacks the column {missing[0]!r} that other files have")
        found = file.metadata.num_rows
        if found == expected:
            return
        last_episode = int(self.episodes.index[self.episodes.file == number].max())
        if found < expected or not holds_only_later(file, expected, last_episode):
            raise DatasetError(
                f"{path} has {found} rows, the episodes metadata says {expected}; "
                "copy the dataset again"
            )
        extra = found - expected
        finding = f"{self.episodes.files[number]} holds {extra} rows of a save that was cut short"
        if finding not in self.metadata.findings:
            self.metadata.findings.append(finding)

    def _fill(
        self,
        path: Path,
        batch: Any,
        first: int,
        runs: NDArray[np.int64],
        targets: NDArray[np.int64],
    ) -> None:
        last = first + batch.num_rows
        begin = int(np.searchsorted(runs[:, 1], first, side="right"))
        end = int(np.searchsorted(runs[:, 0], last, side="left"))
        if begin == end:
            return
        for name, feature in self.features.items():
            try:
                values = to_numpy(batch.column(name), feature)
            except ValueError as error:
                raise DatasetError(f"{path}: column {name!r} cannot be read: {error}") from error
            for (start, stop), target in zip(runs[begin:end], targets[begin:end], strict=True):
                low, high = max(start, first), min(stop, last)
                self.arrays[name][target + low - start : target + high - start] = values[
                    low - first : high - first
                ]

    def _check_episodes(
        self, path: Path, here: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> None:
        """Compare the stored episode numbers with the metadata."""
        stored = self.arrays.get(names.EPISODE_INDEX)
        if stored is None:
            return
        for position, target in zip(here, targets, strict=True):
            episode = self.episodes.index[self.selected[position]]
            length = self.lengths[position]
            if not (stored[target : target + length] == episode).all():
                raise DatasetError(
                    f"{path}: the rows of episode {episode} disagree with the episodes metadata "
                    f"({length} frames); copy the dataset again"
                )


def holds_only_later(file: pq.ParquetFile, first: int, episode: int) -> bool:
    """Tell whether the rows from `first` on all belong to episodes after the given one."""
    if names.EPISODE_INDEX not in file.schema_arrow.names:
        return False
    runs = np.array([[first, file.metadata.num_rows]], dtype=np.int64)
    for start, batch in iterate_rows(file, [names.EPISODE_INDEX], runs):
        try:
            stored = to_numpy(batch.column(0), BOOKKEEPING[names.EPISODE_INDEX])
        except ValueError:
            return False
        if not (stored[max(first - start, 0) :] > episode).all():
            return False
    return True
