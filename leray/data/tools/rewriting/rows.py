"""The stored rows of episodes, one Arrow table each; memory holds one row group at a time."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.parquet import damage_reported, open_parquet
from leray.errors import DatasetError


def episode_rows(
    metadata: Metadata, positions: NDArray[np.int64], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Yield the rows of episodes, as they are stored.

    Args:
        metadata: of the whole dataset.
        positions: rows of its episode table [episodes], ascending.
        columns: the columns to read; all files have them.

    Raises:
        DatasetError: a file is missing, damaged, or disagrees with the episodes metadata.
    """
    episodes = metadata.episodes
    for number, here in groupby(positions.tolist(), key=lambda position: episodes.file[position]):
        chosen = list(here)
        path = metadata.root / episodes.files[number]
        with damage_reported(path), open_parquet(path) as file:
            _check_columns(path, file, columns)
            runs = np.stack([episodes.start[chosen], episodes.length[chosen]], axis=1)
            tables = _cut_out(path, file, columns, runs)
            for position, table in zip(chosen, tables, strict=True):
                _check_episode(path, table, int(episodes.index[position]))
                yield table


def stored_schema(metadata: Metadata) -> pa.Schema:
    """Return the schema of the dataset's first data file.

    Raises:
        DatasetError: it is missing or damaged.
    """
    with open_parquet(metadata.root / metadata.episodes.files[0]) as file:
        return file.schema_arrow


def _cut_out(
    path: Path, file: pq.ParquetFile, columns: Sequence[str], runs: NDArray[np.int64]
) -> Iterator[pa.Table]:
    """Yield one table per run (first row, number of rows); runs are ascending and disjoint."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    edges = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    held, first = None, -1
    for start, length in runs.tolist():
        stop = start + length
        if stop > edges[-1]:
            raise DatasetError(
                f"{path} has {edges[-1]} rows, the episodes metadata asks for row {stop - 1}; "
                "copy the dataset again"
            )
        begin = int(np.searchsorted(edges, start, side="right")) - 1
        parts = []
        for group in range(begin, int(np.searchsorted(edges, stop, side="left"))):
            if group != first or held is None:
                held = file.read_row_group(group, columns=list(columns), use_threads=False)
                first = group
            offset = max(start - int(edges[group]), 0)
            parts.append(held.slice(offset, stop - int(edges[group]) - offset))
        yield pa.concat_tables(parts).select(columns)


def _check_columns(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        raise DatasetError(f"{path} lacks the column {missing[0]!r} that other files have")


def _check_episode(path: Path, table: pa.Table, episode: int) -> None:
    """Compare the stored episode numbers, where there are any, with the metadata."""
    if names.EPISODE_INDEX not in table.column_names:
        return
    if not (table[names.EPISODE_INDEX].to_numpy() == episode).all():
        raise DatasetError(
            f"{path}: the rows of episode {episode} disagree with the episodes metadata; "
            "copy the dataset again"
        )
