"""Bringing a dataset whose writer was killed back to its last saved episode, on disk.

The reader already skips what an interrupted save left behind; other readers take every file they
find, so whoever goes on writing cleans up first.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Features
from leray.data.image_statistics import is_std_possible
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import EpisodeTable, episodes_files, read_episodes
from leray.data.lerobot.parquet import damage_reported, open_parquet, read_table
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.schema import BOOKKEEPING, check_writable
from leray.data.lerobot.series import atomic_writer
from leray.errors import DatasetError

ORPHAN_SUFFIX = ".orphan"
"""Ends the name of a file that no listed episode needs: no reader takes it for data or video."""


def recover(root: Path, info: dict[str, Any]) -> None:
    """Remove what interrupted saves left; frames of listed episodes are never touched.

    Raises:
        DatasetError: the metadata or a file is damaged in another way.
    """
    _drop_repeated_rows(root)
    cameras = [
        name
        for name, feature in Features.from_info(info["features"]).items()
        if feature.dtype == "video"
    ]
    episodes = read_episodes(root, info, [], cameras)
    for camera in cameras:
        if len(episodes) and camera not in episodes.videos:
            raise DatasetError(f"{root} does not say where the videos of {camera!r} are")
    for folder in ("meta", "data", "videos"):
        for leftover in (root / folder).rglob(".*.tmp"):
            leftover.unlink()
    _recover_data(root, episodes)
    if cameras:
        from leray.data.lerobot.video_recovery import recover_videos  # PyAV only where needed

        for camera in cameras:
            recover_videos(root, camera, episodes, info["fps"], ORPHAN_SUFFIX)


def current_statistics(reader: DatasetReader) -> statistics.Statistics:
    """Return statistics of every frame: the stored ones, or exact ones where those fell behind.

    Those of pictures are combined from the episodes'; where these are not sound, they are the
    stored ones, or those of a sample of pictures.
    """
    if not reader.num_frames:
        return {}
    stored = reader.stats
    features = {**reader.features, **BOOKKEEPING}
    complete = {}
    for name in (name for name, feature in features.items() if feature.is_numeric):
        entry = stored.get(name, {})
        if set(statistics.KEYS) <= set(entry) and entry["count"].tolist() == [reader.num_frames]:
            complete[name] = entry
        else:
            complete[name] = statistics.compute(_column(reader, name))
    for camera in reader.cameras:
        channels = reader.features[camera].image_shape[2]
        entry = _episodes_statistics(reader.root, camera)
        sound = "mean" in entry and entry["mean"].shape == (channels, 1, 1)
        is_usable = sound and is_std_possible(entry)
        complete[camera] = entry if is_usable else reader.image_stats(camera)
    return complete


def _column(reader: DatasetReader, name: str) -> NDArray[Any]:
    if name not in BOOKKEEPING:
        return reader.read([name])[name]
    if name == names.INDEX:
        return np.arange(reader.num_frames)
    column: NDArray[Any] = getattr(reader.read([]), name)
    return column


def _episodes_statistics(root: Path, camera: str) -> statistics.FeatureStatistics:
    """Combine the statistics of a camera that stand beside each episode; empty when one lacks."""
    columns = {f"stats/{camera}/{key}": key for key in statistics.KEYS}
    tables = [read_table(path, list(columns)) for path in episodes_files(root)]
    rows = pa.concat_tables(tables, promote_options="default").to_pylist()
    entries = [{columns[name]: v for name, v in row.items() if v is not None} for row in rows]
    try:
        parts = [statistics.from_json({camera: entry}) for entry in entries]
        return statistics.aggregate(parts).get(camera, {})
    except DatasetError:
        return {}


def _recover_data(root: Path, episodes: EpisodeTable) -> None:
    listed = set(episodes.index.tolist())
    for path in sorted((root / "data").glob("*/*.parquet")):
        name = path.relative_to(root).as_posix()
        if name in episodes.files:
            _trim(path, episodes, episodes.files.index(name))
        elif _holds_only(path, listed):
            path.unlink()
        else:
            path.rename(path.with_name(path.name + ORPHAN_SUFFIX))


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
    """Check that a dataset has the layout and the kinds of features that the writer goes on with.

    Raises:
        DatasetError: it is of an older version, its files lie under other names, or it has features
            that are not writable.
    """
    if info["codebase_version"] != layout.VERSIONS[-1]:
        raise DatasetError(
            f"{root} is a {info['codebase_version']} dataset; only {layout.VERSIONS[-1]} can be "
            "extended: write a new one, or convert it with LeRobot's converter"
        )
    features = Features.from_info(info.get("features"))
    paths = {"data_path": layout.DATA_PATH}
    if any(feature.dtype == "video" for feature in features.values()):
        paths["video_path"] = layout.VIDEO_PATH
    for name, path in paths.items():
        if info.get(name) != path:
            raise DatasetError(f"{root} has {name} {info.get(name)!r}, not {path!r}")
    if lacking := [name for name in BOOKKEEPING if name not in features]:
        raise DatasetError(f"{root} declares no {lacking[0]!r}; it cannot be extended")
    recorded = features.select(name for name in features if name not in BOOKKEEPING)
    if reason := check_writable(recorded):
        raise DatasetError(f"cannot extend {root}: {reason}")
