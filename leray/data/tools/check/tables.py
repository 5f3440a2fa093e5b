"""The data files: whether they are whole, fit the features, and hold the rows they should.

Files are read one by one, in batches of bounded size, and every batch is handed on cut into pieces
of one episode each.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature
from leray.data.lerobot import layout
from leray.data.lerobot.columns import holds_only_later
from leray.data.lerobot.parquet import damage_reported, iterate_rows, open_parquet, to_numpy
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.errors import DatasetError

_BATCH_BYTES = 32 * 2**20
_MIN_ROWS, _MAX_ROWS = 16, 65536

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive frames of one episode, as they come out of a file."""

    position: int
    """Of the episode in the table."""
    offset: int
    """Number of the first frame within the episode."""
    count: int
    is_last: bool
    """Whether the episode ends here."""
    file: str
    is_alone: bool
    """Whether the file holds no other episode."""


Take = Callable[[Piece, Arrays], None]
"""Receives a piece and its columns [count, *frame_shape]; columns that cannot be read lack."""


def check_tables(
    contents: Contents, findings: Findings, take: Take, progress: Callable[[int, int], None]
) -> None:
    """Check every data file, and hand its rows on.

    Args:
        contents: the dataset.
        findings: gains what is wrong.
        take: receives the rows, episode after episode.
        progress: called with the files done and their number.
    """
    files = contents.episodes.files
    for number, name in enumerate(files):
        progress(number, len(files))
        try:
            path = contents.root / name
            with damage_reported(path), open_parquet(path) as file:
                _check_schema(contents, name, file, findings)
                rows = _check_rows(contents, number, file, findings)
                _check_file(contents, number, file, findings)
                for piece, arrays in _pieces(contents, number, file, rows, findings):
                    take(piece, arrays)
        except DatasetError as error:
            findings.error("data-file", str(error), file=name, blocks=True)
    progress(len(files), len(files))
    _check_order(contents, findings)


def _check_schema(contents: Contents, name: str, file: pq.ParquetFile, findings: Findings) -> None:
    schema = file.schema_arrow
    for column in schema.names:
        if column not in contents.declared:
            findings.warning("undeclared", "is not declared", file=name, column=column)
    for column, feature in contents.features.items():
        where = {"file": name, "column": column}
        if feature.dtype == "video":
            continue
        if column not in schema.names:
            findings.error(
                "schema",
                "lacks a column that other files have",
                repairable=column in names.BOOKKEEPING,
                blocks=column in contents.columns and column != names.INDEX,
                **where,
            )
        elif problem := stored_otherwise(schema.field(column).type, feature):
            findings.note("schema", problem, **where)


def stored_otherwise(kind: pa.DataType, feature: Feature) -> str:
    """Say how a column's type differs from what LeRobot writes; empty when it does not."""
    leaf, widths = leaf_type(kind)
    if feature.dtype == "image":
        is_picture = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        return "" if is_picture else f"is stored as {kind}, not as struct of bytes and path"
    if feature.dtype == "string":
        return "" if pa.types.is_string(kind) else f"is stored as {kind}, not as string"
    if not feature.is_numeric:
        return ""
    try:
        is_same = leaf.equals(pa.from_numpy_dtype(np.dtype(feature.dtype)))
    except pa.ArrowNotImplementedError:  # a dtype that no column can have
        is_same = False
    if not is_same:
        return f"is stored as {leaf}, declared is {feature.dtype}"
    if len(feature.shape) == 1 and feature.size > 1 and None in widths:
        return f"is stored as lists of any length; LeRobot writes lists of {feature.size}"
    return ""


def leaf_type(kind: pa.DataType) -> tuple[pa.DataType, list[int | None]]:
    """Return the type of the elements of nested lists, and the width of every level."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    widths: list[int | None] = []
    while pa.types.is_nested(kind) and hasattr(kind, "value_type"):
        widths.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    return kind, widths


def stored_shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """Return the shape that a column's type fixes for every row; None when it leaves it open."""
    leaf, widths = leaf_type(kind)
    if pa.types.is_nested(leaf) or None in widths:
        return None
    return tuple(width for width in widths if width is not None) or (1,)


def _check_rows(contents: Contents, number: int, file: pq.ParquetFile, findings: Findings) -> int:
    """Compare the number of rows with the episodes' lengths; return how many can be looked at."""
    name, found = contents.episodes.files[number], int(file.metadata.num_rows)
    expected = int(contents.episodes.length[contents.positions_in[number]].sum())
    if found == expected:
        return expected
    message = f"has {found} rows, the episodes' lengths make {expected}"
    if found > expected:
        last = int(contents.episodes.index[contents.positions_in[number]].max())
        if holds_only_later(file, expected, last):
            message += ": an interrupted writer left the rest"
            findings.error("leftover", message, file=name, repairable=True)
            return expected
    findings.error("rows", message, file=name, blocks=True)
    return min(found, expected)


