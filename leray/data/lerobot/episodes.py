"""The table of episodes: how long each one is, and which rows of which file hold it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data.lerobot import layout
from leray.data.lerobot.parquet import damage_reported, read_table
from leray.data.lerobot.videos import VideoTable
from leray.errors import DatasetError

_V3_COLUMNS = ("episode_index", "length", "tasks", "data/chunk_index", "data/file_index")
_VIDEO = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
_MAX_FRAMES = 2**52
"""More frames are taken for damage; positions must stay exact in 64 bits."""


@dataclass(frozen=True, slots=True)
class EpisodeTable:
    """All episodes of a dataset, ordered by episode index; arrays are int64 [episodes]."""

    index: NDArray[np.int64]
    """The number of the episode in the dataset."""
    length: NDArray[np.int64]
    """Frames."""
    file: NDArray[np.int64]
    """Position in `files` of the file that holds it."""
    start: NDArray[np.int64]
    """Row of its first frame in that file."""
    files: tuple[str, ...]
    """Data files, relative to the dataset's folder."""
    tasks: tuple[tuple[str, ...], ...]
    """The distinct task strings of each episode."""
    videos: dict[str, VideoTable]
    """Where each camera's videos are; cameras without any are absent."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def frames(self) -> int:
        """Total number of frames."""
        return int(self.length.sum())

    def rows_of(self, file: int) -> int:
        """Return how many rows of a file belong to episodes."""
        return int(self.length[self.file == file].sum())


def read_episodes(
    root: Path, info: dict[str, Any], findings: list[str], cameras: Sequence[str] = ()
) -> EpisodeTable:
    """Read the episodes of a dataset of any supported version.

    Args:
        root: the dataset's folder.
        info: content of `info.json`, with a supported `codebase_version`.
        findings: gains one line per harmless oddity.
        cameras: names of the video features.

    Raises:
        DatasetError: the metadata is missing, damaged or contradicts itself.
    """
    template = layout.PathTemplate(info.get("data_path"), "data_path")
    video_path = info.get("video_path")
    source = _Source(
        root=root,
        data=template,
        video=None if video_path is None else layout.PathTemplate(video_path, "video_path"),
        cameras=cameras if video_path is not None else (),
        findings=findings,
    )
    for camera in source.cameras:  # refused here whatever the episodes say
        source.video_path(camera, **dict.fromkeys(layout.INTEGER_FIELDS, 0))
    if info["codebase_version"] == "v3.0":
        return _from_parquet(source)
    return _from_json_lines(source, info)


def episodes_files(root: Path) -> list[Path]:
    """Return the v3.0 episode metadata files, in order."""
    return sorted((root / "meta" / "episodes").glob("*/*.parquet"))


@dataclass(frozen=True, slots=True)
class _Source:
    """What the tables are read from."""

    root: Path
    data: layout.PathTemplate
    video: layout.PathTemplate | None
    cameras: Sequence[str]
    findings: list[str]

    def video_path(self, camera: str, **numbers: int) -> str:
        assert self.video is not None
        return self.video.fill(video_key=camera, **numbers)


def _from_json_lines(source: _Source, info: dict[str, Any]) -> EpisodeTable:
    path = source.root / layout.EPISODES_JSONL
    if not path.is_file():
        raise DatasetError(f"{path} is missing: the dataset's episodes are unknown; copy it again")
    chunks_size = info.get("chunks_size", layout.CHUNKS_SIZE)
    if type(chunks_size) is not int or chunks_size < 1:
        raise DatasetError(
            f"{layout.INFO}: chunks_size must be a positive integer, not {chunks_size!r}"
        )
    rows = layout.read_json_lines(path)
    try:
        index = np.array([int(row["episode_index"]) for row in rows], dtype=np.int64)
        length = np.array([int(row["length"]) for row in rows], dtype=np.int64)
        tasks = [tuple(map(str, row.get("tasks") or ())) for row in rows]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path}: every line needs an integer episode_index and length"
        ) from error
    places = [
        {"episode_index": number, "episode_chunk": number // chunks_size}
        for number in index.tolist()
    ]
    videos = {
        camera: VideoTable.build([source.video_path(camera, **place) for place in places])
        for camera in source.cameras
    }
    paths = [source.data.fill(**place) for place in places]
    return _build(path, _Rows(index, length, paths, tasks, videos), source.findings)


def _from_parquet(source: _Source) -> EpisodeTable:
    folder = source.root / "meta" / "episodes"
    files = episodes_files(source.root)
    if not files:
        source.findings.append("meta/episodes holds no file: the dataset has no episodes")
        return _build(folder, _Rows(_EMPTY, _EMPTY, [], [], {}), source.findings)
    wanted = [*_V3_COLUMNS, *(f"videos/{c}/{part}" for c in source.cameras for part in _VIDEO)]
    with damage_reported(folder):
        table = pa.concat_tables(
            [read_table(file, wanted) for file in files], promote_options="default"
        )
    if missing := [name for name in _V3_COLUMNS if name not in table.column_names]:
        raise DatasetError(f"{folder} lacks the column {missing[0]!r}; copy the dataset again")
    numbers = {name: _integers(folder, table, name) for name in _V3_COLUMNS if name != "tasks"}
    try:
        with damage_reported(folder):
            tasks = [tuple(map(str, row or ())) for row in table["tasks"].to_pylist()]
    except TypeError as error:
        raise DatasetError(f"{folder}: 'tasks' must hold lists of text: {error}") from error
    paths = [
        source.data.fill(chunk_index=chunk, file_index=file)
        for chunk, file in zip(
            numbers["data/chunk_index"].tolist(), numbers["data/file_index"].tolist(), strict=True
        )
    ]
    videos = {
        camera: videos
        for camera in source.cameras
        if (videos := _video_table(source, table, camera)) is not None
    }
    rows = _Rows(numbers["episode_index"], numbers["length"], paths, tasks, videos)
    return _build(folder, rows, source.findings)


def _video_table(source: _Source, table: pa.Table, camera: str) -> VideoTable | None:
    """Read where a camera's videos are; None when the metadata does not tell."""
    chunk, file, start, end = (f"videos/{camera}/{part}" for part in _VIDEO)
    if not {chunk, file, start} <= set(table.column_names):
        return None
    folder = source.root / "meta" / "episodes"
    numbers = zip(
        _integers(folder, table, chunk).tolist(),
        _integers(folder, table, file).tolist(),
        strict=True,
    )
    return VideoTable.build(
        [source.video_path(camera, chunk_index=c, file_index=f) for c, f in numbers],
        _seconds(folder, table, start),
        _seconds(folder, table, end) if end in table.column_names else None,
    )


