"""From the stored rows of an episode, of any version, to its rows in a v3.0 data file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature, Features
from leray.data.lerobot.images import image_bytes
from leray.data.lerobot.parquet import to_numpy
from leray.data.lerobot.pictures import image_column
from leray.data.lerobot.schema import BOOKKEEPING, frame_schema, frame_table
from leray.data.tools.rewriting.content import Content
from leray.data.tools.rewriting.source import Source
from leray.errors import DatasetError, FeatureMismatchError


@dataclass(frozen=True)
class EpisodeFrames:
    """One episode of the new dataset."""

    table: pa.Table
    """The rows to store."""
    numbers: dict[str, NDArray[Any]]
    """Its numeric columns [frames, *frame_shape], bookkeeping included."""
    tasks: list[str]
    """The distinct task strings."""
    timestamp_error_s: float
    """How far a timestamp is from the frame's number divided by the frame rate, at most."""


class FrameBuilder:
    """Makes the rows of the new dataset's episodes, one after the other.

    Numbers and texts get their declared types, encoded pictures and lists of text are copied as
    they are. Bookkeeping columns are made anew, but for timestamps.

    Args:
        content: what the new dataset declares.
        stored: schema of a data file of the first source.
        retime: whether to count timestamps anew as well.
    """

    def __init__(self, content: Content, stored: pa.Schema, *, retime: bool = False) -> None:
        self._content = content
        self._retime = retime
        kept = {name: f for name, f in content.features.items() if f.dtype != "video"}
        self._copied = [name for name, feature in kept.items() if _is_copied(feature)]
        made = {name: feature for name, feature in kept.items() if name not in self._copied}
        self._made = Features({**made, **BOOKKEEPING})
        self._task_index = {task: index for index, task in enumerate(content.tasks)}
        self._index = self._first = 0
        self._made_schema = frame_schema(self._made)
        self.schema = _with_copied(self._made_schema, stored, self._copied)
        """Of the new dataset's data files."""

    def columns(self, source: Source) -> list[str]:
        """Return the names of the columns that `build` needs of a source's rows."""
        made = [name for name in self._made if name not in BOOKKEEPING]
        stored = (names.EPISODE_INDEX, names.TIMESTAMP, names.TASK_INDEX)
        bookkeeping = [name for name in stored if name in source.metadata.bookkeeping]
        return [*made, *self._copied, *bookkeeping]

    def build(self, source: Source, position: int, rows: pa.Table) -> EpisodeFrames:
        """Return the next episode.

        Args:
            source: the dataset it comes from.
            position: its row in that dataset's episode table.
            rows: its stored rows, with the `columns` of that source.

        Raises:
            DatasetError: a column does not hold what is declared, or a task does not exist.
        """
        where = f"{source.metadata.root}, episode {source.metadata.episodes.index[position]}"
        counted = np.arange(len(rows), dtype=np.int64)
        columns: dict[str, Any] = {
            name: _pictures(rows[name], source.metadata.root, f"{where}, {name}")
            if feature.is_visual
            else _values(rows, name, self._made, where)
            for name, feature in self._made.items()
            if name not in BOOKKEEPING
        }
        seconds = counted / self._content.fps
        if names.TIMESTAMP in rows.column_names and not self._retime:
            seconds = _values(rows, names.TIMESTAMP, source.metadata.bookkeeping, where)
        tasks, task_index = self._tasks(source, position, rows, where)
        columns |= {
            names.TIMESTAMP: seconds.astype(np.float32),
            names.FRAME_INDEX: counted,
            names.EPISODE_INDEX: np.full(len(rows), self._index, dtype=np.int64),
            names.INDEX: self._first + counted,
            names.TASK_INDEX: task_index,
        }
        table = frame_table(self._made, self._made_schema, columns)
        for name in self._copied:
            table = table.append_column(name, rows[name].cast(self.schema.field(name).type))
        self._index, self._first = self._index + 1, self._first + len(rows)
        return EpisodeFrames(
            table.replace_schema_metadata(self.schema.metadata),
            {name: columns[name] for name, feature in self._made.items() if feature.is_numeric},
            tasks,
            float(np.abs(seconds - counted / self._content.fps).max()),
        )

    def _tasks(
        self, source: Source, position: int, rows: pa.Table, where: str
    ) -> tuple[list[str], NDArray[np.int64]]:
        """Return the episode's distinct tasks, and the new number of each row's task."""
        episodes = source.metadata.episodes
        episode, known = int(episodes.index[position]), source.metadata.tasks
        old = np.zeros(len(rows), dtype=np.int64)
        if names.TASK_INDEX in rows.column_names:
            old = _values(rows, names.TASK_INDEX, BOOKKEEPING, where)
        used, which = np.unique(old, return_inverse=True)
        if unknown := [index for index in used.tolist() if not 0 <= index < len(known)]:
            raise DatasetError(
                f"{where}: task_index {unknown[0]} has no text, there are {len(known)} tasks; "
                "restore the dataset's task table"
            )
        texts = [source.task(episode, known[index]) for index in used.tolist()]
        listed = [source.task(episode, task) for task in episodes.tasks[position]]
        new = np.array([self._task_index[text] for text in texts], dtype=np.int64)
        return list(dict.fromkeys(listed or texts)), new[which]


def _is_copied(feature: Feature) -> bool:
    return feature.kind == "language" or (feature.dtype == "string" and feature.shape != (1,))


def _with_copied(made: pa.Schema, stored: pa.Schema, copied: Sequence[str]) -> pa.Schema:
    """Return a schema with further columns as another one has and describes them."""
    described = json.loads(made.metadata[b"huggingface"])
    before = json.loads((stored.metadata or {}).get(b"huggingface", b"{}"))
    known = before.get("info", {}).get("features", {})
    for name in copied:
        made = made.append(pa.field(name, stored.field(name).type))
        described["info"]["features"][name] = known.get(name)
    return made.with_metadata({"huggingface": json.dumps(described)})


def _values(rows: pa.Table, name: str, features: Features, where: str) -> NDArray[Any]:
    try:
        return to_numpy(rows[name].combine_chunks(), features[name])
    except ValueError as error:
        raise DatasetError(f"{where}: column {name!r} cannot be read: {error}") from error


def _pictures(column: pa.ChunkedArray, root: Path, where: str) -> pa.ChunkedArray:
    """Return encoded pictures as an image column; those in files of their own are embedded."""
    try:
        return image_column(column)
    except FeatureMismatchError:
        entries = enumerate(column.to_pylist())
        return image_column([image_bytes(root, e, f"{where}, frame {n}") for n, e in entries])
