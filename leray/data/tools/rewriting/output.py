"""Writing the rows, episodes and statistics of a new v3.0 dataset."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from leray.data import statistics
from leray.data.lerobot import layout
from leray.data.lerobot.series import FileNames
from leray.data.statistics import Statistics
from leray.data.tools.rewriting.clips import Place
from leray.data.tools.rewriting.content import Content
from leray.data.tools.rewriting.frames import EpisodeFrames, FrameBuilder
from leray.data.tools.rewriting.image_stats import PictureStatistics
from leray.data.tools.rewriting.parquet_files import ParquetFiles
from leray.data.tools.rewriting.rows import episode_rows, stored_schema
from leray.data.tools.rewriting.source import Source
from leray.data.tools.rewriting.totals import TotalStatistics

_EPISODES_AT_ONCE = 100
_TOLERANCE_S = 1e-4
"""How far LeRobot lets a frame of a video be from its timestamp."""


@dataclass(frozen=True)
class Written:
    """What `write_rows` has written."""

    num_episodes: int
    num_frames: int
    stats: Statistics
    num_jittering: int
    """Episodes whose timestamps LeRobot does not find in a video of constant rate."""


def write_rows(
    folder: Path,
    sources: Sequence[Source],
    content: Content,
    *,
    places: Mapping[str, Sequence[Place]],
    pictures: PictureStatistics,
    limit_bytes: int,
    retime: bool,
    on_episode: Callable[[], None],
) -> Written:
    """Write the data files and the episodes metadata, one row group per episode.

    Args:
        folder: of the new dataset.
        sources: what it is made of, in order.
        content: what it declares.
        places: per video feature, where each episode will lie.
        pictures: statistics of the sources' pictures.
        limit_bytes: size that a data file should not reach.
        retime: whether to count timestamps anew.
        on_episode: called after each episode.

    Raises:
        DatasetError: a source is damaged.
        OSError: the disk is full.
    """
    builder = FrameBuilder(content, stored_schema(sources[0].metadata), retime=retime)
    totals = TotalStatistics()
    data_names = FileNames(folder, layout.DATA_PATH, layout.CHUNKS_SIZE)
    episodes = _EpisodeRows(folder, places, limit_bytes)
    jittering = 0
    with ParquetFiles(data_names, limit_bytes) as data, episodes:
        for number, source in enumerate(sources):
            positions = source.positions
            rows = episode_rows(source.metadata, positions, builder.columns(source))
            for position, table in zip(positions.tolist(), rows, strict=True):
                episode = builder.build(source, position, table)
                stats = {n: statistics.compute(array) for n, array in episode.numbers.items()}
                for camera in content.cameras:
                    stats[camera] = pictures.get(number, position, camera)
                file = data.make_room(len(episode.table))
                data.append(episode.table)
                episodes.add(episode, stats, file)
                totals.add(episode.numbers, stats)
                jittering += episode.timestamp_error_s > _TOLERANCE_S
                on_episode()
            pictures.close()
    return Written(episodes.num_episodes, episodes.num_frames, totals.result(), jittering)


class _EpisodeRows:
    """The episodes metadata, written some episodes at a time; used in a `with` block."""

    def __init__(
        self, folder: Path, places: Mapping[str, Sequence[Place]], limit_bytes: int
    ) -> None:
        self._names = FileNames(folder, layout.EPISODES_PATH, layout.CHUNKS_SIZE)
        self._data_names = FileNames(folder, layout.DATA_PATH, layout.CHUNKS_SIZE)
        self._places = places
        self._files = ParquetFiles(self._names, limit_bytes)
        self._rows: list[dict[str, Any]] = []
        self._data_files: list[int] = []
        self.num_episodes = self.num_frames = 0

    def add(self, episode: EpisodeFrames, stats: Statistics, data_file: int) -> None:
        row = {
            "episode_index": self.num_episodes,
            "tasks": episode.tasks,
            "length": len(episode.table),
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + len(episode.table),
        }
        for name, entry in stats.items():
            row |= {f"stats/{name}/{key}": value.tolist() for key, value in entry.items()}
        self._rows.append(row)
        self._data_files.append(data_file)
        self.num_episodes += 1
        self.num_frames += len(episode.table)
        if len(self._rows) == _EPISODES_AT_ONCE:
            self._write()

    def __enter__(self) -> "_EpisodeRows":
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._rows:
            self._write()
        self._files.__exit__(*error)

    def _write(self) -> None:
        count = len(self._rows)
        first = self.num_episodes - count
        columns: dict[str, list[Any]] = {
            name: [row[name] for row in self._rows] for name in self._rows[0]
        }
        for camera, places in self._places.items():
            here = places[first : self.num_episodes]
            prefix = f"videos/{camera}"
            columns |= self._names.columns(prefix, [place.file for place in here])
            columns[f"{prefix}/from_timestamp"] = [place.from_s for place in here]
            columns[f"{prefix}/to_timestamp"] = [place.to_s for place in here]
        columns |= self._data_names.columns("data", self._data_files)
        number = self._files.make_room(count)
        columns |= self._names.columns("meta/episodes", [number] * count)
        self._files.append(pa.table(columns))
        self._rows, self._data_files = [], []