def _integers(folder: Path, table: pa.Table, name: str) -> NDArray[np.int64]:
    try:
        numbers: NDArray[np.int64] = _values(table, name).astype(np.int64, casting="safe")
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{folder}: {name} must hold integers without gaps: {error}") from error
    return numbers


def _seconds(folder: Path, table: pa.Table, name: str) -> NDArray[np.float64]:
    seconds = _values(table, name)
    if seconds.dtype.kind not in "iuf" or not np.isfinite(seconds).all() or (seconds < 0).any():
        raise DatasetError(f"{folder}: {name} must hold times >= 0 s without gaps")
    times: NDArray[np.float64] = seconds.astype(np.float64)
    return times


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a column; as objects where it does not hold numbers."""
    column = table[name]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.array(column.to_pylist(), dtype=object)
    values: NDArray[Any] = column.to_numpy()
    return values


_EMPTY = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Episodes in stored order."""

    index: NDArray[np.int64]
    length: NDArray[np.int64]
    paths: list[str]
    tasks: list[tuple[str, ...]]
    videos: dict[str, VideoTable]


def _build(source: Path, rows: _Rows, findings: list[str]) -> EpisodeTable:
    """Order the rows by episode, drop repeated ones, and find each one's first row."""
    paths = rows.paths
    index, first = np.unique(rows.index, return_index=True)
    if len(index) < len(paths):
        findings.append(
            f"{source.name} lists {len(paths) - len(index)} episodes twice; the first entry counts"
        )
    length = rows.length[first]
    if len(index) and (length.min() < 1 or index[0] < 0):
        raise DatasetError(f"{source}: episode indices must be >= 0 and lengths >= 1")
    if sum(length.tolist()) > _MAX_FRAMES:
        raise DatasetError(f"{source}: {sum(length.tolist())} frames in all is not plausible")
    if len(index) and index[-1] != len(index) - 1:
        findings.append(
            f"episode indices have gaps: {len(index)} episodes, the last is {index[-1]}"
        )
    files = tuple(dict.fromkeys(paths[row] for row in first))
    number = {path: position for position, path in enumerate(files)}
    used: Counter[str] = Counter()
    start = np.zeros(len(index), dtype=np.int64)
    for position, row in enumerate(first):
        start[position] = used[paths[row]]
        used[paths[row]] += int(length[position])
    return EpisodeTable(
        index=index,
        length=length,
        file=np.array([number[paths[row]] for row in first], dtype=np.int64),
        start=start,
        files=files,
        tasks=tuple(rows.tasks[row] for row in first),
        videos={camera: table.take(first) for camera, table in rows.videos.items()},
    )
