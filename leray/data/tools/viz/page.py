"""Writing the page: one HTML file that holds its style, its script and everything it shows.

Texts of the dataset are JSON in blocks that browsers do not execute, and the script shows them as
text, never as markup.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature
from leray.data.lerobot.columns import Columns
from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.viz.document import base64_text, data_block, page_parts
from leray.data.tools.viz.media import encode_clip, pack_numbers
from leray.errors import DatasetError
from leray.files import atomic_file

MAX_DIMENSIONS = 128
"""Features with more numbers a frame are listed, not plotted."""
CHUNK_FRAMES = 64
"""Pictures of a camera in memory at once."""
SCRIPTS = ("plot.js", "page.js")
SOURCES = "img-src blob: data:; media-src blob: data:; "
"""Videos and pictures are unpacked into blobs."""


def write_page(
    reader: DatasetReader,
    output: Path,
    *,
    name: str,
    width: int = 320,
    notes: tuple[str, ...] = (),
    on_episode: Callable[[int], None] = lambda done: None,
) -> int:
    """Write the page of a dataset's selected episodes; an existing file is replaced at the end.

    Args:
        reader: the dataset, with the episodes to embed selected.
        output: the HTML file; its folder is made.
        name: what the page calls the dataset.
        width: pixels to which wider pictures are scaled down.
        notes: sentences to show beside the list of episodes.
        on_episode: called after every embedded episode with the number of those done.

    Returns:
        Bytes written.

    Raises:
        DatasetError: the dataset is damaged, or the file cannot be written.
    """
    plotted = _plotted(reader)
    texts = [key for key, feature in reader.features.items() if feature.dtype == "string"]
    columns = reader.read(plotted + texts)
    summary = _summary(reader, name, plotted, [*notes, *_left_out(reader, plotted)])
    head, tail = page_parts(__package__, title=name, scripts=SCRIPTS, sources=SOURCES)
    try:
        with atomic_file(output) as file:
            file.write(head)
            file.write(data_block("dataset", summary))
            starts = np.append(0, columns.episode_ends[:-1]).tolist()
            for done, start in enumerate(starts):
                rows = slice(start, int(columns.episode_ends[done]))
                content = {
                    "texts": _texts(reader, columns, texts, rows),
                    "values": [_values(columns[key][rows]) for key in plotted],
                    "clips": [_clip(reader, key, rows, width) for key in reader.cameras],
                }
                file.write(data_block(f"episode-{done}", content))
                on_episode(done + 1)
            file.write(tail)
            size = file.tell()
    except OSError as error:
        raise DatasetError(
            f"{output} cannot be written: {error.strerror or error}; give another --output"
        ) from error
    return size


def _plotted(reader: DatasetReader) -> list[str]:
    """Return the names of the features that are plotted: state, action, then the others."""
    numeric = [
        key
        for key, feature in reader.features.items()
        if feature.is_numeric and feature.size <= MAX_DIMENSIONS
    ]
    first = [key for key in (names.OBSERVATION_STATE, names.ACTION) if key in numeric]
    return first + [key for key in numeric if key not in first]


def _left_out(reader: DatasetReader, plotted: list[str]) -> list[str]:
    return [
        f"{key} is not plotted: it has {feature.size:,} numbers a frame"
        for key, feature in reader.features.items()
        if feature.is_numeric and key not in plotted
    ]


def _summary(
    reader: DatasetReader, name: str, plotted: list[str], notes: list[str]
) -> dict[str, Any]:
    table = reader.metadata.episodes
    position = np.searchsorted(table.index, reader.episodes).tolist()
    return {
        "name": name,
        "version": reader.version,
        "robot": reader.robot_type,
        "fps": reader.fps,
        "episodes": len(table),
        "frames": table.frames,
        "tasks": reader.tasks,
        "features": [
            {"name": key, "dtype": feature.dtype, "shape": feature.shape, "names": feature.names}
            for key, feature in reader.features.items()
        ],
        "findings": reader.findings,
        "notes": notes,
        "cameras": [
            {"name": key, "shape": reader.features[key].image_shape} for key in reader.cameras
        ],
        "plots": [
            {
                "name": key,
                "kind": reader.features[key].kind,
                "labels": _labels(reader.features[key]),
            }
            for key in plotted
        ],
        "embedded": [
            {
                "index": int(table.index[row]),
                "length": int(table.length[row]),
                "tasks": table.tasks[row],
            }
            for row in position
        ],
    }


def _labels(feature: Feature) -> list[str]:
    """Return a name for every number of a frame; positions where the dataset gives none."""
    if feature.size == 1:
        return [feature.names[0] if feature.names and len(feature.names) == 1 else ""]
    if feature.names is not None and len(feature.names) == feature.size:
        return list(feature.names)
    indices = np.ndindex(*feature.shape)
    return [", ".join(map(str, index)) for index in indices]


def _texts(
    reader: DatasetReader, columns: Columns, keys: list[str], rows: slice
) -> dict[str, list[tuple[int, str]]]:
    """Return texts by name, each as its changes: [frame from which it holds, text]."""
    tasks = reader.tasks
    task = _changes(
        columns.task_index[rows],
        lambda index: tasks[index] if 0 <= index < len(tasks) else f"task {index}",
    )
    return {names.TASK: task, **{key: _changes(columns[key][rows], str) for key in keys}}


def _changes(values: NDArray[Any], text: Callable[[Any], str]) -> list[tuple[int, str]]:
    begins = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)
    return [(begin, text(values[begin])) for begin in begins.tolist()]


def _values(values: NDArray[Any]) -> dict[str, str]:
    kind, content = pack_numbers(values)
    return {"type": kind, "data": base64_text(content)}


def _clip(reader: DatasetReader, camera: str, rows: slice, width: int) -> str:
    frames = np.arange(rows.start, rows.stop, dtype=np.int64)
    chunks: Iterator[NDArray[np.uint8]] = (
        reader.read_frames(camera, frames[first : first + CHUNK_FRAMES])
        for first in range(0, len(frames), CHUNK_FRAMES)
    )
    return base64_text(encode_clip(chunks, fps=reader.fps, width=width))
