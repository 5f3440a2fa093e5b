"""Columns as flat arrays: read once from Parquet, then sampled many thousand times a second.

In memory, or as files that all processes of a machine share: memory-mapped while they fit a bound,
read by position when they do not, so that the memory of a process stays small whatever their size.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leray.data import names
from leray.data.lerobot.columns import Columns
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError
from leray.files import write_json

_INDEX = "index.json"
_INGEST_MB = 32
"""About how much of a dataset is in memory at once, decoded, while it is ingested; one episode at
least. Its columns are held about three times over."""
_ALWAYS = 28
"""Bytes of a frame's timestamp and its three indices."""


class FlatArray(Protocol):
    """One column of all frames."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[frames, *frame_shape]."""
        ...

    def take(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Return values [n, *frame_shape]."""
        ...

    def spans(self, starts: NDArray[np.int64], length: int) -> NDArray[Any]:
        """Return runs of consecutive frames [n, length, *frame_shape], all within the column."""
        ...


class MemoryArray:
    """A column in memory, or memory-mapped.

    Args:
        values: [frames, *frame_shape], contiguous.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape = values.shape

    def take(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Return values [n, *frame_shape]."""
        taken: NDArray[Any] = self._values[frames]
        return taken

    def spans(self, starts: NDArray[np.int64], length: int) -> NDArray[Any]:
        """Return runs of frames; each run is one block copy, not one per frame."""
        values = self._values
        overlapping = np.lib.stride_tricks.as_strided(
            values,
            (len(values) - length + 1, length, *values.shape[1:]),
            (values.strides[0], *values.strides),
            writeable=False,
        )
        runs: NDArray[Any] = overlapping[starts]
        return runs


class FileArray:
    """A column in a file, read by position; holds no more than what is asked for.

    Args:
        path: of the raw values in C order.
        dtype: of the values.
        shape: [frames, *frame_shape].
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._dtype, self.shape = dtype, shape
        self._row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def take(self, frames: NDArray[np.int64]) -> NDArray[Any]:
        """Return values [n, *frame_shape]."""
        return self.spans(frames, 1)[:, 0]

    def spans(self, starts: NDArray[np.int64], length: int) -> NDArray[Any]:
        """Return runs of frames, one read each."""
        runs = np.empty((len(starts), length, *self.shape[1:]), self._dtype)
        flat = runs.reshape(len(starts), length * self._row // self._dtype.itemsize).view(np.uint8)
        for run, start in zip(flat, starts.tolist(), strict=True):
            if os.preadv(self._descriptor, [run.data], start * self._row) != len(run):
                raise DatasetError(
                    "the array cache was cut short while in use: remove it, it is made again"
                )
        return runs


@dataclass(frozen=True)
class Arrays:
    """The flat columns of some episodes and where these end."""

    columns: Mapping[str, FlatArray]
    ends: NDArray[np.int64]
    """Frame after the last of each episode [episodes]."""

    @property
    def num_frames(self) -> int:
        """Frames of all episodes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @classmethod
    def read(cls, reader: DatasetReader, keys: Iterable[str]) -> "Arrays":
        """Read columns into memory.

        Raises:
            DatasetError: a column does not exist or is damaged.
        """
        columns = reader.read(list(keys))
        return cls(
            columns={name: MemoryArray(value) for name, value in _arrays(columns).items()},
            ends=columns.episode_ends,
        )


def ingest(reader: DatasetReader, keys: Iterable[str], folder: Path) -> None:
    """Write columns as flat files into an empty folder, a part of the dataset at a time.

    Raises:
        DatasetError: a column is damaged.
        OSError: the disk is full.
    """
    wanted = list(keys)
    index: dict[str, list[Any]] = {}
    ends: list[int] = []
    frames = 0
    features = reader.features.select(wanted).values()
    row = sum(feature.size * np.dtype(feature.dtype).itemsize for feature in features) + _ALWAYS
    for part in reader.grouped(max(int(_INGEST_MB * 2**20 // row), 1)):
        columns = part.read(wanted)
        for number, (name, values) in enumerate(_arrays(columns).items()):
            entry = index.setdefault(
                name, [f"{number}.bin", values.dtype.str, [0, *values.shape[1:]]]
            )
            entry[2][0] += len(values)
            with (folder / entry[0]).open("ab") as file:
                values.tofile(file)
        ends += (columns.episode_ends + frames).tolist()
        frames += len(columns)
    write_json(folder / _INDEX, {"columns": index, "ends": ends})


def open_arrays(folder: Path, *, mapped: bool) -> Arrays:
    """Open what `ingest` wrote.

    Args:
        folder: of the flat files.
        mapped: memory-map them; otherwise they are read by position.

    Raises:
        DatasetError: it is damaged; remove it to have it made again.
    """
    try:
        index = json.loads((folder / _INDEX).read_text())
        columns: dict[str, FlatArray] = {}
        for name, (file, dtype, shape) in index["columns"].items():
            kind, size = np.dtype(dtype), tuple(shape)
            if (folder / file).stat().st_size != kind.itemsize * int(np.prod(size)):
                raise ValueError(f"{file} has another size than it should")
            columns[name] = (
                MemoryArray(np.memmap(folder / file, kind, "r", shape=size))
                if mapped and np.prod(size)
                else FileArray(folder / file, kind, size)
            )
        return Arrays(columns=columns, ends=np.array(index["ends"], dtype=np.int64))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"the array cache {folder} is damaged ({error}): remove it, it is made again"
        ) from error


def _arrays(columns: Columns) -> dict[str, NDArray[Any]]:
    return dict(columns.arrays) | {
        names.TIMESTAMP: columns.timestamp.astype(np.float32),
        names.FRAME_INDEX: columns.frame_index,
        names.EPISODE_INDEX: columns.episode_index,
        names.TASK_INDEX: columns.task_index,
    }
