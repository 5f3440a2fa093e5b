"""The growing parquet files of one writing session.

A parquet file is readable only once it is closed, and LeRobot puts many episodes into one file. So
the file being filled is kept as a row of small closed ones, its segments: a save rewrites the last
segment (at most a few megabytes) under a temporary name and renames it; when the file is complete,
its segments are merged into the first. Every file under its final name is closed, whole and in
LeRobot's layout at any moment, and each byte is rewritten a bounded number of times.

A merge takes three steps, and a kill between any two of them loses nothing: the first segment is
replaced by the merged file, which begins as it did; the episodes metadata is rewritten; the other
segments are deleted.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from leray.data.lerobot import layout
from leray.data.lerobot.schema import IMAGE_TYPE
from leray.errors import DatasetError
from leray.files import atomic_file

SEGMENT_BYTES = 2 * 2**20
"""A data segment that has reached this size is not rewritten again until it is merged."""

SEGMENT_EPISODES = 64
"""Likewise for segments of the episodes metadata, in rows."""


@contextmanager
def atomic_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a parquet writer whose file replaces `path` when the block ends without error.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then untouched.
    """
    has_images = IMAGE_TYPE in schema.types  # a dictionary of pictures costs time and saves nothing
    with (
        atomic_file(path) as file,
        pq.ParquetWriter(
            file,
            schema,
            compression="snappy",
            use_dictionary=not has_images,
            write_page_checksum=True,
        ) as writer,
    ):
        yield writer


def write_groups(path: Path, groups: Sequence[pa.Table]) -> int:
    """Write a parquet file atomically, one row group per table, and return its size in bytes."""
    with atomic_writer(path, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))
    return path.stat().st_size


@dataclass(frozen=True, slots=True)
class FileNames:
    """The names of a series of files, numbered over all chunk folders."""

    root: Path
    """The dataset's folder."""
    template: str
    """Path of a file in it, with the fields `chunk_index` and `file_index`."""
    chunks_size: int
    """Files per chunk folder."""
    video_key: str = ""
    """The camera, for templates that name one."""

    def path(self, number: int) -> Path:
        """Return the path of the n-th file."""
        return self.root / layout.numbered_path(
            self.template, number, self.chunks_size, video_key=self.video_key
        )

    def present(self) -> list[Path]:
        """Return the files that there are, in order."""
        first = self.path(0)
        return sorted(first.parent.parent.glob(f"*/*{first.suffix}"))

    def number(self, path: Path) -> int:
        """Return the number of a file of the series.

        Raises:
            DatasetError: it is not named like one.
        """
        suffix = self.path(0).suffix
        match = re.fullmatch(
            rf"chunk-(\d+)/file-(\d+){re.escape(suffix)}", f"{path.parent.name}/{path.name}"
        )
        if match is None:
            raise DatasetError(
                f"{path} is not named chunk-XXX/file-XXX{suffix}; rename or remove it"
            )
        return int(match[1]) * self.chunks_size + int(match[2])

    def next_number(self) -> int:
        """Return the number after the last file that there is.

        Raises:
            DatasetError: a file is not named like one of the series.
        """
        return max((self.number(path) for path in self.present()), default=-1) + 1

    def columns(self, prefix: str, numbers: Sequence[int]) -> dict[str, list[int]]:
        """Return the columns of the episodes metadata that tell files by number."""
        return {
            f"{prefix}/chunk_index": [number // self.chunks_size for number in numbers],
            f"{prefix}/file_index": [number % self.chunks_size for number in numbers],
        }


class Series(Protocol):
    """Files that hold the frames of the session's episodes, each episode in one file."""

    def merge(self) -> None:
        """Copy all segments into the first; the others stay until `finish`."""

    def finish(self) -> None:
        """Delete the merged segments and go on with the next file."""

    def columns(self, first: int, count: int) -> dict[str, list[Any]]:
        """Return the columns of the episodes metadata that tell where episodes lie.

        Args:
            first: the first episode, counted from the start of the session.
            count: how many.
        """


class DataFiles:
    """The data files: one row group per episode, a new file when the size limit would be passed.

    Args:
        names: of the data files.
        first: number of the first file to write.
        limit_bytes: size that a file should not reach.
    """

    def __init__(self, names: FileNames, first: int, limit_bytes: int) -> None:
        self._names = names
        self._limit_bytes = limit_bytes
        self._base = self._last = first
        self._open: list[pa.Table] = []
        self._open_bytes = self._sealed_bytes = self._frames = 0
        self._numbers: list[int] = []
        """The file of each episode of the session."""

    def has_room(self, episodes: Sequence[pa.Table]) -> bool:
        """Tell whether episodes, at the mean frame size so far, keep the file below its limit.

        One episode always fits into an empty file; more are judged by their size in memory there.
        """
        if self._frames == 0:
            return len(episodes) == 1 or sum(e.nbytes for e in episodes) < self._limit_bytes
        size = self._sealed_bytes + self._open_bytes
        frames = sum(map(len, episodes))
        return size + size / self._frames * frames < self._limit_bytes

    def append(self, episodes: Sequence[pa.Table]) -> None:
        """Write episodes to disk, into the last segment."""
        if self._open_bytes >= SEGMENT_BYTES:
            self._sealed_bytes += self._open_bytes
            self._last, self._open, self._open_bytes = self._last + 1, [], 0
        self._open.extend(episodes)
        self._open_bytes = write_groups(self._names.path(self._last), self._open)
        self._frames += sum(map(len, episodes))
        self._numbers.extend([self._last] * len(episodes))

    def merge(self) -> None:
        """Copy all segments into the first; the others stay until `finish`."""
        if self._last == self._base:
            return
        paths = [self._names.path(number) for number in range(self._base, self._last + 1)]
        with atomic_writer(paths[0], self._open[0].schema) as writer:
            for path in paths:
                with pq.ParquetFile(path) as file:
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group)
                        writer.write_table(table, row_group_size=max(len(table), 1))
        self._numbers = [min(number, self._base) for number in self._numbers]

    def finish(self) -> None:
        """Delete the merged segments and go on with the next file."""
        for number in range(self._base + 1, self._last + 1):
            self._names.path(number).unlink(missing_ok=True)
        self._base = self._last = self._base + 1 if self._frames else self._base
        self._open = []
        self._open_bytes = self._sealed_bytes = self._frames = 0

    def columns(self, first: int, count: int) -> dict[str, list[Any]]:
        """Return the columns of the episodes metadata that tell where episodes lie."""
        return self._names.columns("data", self._numbers[first : first + count])


