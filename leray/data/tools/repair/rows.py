"""The bookkeeping columns of the data files: counted anew where the rows' order is certain."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names
from leray.data.lerobot.parquet import damage_reported, open_parquet
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.rows import is_other_rate
from leray.data.tools.repair.columns import read_scalars
from leray.data.tools.repair.workshop import Workshop
from leray.errors import DatasetError

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Where the rows of one data file belong."""

    number: int
    """Of the file."""
    positions: NDArray[np.int64]
    """Its episodes in the table."""
    episode: NDArray[np.int64]
    """Position of each row's episode [rows]."""
    frame: NDArray[np.int64]
    """Each row's number in its episode [rows]."""


def mend_rows(contents: Contents, workshop: Workshop, tolerance_s: float) -> bool:
    """Count `index`, `episode_index`, `frame_index` and `timestamp` anew where they are wrong.

    `task_index` is added where it is absent and the episodes have one task each.

    Returns:
        Whether any data file was changed.
    """
    changed: dict[str, int] = {}
    for number, name in enumerate(contents.episodes.files):
        frames = int(contents.episodes.length[contents.positions_in[number]].sum())
        try:
            with open_parquet(contents.root / name) as file:
                if file.metadata.num_rows != frames:
                    found = f"{file.metadata.num_rows} rows, its episodes {frames} frames"
                    raise DatasetError(f"it has {found}, so that no row can be numbered")
                stored = read_scalars(contents.root / name, names.BOOKKEEPING)
                rows = _rows(contents, number)
                new = _mended(contents, rows, stored, file, tolerance_s, workshop)
                if new:
                    _rewrite(file, name, new, workshop)
        except DatasetError as error:
            workshop.give_up(f"{name}: {error}")
            continue
        for column in new:
            changed[column] = changed.get(column, 0) + 1
    for column, count in changed.items():
        files = "file" if count == 1 else "files"
        workshop.tell(f"data: {column} is counted anew in {count} {files}")
    return bool(changed)


def _rows(contents: Contents, number: int) -> _Rows:
    positions = contents.positions_in[number]
    lengths = contents.episodes.length[positions]
    start = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _Rows(
        number=number,
        positions=positions,
        episode=np.repeat(positions, lengths),
        frame=np.arange(lengths.sum()) - start,
    )


def _mended(
    contents: Contents,
    rows: _Rows,
    stored: Columns,
    file: pq.ParquetFile,
    tolerance_s: float,
    workshop: Workshop,
) -> Columns:
    """Return the columns of a file that must be replaced or added."""
    expected: Columns = {
        names.FRAME_INDEX: rows.frame,
        names.EPISODE_INDEX: contents.episodes.index[rows.episode],
        names.INDEX: contents.first_frame[rows.episode] + rows.frame,
    }
    new = {
        name: values
        for name, values in expected.items()
        if name not in stored or not np.array_equal(stored[name], values)
    }
    times = _timestamps(contents, rows, stored, tolerance_s, workshop)
    if times is not None:
        new[names.TIMESTAMP] = times
    if names.TASK_INDEX not in file.schema_arrow.names:
        tasks = _task_index(contents, rows, workshop)
        if tasks is not None:
            new[names.TASK_INDEX] = tasks
    if not new:
        return {}
    name = contents.episodes.files[rows.number]
    confirmed = {names.FRAME_INDEX, names.EPISODE_INDEX} - set(new)
    if not confirmed and len(rows.positions) > 1:
        workshop.give_up(
            f"{name}: neither frame_index nor episode_index fits the episodes' lengths, so that no "
            "row can be numbered"
        )
        return {}
    return new


def _timestamps(
    contents: Contents,
    rows: _Rows,
    stored: Columns,
    tolerance_s: float,
    workshop: Workshop,
) -> NDArray[Any] | None:
    """Return frame_index / fps where the stored timestamps are off; None when they are right."""
    exact = rows.frame / contents.fps
    times = stored.get(names.TIMESTAMP)
    if times is None or times.dtype.kind != "f" or len(times) != len(exact):
        return exact.astype(np.float32)
    counted = exact.astype(times.dtype)
    slack = np.spacing(np.abs(counted)).astype(np.float64)
    is_right = np.abs(times.astype(np.float64) - exact) <= tolerance_s + slack
    steps = np.diff(times) > 0
    same_episode = np.diff(rows.episode) == 0
    if is_right.all() and steps[same_episode].all():
        return None
    for position in rows.positions.tolist():
        here = np.flatnonzero(rows.episode == position)
        first, last = float(times[here[0]]), float(times[here[-1]])
        if is_other_rate(first, last, len(here), contents.fps):
            name = contents.episodes.files[rows.number]
            workshop.give_up(
                f"{name}: timestamps of episode {contents.episodes.index[position]} do not advance "
                f"at {contents.fps:g} fps; correct fps in meta/info.json if that is wrong"
            )
            return None
    return counted


def _task_index(contents: Contents, rows: _Rows, workshop: Workshop) -> NDArray[np.int64] | None:
    """Return the task of every row, if every episode lists just one."""
    index_of = {str(text): index for index, text in (contents.task_rows or ())}
    of_episode = {}
    for position in rows.positions.tolist():
        listed = contents.episodes.tasks[position]
        if len(listed) != 1 or listed[0] not in index_of:
            workshop.give_up("task_index: an episode lists several tasks, or one without index")
            return None
        of_episode[position] = index_of[listed[0]]
    return np.array([of_episode[position] for position in rows.episode.tolist()], dtype=np.int64)


def _rewrite(file: pq.ParquetFile, name: str, new: Columns, workshop: Workshop) -> None:
    """Write a data file with other columns, row group by row group."""
    schema = file.schema_arrow
    for column, values in new.items():
        field = pa.field(column, pa.from_numpy_dtype(values.dtype))
        place = schema.get_field_index(column)
        schema = schema.append(field) if place < 0 else schema.set(place, field)
    schema = schema.with_metadata(_described(schema.metadata or {}, new))
    first = 0
    with workshop.parquet_writer(name, schema) as writer:
        for group in range(file.num_row_groups):
            with damage_reported(workshop.root / name):  # reading only: a full disk is no damage
                table = file.read_row_group(group)
            last = first + len(table)
            arrays = [
                pa.chunked_array([pa.array(new[column][first:last])])
                if column in new
                else table[column]
                for column in schema.names
            ]
            part = pa.Table.from_arrays(arrays, schema=schema)
            writer.write_table(part, row_group_size=max(len(part), 1))
            first = last


def _described(metadata: dict[bytes, bytes], new: Columns) -> dict[bytes, bytes]:
    """Tell the `datasets` library, which refuses columns that the file does not describe."""
    try:
        described = json.loads(metadata[b"huggingface"])
        features = described["info"]["features"]
        features.update(
            {name: {"dtype": str(v.dtype), "_type": "Value"} for name, v in new.items()}
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return metadata
    return metadata | {b"huggingface": json.dumps(described).encode()}
