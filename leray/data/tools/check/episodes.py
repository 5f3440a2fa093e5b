"""The episodes metadata as stored: order, columns, and the frame ranges it states."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.parquet import damage_reported, open_parquet, read_table
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.errors import DatasetError

FROM, TO = "dataset_from_index", "dataset_to_index"
PLACE = ("meta/episodes/chunk_index", "meta/episodes/file_index")
"""Columns that say where a row of the episodes metadata itself is."""

_INTEGERS = ("episode_index", "length", "data/chunk_index", "data/file_index", FROM, TO, *PLACE)
_DERIVABLE = {FROM, TO, *PLACE}
_NUMBERS = re.compile(r"chunk-(\d+)/file-(\d+)\.parquet")


def check_episodes(contents: Contents, findings: Findings) -> None:
    """Check the stored rows one file at a time."""
    if contents.is_v3:
        _check_parquet(contents, findings)
        return
    try:
        rows = layout.read_json_lines(contents.root / layout.EPISODES_JSONL)
    except DatasetError:  # reported when the contents were read
        return
    numbers = [row.get("episode_index") for row in rows]
    _check_order(layout.EPISODES_JSONL, numbers, 0, findings)
    for row in rows:
        tasks = row.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            findings.warning(
                "episodes",
                f"tasks is {tasks!r}, not a list of texts"[:200],
                file=layout.EPISODES_JSONL,
                episode=_integer(row.get("episode_index")),
            )


def stored_episodes(root: Path) -> Iterator[tuple[Path, pa.Table]]:
    """Yield the v3.0 episodes files in order, without the statistics, one in memory at a time.

    Raises:
        DatasetError: a file is damaged.
    """
    for path in episodes_files(root):
        with open_parquet(path) as file:
            columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        yield path, read_table(path, columns)


def numbers_of(path: Path) -> tuple[int, int] | None:
    """Return the chunk and file number in a file's name; None when it is named otherwise."""
    match = _NUMBERS.fullmatch(f"{path.parent.name}/{path.name}")
    return None if match is None else (int(match[1]), int(match[2]))


def integers(table: pa.Table, name: str) -> NDArray[np.int64] | None:
    """Return a column of integers; None when it is absent or holds something else."""
    if name not in table.column_names:
        return None
    column = table[name]
    if not pa.types.is_integer(column.type) or column.null_count:
        return None
    with damage_reported(Path(name)):
        values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return values


def _check_parquet(contents: Contents, findings: Findings) -> None:
    row = 0
    seen: set[int] = set()
    for path, table in stored_episodes(contents.root):
        name = path.relative_to(contents.root).as_posix()
        _check_columns(contents, name, table, findings)
        stored = integers(table, "episode_index")
        if stored is None:
            continue
        indices = stored.tolist()
        if indices and seen.issuperset(indices):
            message = "all its episodes stand in earlier files; an interrupted writer left it"
            findings.error("leftover", message, file=name, repairable=True)
            continue
        seen.update(indices)
        _check_order(name, indices, row, findings)
        _check_ranges(contents, name, table, stored, findings)
        _check_place(path, name, table, findings)
        row += len(indices)


def _check_columns(contents: Contents, name: str, table: pa.Table, findings: Findings) -> None:
    expected: dict[str, pa.DataType] = dict.fromkeys(_INTEGERS, pa.int64())
    expected["tasks"] = pa.list_(pa.string())
    for camera in contents.cameras:
        for part in ("chunk_index", "file_index"):
            expected[f"videos/{camera}/{part}"] = pa.int64()
        for part in ("from_timestamp", "to_timestamp"):
            expected[f"videos/{camera}/{part}"] = pa.float64()
    for column, kind in expected.items():
        where = {"file": name, "column": column}
        if column not in table.column_names:
            repairable = column in _DERIVABLE or column.endswith("/to_timestamp")
            findings.error("episodes", "the column is missing", repairable=repairable, **where)
        elif not table.schema.field(column).type.equals(kind):
            message = f"is stored as {table.schema.field(column).type}; LeRobot writes {kind}"
            findings.note("episodes", message, **where)


def _check_order(name: str, numbers: list[Any], first: int, findings: Findings) -> None:
    expected = list(range(first, first + len(numbers)))
    if numbers == expected:
        return
    where = {"file": name, "column": "episode_index"}
    if sorted(map(str, numbers)) == sorted(map(str, expected)):
        message = "rows are not in the order of episode_index"
        if name.endswith(".parquet"):
            message += ": LeRobot finds episodes by position"
            findings.error("episodes", message, repairable=True, **where)
        else:
            findings.note("episodes", message, repairable=True, **where)
        return
    position = next(i for i, (a, b) in enumerate(zip(numbers, expected, strict=True)) if a != b)
    findings.error(
        "episodes",
        f"row {position} is episode {numbers[position]}, expected is {expected[position]}: indices "
        "must run without gaps and repeats",
        **where,
    )


def _check_ranges(
    contents: Contents,
    name: str,
    table: pa.Table,
    stored: NDArray[np.int64],
    findings: Findings,
) -> None:
    """Compare the stated frame ranges with the lengths of the episodes before."""
    first, last = expected_ranges(contents, stored)
    for column, expected in ((FROM, first), (TO, last)):
        if column not in table.column_names:
            continue
        values = integers(table, column)
        if values is None:
            message = "must hold integers without gaps"
            findings.error("range", message, file=name, column=column, repairable=True)
            continue
        for row in np.flatnonzero(values != expected).tolist():
            findings.error(
                "range",
                f"is {values[row]}, the lengths before make it {expected[row]}",
                file=name,
                episode=int(stored[row]),
                column=column,
                repairable=True,
            )


def expected_ranges(
    contents: Contents, stored: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the end frame number of episodes given by index."""
    position = np.searchsorted(contents.episodes.index, stored)
    first = contents.first_frame[position]
    return first, first + contents.episodes.length[position]


def _check_place(path: Path, name: str, table: pa.Table, findings: Findings) -> None:
    numbers = numbers_of(path)
    if numbers is None:
        message = "is not named chunk-XXX/file-XXX.parquet"
        findings.warning("episodes", message, file=name)
        return
    for column, expected in zip(PLACE, numbers, strict=True):
        if column in table.column_names:
            values = integers(table, column)
            if values is None or (values != expected).any():
                message = f"must be {expected} as in the file's name"
                findings.warning("episodes", message, file=name, column=column, repairable=True)


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None