class EpisodeFiles:
    """The episodes metadata of one session: segments while it lasts, one file when it is merged.

    Args:
        names: of the episodes files.
        first: number of the session's file.
        series: the files that hold the episodes' frames.
    """

    def __init__(self, names: FileNames, first: int, series: Sequence[Series]) -> None:
        self._names = names
        self._series = series
        self._base = self._last = first
        self._rows: list[pa.Table] = []
        self._count = self._settled = 0
        """Episodes in all, and those in segments that are not rewritten until the merge."""

    def append(self, rows: Sequence[pa.Table]) -> None:
        """Write the rows of episodes that the series hold; from now on they count."""
        if self._count - self._settled >= SEGMENT_EPISODES:
            self._settle()
        self._rows.extend(rows)
        self._count += len(rows)
        self._write(self._last, self._rows[-(self._count - self._settled) :], self._settled)

    def merge(self) -> None:
        """Write all rows to the session's file, with the places that the series state now."""
        if not self._count:
            return
        self._write(self._base, self._rows, 0)
        for number in range(self._base + 1, self._last + 1):
            self._names.path(number).unlink(missing_ok=True)
        self._last = self._base
        self._settle()

    def _settle(self) -> None:
        """Start a new segment; the rows so far are joined, which takes a fraction of the memory."""
        self._rows = [pa.concat_tables(self._rows, promote_options="default").combine_chunks()]
        self._settled = self._count
        self._last += 1

    def _write(self, number: int, rows: Sequence[pa.Table], first: int) -> None:
        table = pa.concat_tables(rows, promote_options="default")
        located: dict[str, list[Any]] = {}
        for series in self._series:
            located |= series.columns(first, len(table))
        located |= self._names.columns("meta/episodes", [number] * len(table))
        for name, values in located.items():
            kind = pa.float64() if name.endswith("_timestamp") else pa.int64()
            table = table.append_column(name, pa.array(values, kind))
        write_groups(self._names.path(number), [table.combine_chunks()])
