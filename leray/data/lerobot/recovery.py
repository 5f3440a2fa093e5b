"""Bringing a dataset whose writer was killed back to its last saved episode, on disk.

The reader already skips what an interrupted save left behind; other readers take every file they
find, so whoever goes on writing cleans up first.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import EpisodeTable, episodes_files, read_episodes
from leray.data.lerobot.parquet import damage_reported, open_parquet, read_table
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.schema import BOOKKEEPING
from leray.data.lerobot.series import atomic_writer
from leray.errors import DatasetError

ORPHAN_SUFFIX = ".orphan"
"""Ends the name of a data file that no listed episode needs: no reader takes it for data."""


def recover(root: Path, info: dict[str, Any]) -> None:
    """Remove what interrupted saves left; rows of listed episodes are never touched.

    Raises:
        DatasetError: the metadata or a file is damaged in another way.
    """
    for folder in ("meta", "data"):
        for leftover in (root / folder).rglob(".*.tmp"):
            leftover.unlink()
    _drop_repeated_rows(root)
    episodes = read_episodes(root, info, [])
    listed = set(episodes.index.tolist())
    for path in sorted((root / "data").glob("*/*.parquet")):
        name = path.relative_to(root).as_posix()
        if name in episodes.files:
            _trim(path, episodes, episodes.files.index(name))
        elif _holds_only(path, listed):
            path.unlink()
        else:
            path.rename(path.with_name(path.name + ORPHAN_SUFFIX))


def next_number(paths: list[Path], chunks_size: int) -> int:
    """Return the number after the last file of a series named `chunk-XXX/file-XXX`."""
    numbers = [-1]
    for path in paths:
        match = re.fullmatch(r"chunk-(\d+)/file-(\d+)\.parquet", f"{path.parent.name}/{path.name}")
        if match is None:
            raise DatasetError(
                f"{path} is not named chunk-XXX/file-XXX.parquet; rename or remove it"
            )
        numbers.append(int(match[1]) * chunks_size + int(match[2]))
    return max(numbers) + 1


def current_statistics(reader: DatasetReader) -> statistics.Statistics:
    """Return statistics of every frame: the stored ones, or exact ones where those fell behind."""
    stored = reader.stats
    features = {**reader.features, **BOOKKEEPING}
    complete = {}
    for name in (name for name, feature in features.items() if feature.is_numeric):
        entry = stored.get(name, {})
        if set(statistics.KEYS) <= set(entry) and entry["count"].tolist() == [reader.num_frames]:
            complete[name] = entry
        elif reader.num_frames:
            complete[name] = statistics.compute(_column(reader, name))
    return complete


def _column(reader: DatasetReader, name: str) -> NDArray[Any]:
    if name not in BOOKKEEPING:
        return reader.read([name])[name]
    if name == names.INDEX:
        return np.arange(reader.num_frames)
    column: NDArray[Any] = getattr(reader.read([]), name)
    return column


def _drop_repeated_rows(root: Path) -> None:
    """Delete episode files whose rows all stand in earlier ones: segments of a merge cut short."""
    seen: set[int] = set()
    for path in episodes_files(root):
        indices = set(_episode_indices(path))
        if indices and indices <= seen:
            path.unlink()
        elif indices & seen:
            raise DatasetError(f"{path} repeats episode {min(indices & seen)} of an earlier file")
        seen |= indices


def _trim(path: Path, episodes: EpisodeTable, number: int) -> None:
    """Cut the rows after the listed ones off a data file."""
    keep = episodes.rows_of(number)
    with damage_reported(path), open_parquet(path) as file:
        if file.metadata.num_rows == keep:
            return
        if file.metadata.num_rows < keep:
            raise DatasetError(f"{path} has {file.metadata.num_rows} rows, {keep} are listed")
        _copy_first(file, path, keep)


def _copy_first(file: pq.ParquetFile, path: Path, rows: int) -> None:
    with atomic_writer(path, file.schema_arrow) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)[:rows]
            if len(table):
                writer.write_table(table, row_group_size=len(table))
            rows -= len(table)


def _holds_only(path: Path, listed: set[int]) -> bool:
    """Tell whether all rows of a file belong to listed episodes; False when it cannot be read."""
    try:
        return set(_episode_indices(path)) <= listed
    except DatasetError:
        return False


def _episode_indices(path: Path) -> list[int]:
    table = read_table(path, [names.EPISODE_INDEX])
    if not table.num_columns:
        raise DatasetError(
            f"{path} lacks the column {names.EPISODE_INDEX!r}; copy the dataset again"
        )
    indices: list[int] = table[names.EPISODE_INDEX].to_pylist()
    return indices


def check_resumable(root: Path, info: dict[str, Any]) -> None:
    """Check that a dataset has the layout that the writer goes on with.

    Raises:
        DatasetError: it is of an older version, or its data lie under other names.
    """
    if info["codebase_version"] != layout.VERSIONS[-1]:
        raise DatasetError(
            f"{root} is a {info['codebase_version']} dataset; only {layout.VERSIONS[-1]} can be "
            "extended: write a new one, or convert it with LeRobot's converter"
        )
    if info.get("data_path") != layout.DATA_PATH:
        raise DatasetError(
            f"{root} has data_path {info.get('data_path')!r}, not {layout.DATA_PATH!r}"
        )
