"""Statistics, computed anew: exact for numbers, from sampled frames for pictures."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Feature
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.parquet import read_table
from leray.data.lerobot.reader import DatasetReader
from leray.data.statistics import KEYS, FeatureStatistics, Statistics
from leray.data.tools.check.episodes import integers
from leray.data.tools.check.stored_statistics import numbers_of
from leray.data.tools.repair.pictures import PictureStatistics, unsound_cameras
from leray.data.tools.repair.workshop import Workshop
from leray.errors import DatasetError

_COLUMN_BYTES = 512 * 2**20
"""A column that needs no more memory gets exact quantiles; longer ones the envelope of parts."""
_GROUP_BYTES = 64 * 2**20


def mend_statistics(workshop: Workshop, progress: Callable[[int, int], None]) -> None:
    """Write statistics that are complete and fit the frames, where others are stored.

    Numbers get exact ones. Those of pictures are kept where they are sound, else computed from the
    frames that LeRobot would sample.
    """
    try:
        reader = DatasetReader.open(workshop.root)
        pictures = _pictures(reader, workshop, progress)
        if reader.version == "v3.0":
            _mend_parquet(reader, pictures, workshop)
        elif reader.version == "v2.1":
            _mend_lines(reader, pictures, workshop)
        _mend_whole(reader, pictures, workshop)
        reader.close()
    except DatasetError as error:
        workshop.give_up(f"statistics: {error}")


def _pictures(
    reader: DatasetReader, workshop: Workshop, progress: Callable[[int, int], None]
) -> dict[str, PictureStatistics]:
    computed = {}
    for camera in unsound_cameras(reader):
        try:
            computed[camera] = PictureStatistics.of(reader, camera, progress)
        except DatasetError as error:
            workshop.give_up(f"statistics of {camera}: {error}")
    return computed


def _numeric(reader: DatasetReader) -> dict[str, Feature]:
    features = {**reader.features, **reader.metadata.bookkeeping}
    return {name: feature for name, feature in features.items() if feature.is_numeric}


def _mend_whole(
    reader: DatasetReader, pictures: Mapping[str, PictureStatistics], workshop: Workshop
) -> None:
    """Write `meta/stats.json`; v2.1 datasets need none."""
    path = reader.root / layout.STATS
    if not reader.num_frames or (reader.version == "v2.1" and not path.is_file()):
        return
    try:
        stored = layout.read_json(path)
    except DatasetError:
        stored = {}
    stored = stored if isinstance(stored, dict) else {}
    new = {name: _of_column(reader, name, f) for name, f in _numeric(reader).items()}
    new |= {camera: computed.whole for camera, computed in pictures.items()}
    changed = _other_than(stored, new)
    if changed:
        workshop.write_json(layout.STATS, stored | statistics.to_json(changed))
        workshop.tell(f"{layout.STATS}: {_shown(list(changed))} computed anew")


def _other_than(stored: Mapping[str, Any], new: Statistics) -> Statistics:
    """Return the entries that are stored otherwise, by more than the order of summing does."""
    return {
        name: entry
        for name, entry in new.items()
        if not _is_same(numbers_of(stored.get(name)), entry)
    }


def _is_same(stored: FeatureStatistics, new: FeatureStatistics) -> bool:
    return set(stored) == set(new) and all(
        _is_close(key, stored[key], value) for key, value in new.items()
    )


def _is_close(key: str, stored: NDArray[Any], new: NDArray[Any]) -> bool:
    if stored.shape != new.shape:
        return False
    if key in ("min", "max", "count"):
        return np.array_equal(stored, new, equal_nan=True)
    return np.allclose(stored, new, rtol=1e-9, atol=1e-12, equal_nan=True)


def _of_column(reader: DatasetReader, name: str, feature: Feature) -> FeatureStatistics:
    frames = max(_COLUMN_BYTES // (8 * feature.size), 1)
    parts = [
        {name: statistics.compute(columns[name])} for columns in _groups(reader, [name], frames)
    ]
    return parts[0][name] if len(parts) == 1 else statistics.aggregate(parts)[name]


def _groups(
    reader: DatasetReader, wanted: list[str], frames: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield columns of consecutive episodes, about so many frames at a time."""
    lengths = reader.metadata.episodes.length
    first_frame = np.cumsum(lengths) - lengths
    for group in reader.grouped(frames):
        columns = group.read([name for name in wanted if name in reader.features])
        position = np.searchsorted(reader.metadata.episodes.index, columns.episode_index)
        bookkeeping = {
            names.TIMESTAMP: columns.timestamp,
            names.FRAME_INDEX: columns.frame_index,
            names.EPISODE_INDEX: columns.episode_index,
            names.INDEX: first_frame[position] + columns.frame_index,
            names.TASK_INDEX: columns.task_index,
        }
        everything = {**bookkeeping, **columns.arrays, "ends": columns.episode_ends}
        yield {name: everything[name] for name in (*wanted, "ends")}


