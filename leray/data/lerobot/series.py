"""The growing parquet files of one writing session.

A parquet file is readable only once it is closed, and LeRobot puts many episodes into one file. So
the file being filled is kept as a row of small closed ones, its segments: a save rewrites the last
segment (at most a few megabytes) under a temporary name and renames it; when the file is complete,
its segments are merged into the first. Every file under its final name is closed, whole and in
LeRobot's layout at any moment, and each byte is rewritten a bounded number of times.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from leray.files import fsync_directory

SEGMENT_BYTES = 2 * 2**20
"""A data segment that has reached this size is not rewritten again until it is merged."""

SEGMENT_EPISODES = 64
"""Likewise for segments of the episodes metadata, in rows."""

PathOf = Callable[[int], Path]
"""Gives the path of the n-th file of a series."""


@contextmanager
def atomic_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Yield a parquet writer whose file replaces `path` when the block ends without error.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(
                file, schema, compression="snappy", write_page_checksum=True
            ) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_groups(path: Path, groups: Sequence[pa.Table]) -> int:
    """Write a parquet file atomically, one row group per table, and return its size in bytes."""
    with atomic_writer(path, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))
    return path.stat().st_size


class DataFiles:
    """The data files: one row group per episode, a new file when the size limit would be passed.

    Args:
        path_of: gives the path of the n-th data file.
        first: number of the first file to write.
        limit_bytes: size that a file should not reach.
    """

    def __init__(self, path_of: PathOf, first: int, limit_bytes: int) -> None:
        self._path_of = path_of
        self._limit_bytes = limit_bytes
        self._base = self._last = first
        self._open: list[pa.Table] = []
        self._open_bytes = self._sealed_bytes = self._frames = 0

    @property
    def base(self) -> int:
        """Number of the file being filled, which is that of its first segment."""
        return self._base

    def has_room(self, episodes: Sequence[pa.Table]) -> bool:
        """Tell whether episodes, at the mean frame size so far, keep the file below its limit.

        One episode always fits into an empty file; more are judged by their size in memory there.
        """
        if self._frames == 0:
            return len(episodes) == 1 or sum(e.nbytes for e in episodes) < self._limit_bytes
        size = self._sealed_bytes + self._open_bytes
        frames = sum(map(len, episodes))
        return size + size / self._frames * frames < self._limit_bytes

    def append(self, episodes: Sequence[pa.Table]) -> int:
        """Write episodes to disk and return the number of the segment that holds them."""
        if self._open_bytes >= SEGMENT_BYTES:
            self._sealed_bytes += self._open_bytes
            self._last, self._open, self._open_bytes = self._last + 1, [], 0
        self._open.extend(episodes)
        self._open_bytes = write_groups(self._path_of(self._last), self._open)
        self._frames += sum(map(len, episodes))
        return self._last

    def merge(self) -> None:
        """Copy all segments into the first; the others stay until `finish`."""
        if self._last == self._base:
            return
        paths = [self._path_of(number) for number in range(self._base, self._last + 1)]
        with atomic_writer(paths[0], self._open[0].schema) as writer:
            for path in paths:
                with pq.ParquetFile(path) as file:
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group)
                        writer.write_table(table, row_group_size=max(len(table), 1))

    def finish(self) -> None:
        """Delete the merged segments and go on with the next file."""
        for number in range(self._base + 1, self._last + 1):
            self._path_of(number).unlink(missing_ok=True)
        self._base = self._last = self._base + 1 if self._frames else self._base
        self._open = []
        self._open_bytes = self._sealed_bytes = self._frames = 0


class EpisodeFiles:
    """The episodes metadata of one session: segments while it lasts, one file when it is merged.

    Args:
        path_of: gives the path of the n-th episodes file.
        first: number of the session's file.
        chunks_size: files per chunk folder, to split file numbers into chunk and file index.
    """

    def __init__(self, path_of: PathOf, first: int, chunks_size: int) -> None:
        self._path_of = path_of
        self._base = first
        self._last = first
        self._chunks_size = chunks_size
        self._rows: list[pa.Table] = []
        self._data_files: list[int] = []
        self._settled = 0
        """Episodes before this one are in segments that are not rewritten until the merge."""

    def append(self, rows: Sequence[pa.Table], data_file: int) -> None:
        """Write the rows of episodes that lie in one data file."""
        if len(self._data_files) - self._settled >= SEGMENT_EPISODES:
            self._settle()
        self._rows.extend(rows)
        self._data_files.extend([data_file] * len(rows))
        self._write(
            self._last, self._rows[-(len(self._data_files) - self._settled) :], self._settled
        )

    def merge(self, data_file: int) -> None:
        """Write all rows to the session's file, later data files replaced by `data_file`."""
        if not self._data_files:
            return
        self._data_files = [min(number, data_file) for number in self._data_files]
        self._write(self._base, self._rows, 0)
        for number in range(self._base + 1, self._last + 1):
            self._path_of(number).unlink(missing_ok=True)
        self._last = self._base
        self._settle()

    def _settle(self) -> None:
        """Start a new segment; the rows so far are joined, which takes a fraction of the memory."""
        self._rows = [pa.concat_tables(self._rows, promote_options="default").combine_chunks()]
        self._settled = len(self._data_files)
        self._last += 1

    def _write(self, number: int, rows: Sequence[pa.Table], first: int) -> None:
        table = pa.concat_tables(rows, promote_options="default")
        data_files = self._data_files[first : first + len(table)]
        here = divmod(number, self._chunks_size)
        located = {
            "data/chunk_index": [file // self._chunks_size for file in data_files],
            "data/file_index": [file % self._chunks_size for file in data_files],
            "meta/episodes/chunk_index": [here[0]] * len(table),
            "meta/episodes/file_index": [here[1]] * len(table),
        }
        for name, values in located.items():
            table = table.append_column(name, pa.array(values, pa.int64()))
        write_groups(self._path_of(number), [table.combine_chunks()])
