"""The episodes metadata: order, frame ranges, places in videos, and lists of tasks."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.parquet import read_table
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.episodes import FROM, PLACE, TO, expected_ranges, integers, numbers_of
from leray.data.tools.check.spans import are_spans_derivable
from leray.data.tools.repair.tasks import used_tasks
from leray.data.tools.repair.workshop import Workshop
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

Spans = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Start and end of each episode in its video file, in seconds, by camera [episodes]."""


def mend_episodes(
    contents: Contents, workshop: Workshop, tolerance_s: float, *, trusts_fps: bool
) -> None:
    """Correct what follows from the episodes' lengths, their frames and their videos.

    Args:
        contents: the dataset.
        workshop: changes files.
        tolerance_s: by how much the time of a frame may be off.
        trusts_fps: whether `info.json` is known to state the right frame rate.
    """
    tasks = _tasks(contents, workshop)
    if not contents.is_v3:
        _mend_lines(contents, tasks, workshop)
        return
    spans = _spans(contents, tolerance_s) if trusts_fps else {}
    for path in episodes_files(contents.root):
        name = path.relative_to(contents.root).as_posix()
        table = read_table(path)
        stored = integers(table, "episode_index")
        if stored is None:
            continue
        mended = _mended(contents, path, table, stored, tasks, spans)
        if not mended.equals(table):
            workshop.write_table(name, mended.replace_schema_metadata(table.schema.metadata))
            changed = [
                column
                for column in mended.column_names
                if column not in table.column_names or not mended[column].equals(table[column])
            ]
            shown = ", ".join(changed[:6]) + (" ..." if len(changed) > 6 else "")
            workshop.tell(f"{name}: {shown} corrected")


def _tasks(contents: Contents, workshop: Workshop) -> list[tuple[str, ...]]:
    """Return each episode's task texts: those listed, and those that its frames have."""
    try:
        used = used_tasks(contents)
    except DatasetError as error:
        workshop.give_up(f"the episodes' lists of tasks: {error}")
        return list(contents.episodes.tasks)
    complete = []
    for indices, listed in zip(used, contents.episodes.tasks, strict=True):
        texts = [str(contents.task_of[i]) for i in sorted(indices) if i in contents.task_of]
        complete.append(tuple(dict.fromkeys([*listed, *texts])))
    return complete


def _mend_lines(contents: Contents, tasks: list[tuple[str, ...]], workshop: Workshop) -> None:
    rows = layout.read_json_lines(contents.root / layout.EPISODES_JSONL)
    mended = sorted((dict(row) for row in rows), key=lambda row: int(row["episode_index"]))
    for row in mended:
        position = int(np.searchsorted(contents.episodes.index, int(row["episode_index"])))
        if set(tasks[position]) != set(contents.episodes.tasks[position]):
            row["tasks"] = list(tasks[position])
    if mended != rows:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mended)
        workshop.write_bytes(layout.EPISODES_JSONL, lines.encode("utf-8", "surrogatepass"))
        workshop.tell(f"{layout.EPISODES_JSONL}: order and tasks corrected")


def _mended(
    contents: Contents,
    path: Path,
    table: pa.Table,
    stored: NDArray[np.int64],
    tasks: list[tuple[str, ...]],
    spans: Spans,
) -> pa.Table:
    order = np.argsort(stored, kind="stable")
    if (order != np.arange(len(order))).any():
        table, stored = table.take(pa.array(order)), stored[order]
    position = np.searchsorted(contents.episodes.index, stored)
    first, last = expected_ranges(contents, stored)
    columns: dict[str, pa.Array] = {FROM: pa.array(first), TO: pa.array(last)}
    numbers = numbers_of(path)
    if numbers is not None:
        for column, number in zip(PLACE, numbers, strict=True):
            columns[column] = pa.array(np.full(len(stored), number, dtype=np.int64))
    for camera, (start_s, end_s) in spans.items():
        columns[f"videos/{camera}/from_timestamp"] = pa.array(start_s[position])
        columns[f"videos/{camera}/to_timestamp"] = pa.array(end_s[position])
    if any(set(tasks[p]) != set(contents.episodes.tasks[p]) for p in position.tolist()):
        texts = [list(tasks[p]) for p in position.tolist()]
        columns["tasks"] = pa.array(texts, pa.list_(pa.string()))
    for column, values in columns.items():
        place = table.column_names.index(column) if column in table.column_names else -1
        if place < 0:
            table = table.append_column(column, values)
        else:
            table = table.set_column(place, column, values)
    return table


def _spans(contents: Contents, tolerance_s: float) -> Spans:
    """Find each episode's place in its video files anew, where that follows from the files."""
    spans: Spans = {}
    for camera in contents.cameras:
        if camera not in contents.episodes.videos:
            continue
        table = contents.episodes.videos[camera]
        duration_s = contents.episodes.length / contents.fps
        start_s = table.start_s.copy()
        # LeRobot takes the end from the file's duration; a part of a frame is no mistake.
        is_right = np.abs(table.end_s - start_s - duration_s) <= 0.5 / contents.fps
        for number, name in enumerate(table.files):
            positions = np.flatnonzero(table.file == number)
            try:
                with VideoReader(contents.root / name, name=name) as video:
                    first = _first_frames(contents, positions, video.num_frames)
                    found_s = None if first is None else video.timestamps[first]
            except DatasetError:  # reported by the check
                continue
            if found_s is None:
                continue
            moved = positions[np.abs(start_s[positions] - found_s) > tolerance_s]
            start_s[positions] = np.where(np.isin(positions, moved), found_s, start_s[positions])
            is_right[moved] = False
        spans[camera] = (start_s, np.where(is_right, table.end_s, start_s + duration_s))
    return spans


def _first_frames(
    contents: Contents, positions: NDArray[np.int64], num_frames: int
) -> NDArray[np.int64] | None:
    """Return where episodes begin that fill a file exactly; None when they do not."""
    if not are_spans_derivable(contents, positions, num_frames):
        return None
    lengths = contents.episodes.length[positions]
    first: NDArray[np.int64] = np.cumsum(lengths) - lengths
    return first