def _of_episodes(reader: DatasetReader) -> Iterator[Statistics]:
    """Yield the statistics of every episode's numbers, in order."""
    features = _numeric(reader)
    frame_bytes = 8 * sum(feature.size for feature in features.values())
    frames = max(_GROUP_BYTES // max(frame_bytes, 1), 1)
    for columns in _groups(reader, list(features), frames):
        ends = columns["ends"].tolist()
        for start, end in zip([0, *ends], ends, strict=False):
            yield {name: statistics.compute(columns[name][start:end]) for name in features}


def _mend_lines(
    reader: DatasetReader, pictures: Mapping[str, PictureStatistics], workshop: Workshop
) -> None:
    """Write `meta/episodes_stats.jsonl`."""
    path = reader.root / layout.EPISODES_STATS_JSONL
    try:
        rows = layout.read_json_lines(path) if path.is_file() else []
        stored = {row["episode_index"]: row["stats"] for row in rows}
    except (DatasetError, KeyError, TypeError):
        rows, stored = [], {}
    lines, changed = [], False
    for position, entries in enumerate(_of_episodes(reader)):
        index = int(reader.metadata.episodes.index[position])
        new = {**entries, **{c: computed.episodes[position] for c, computed in pictures.items()}}
        old = stored.get(index)
        old = old if isinstance(old, dict) else {}
        other = _other_than(old, new)
        changed = changed or bool(other)
        lines.append({"episode_index": index, "stats": old | statistics.to_json(other)})
    if changed or len(lines) != len(rows):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        workshop.write_bytes(layout.EPISODES_STATS_JSONL, text.encode("utf-8", "surrogatepass"))
        workshop.tell(f"{layout.EPISODES_STATS_JSONL}: computed anew")


def _mend_parquet(
    reader: DatasetReader, pictures: Mapping[str, PictureStatistics], workshop: Workshop
) -> None:
    """Write the `stats/*` columns of the episodes metadata."""
    for path in episodes_files(reader.root):
        table = read_table(path)
        stored = integers(table, "episode_index")
        if stored is None or not len(stored):
            continue
        ascending = np.argsort(stored)
        positions = np.searchsorted(reader.metadata.episodes.index, stored[ascending])
        part = DatasetReader(reader.metadata, positions)
        entries = [
            {**entry, **{c: computed.episodes[at] for c, computed in pictures.items()}}
            for at, entry in zip(positions.tolist(), _of_episodes(part), strict=True)
        ]
        rank = np.argsort(ascending)
        mended = table
        for name in entries[0]:
            for key in KEYS:
                values = np.stack([entries[row][name][key] for row in rank])
                mended = _with_column(mended, f"stats/{name}/{key}", key, values)
        if mended is not table:
            file = path.relative_to(reader.root).as_posix()
            workshop.write_table(file, mended)
            workshop.tell(f"{file}: statistics of {len(stored)} episodes computed anew")


def _with_column(table: pa.Table, name: str, key: str, values: NDArray[Any]) -> pa.Table:
    """Return the table with a column of statistics; itself when it holds them already."""
    if name not in table.column_names:
        return table.append_column(name, nested_lists(values))
    stored = numbers_of({key: table[name].to_pylist()}).get(key)
    if stored is not None and _is_close(key, stored, values):
        return table
    return table.set_column(table.column_names.index(name), name, nested_lists(values))


def nested_lists(values: NDArray[Any]) -> pa.Array:
    """Return an array [rows, *shape] as a column of lists, one level per axis of the shape."""
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(offsets, array)
    return array


def _shown(features: list[str]) -> str:
    more = f" and {len(features) - 6} more" if len(features) > 6 else ""
    return ", ".join(features[:6]) + more