def _check_file(contents: Contents, number: int, file: pq.ParquetFile, findings: Findings) -> None:
    """Note row groups and sizes that make a file slower to use than it could be."""
    if not contents.is_v3:
        return
    name = contents.episodes.files[number]
    groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    lengths = contents.episodes.length[contents.positions_in[number]].tolist()
    if groups != lengths:
        message = f"has {len(groups)} row groups for {len(lengths)} episodes; LeRobot writes one "
        findings.note("row-groups", message + "per episode", file=name)
    limit = contents.info.get("data_files_size_in_mb", layout.DATA_FILES_SIZE_IN_MB)
    size = (contents.root / name).stat().st_size / 2**20
    if type(limit) is int and size > limit and len(lengths) > 1:
        findings.note("file-size", f"has {size:.0f} MiB, the limit is {limit}", file=name)


def _check_order(contents: Contents, findings: Findings) -> None:
    """Check that files sorted by name, as LeRobot reads them, give episodes in order."""
    if not contents.is_v3:
        return
    first = {
        name: int(contents.positions_in[number][0])
        for number, name in enumerate(contents.episodes.files)
    }
    ordered = sorted(first, key=lambda name: Path(name))
    for before, after in pairwise(ordered):
        if first[before] > first[after]:
            message = f"holds earlier episodes than {before}: LeRobot reads files by name"
            findings.error("file-order", message, file=after)
    for name in first:
        if not (name.startswith("data/") and name.count("/") == 2):
            message = "LeRobot looks for data in data/*/*.parquet only"
            findings.error("file-order", message, file=name)
    for number, name in enumerate(contents.episodes.files):
        positions = contents.positions_in[number]
        if (np.diff(positions) != 1).any():
            message = "its episodes are not consecutive: LeRobot reads rows in stored order"
            findings.error("file-order", message, file=name)


def batch_rows(features: list[Feature]) -> int:
    """Return how many rows of these columns fit a batch of bounded size."""
    row_bytes = sum(
        feature.size * np.dtype(feature.dtype).itemsize if feature.is_numeric else 64
        for feature in features
    )
    return min(max(_BATCH_BYTES // max(row_bytes, 1), _MIN_ROWS), _MAX_ROWS)


def _pieces(
    contents: Contents, number: int, file: pq.ParquetFile, rows: int, findings: Findings
) -> Iterator[tuple[Piece, Arrays]]:
    """Read a file's columns in batches, and cut them at the ends of episodes."""
    name = contents.episodes.files[number]
    columns = {c: f for c, f in contents.columns.items() if c in file.schema_arrow.names}
    positions = contents.positions_in[number]
    starts = contents.episodes.start[positions]
    stops = starts + contents.episodes.length[positions]
    wanted = np.array([[0, rows]], dtype=np.int64)
    size = batch_rows(list(columns.values()))
    for first, batch in iterate_rows(file, list(columns), wanted, batch_rows=size):
        arrays = _arrays(name, batch, columns, findings)
        last = min(first + batch.num_rows, rows)
        begin = int(np.searchsorted(stops, first, side="right"))
        end = int(np.searchsorted(starts, last, side="left"))
        for here in range(begin, end):
            low, high = max(int(starts[here]), first), min(int(stops[here]), last)
            piece = Piece(
                position=int(positions[here]),
                offset=low - int(starts[here]),
                count=high - low,
                is_last=high == min(int(stops[here]), rows),
                file=name,
                is_alone=len(positions) == 1,
            )
            yield piece, {c: a[low - first : high - first] for c, a in arrays.items()}


def _arrays(
    name: str, batch: pa.RecordBatch, columns: dict[str, Feature], findings: Findings
) -> Arrays:
    """Return a batch's columns; one that cannot be read is reported, and not tried again."""
    arrays = {}
    for column, feature in list(columns.items()):
        try:
            arrays[column] = to_numpy(batch.column(column), feature)
        except ValueError as error:
            message = f"cannot be read: {error}"
            shape = stored_shape(batch.schema.field(column).type)
            findings.error(
                "column",
                message,
                file=name,
                column=column,
                repairable=shape is not None and math.prod(shape) != feature.size,
                blocks=column != names.INDEX,
            )
            del columns[column]
    return arrays
