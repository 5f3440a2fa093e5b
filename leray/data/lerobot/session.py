"""One writing session: episodes that wait, files that grow, and the order of the writes.

Each file is written whole or not at all, in this order: videos, frames, tasks, episodes metadata
(which makes the episode count), statistics, `info.json`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.encoded import EncodedPictures, Segment
from leray.data.lerobot.schema import episode_table, frame_schema, frame_table, tasks_table
from leray.data.lerobot.series import DataFiles, EpisodeFiles, FileNames, Series, write_groups
from leray.errors import DatasetError
from leray.files import write_json

if TYPE_CHECKING:
    from leray.data.lerobot.video_files import VideoFiles

_HALF_WAY = "a save failed half way"
_FINALIZED = "the writer is finalized"


@dataclass(frozen=True, slots=True)
class _Episode:
    """An episode that waits to be written."""

    frames: pa.Table
    row: pa.Table
    stats: statistics.Statistics
    segments: dict[str, Segment]


class Session:
    """Writes episodes into new files of a dataset folder.

    Args:
        root: the dataset's folder.
        info: content of `info.json`; kept up to date, with keys that are not known.
        tasks: task strings by task index.
        stats: statistics of the frames that are there already.
        episodes_per_commit: how many episodes go to disk together.

    Raises:
        DatasetError: a file is not named like one of its series.
    """

    def __init__(
        self,
        root: Path,
        info: dict[str, Any],
        *,
        tasks: Sequence[str],
        stats: statistics.Statistics,
        episodes_per_commit: int,
    ) -> None:
        self.root = root
        self.fps = Fraction(info["fps"]).limit_denominator(1001)
        """Frames per second."""
        self._info = info
        self._stored = Features.from_info(info["features"])
        self._schema = frame_schema(self._stored)
        self._tasks = {task: index for index, task in enumerate(tasks)}
        self._tasks_on_disk = len(self._tasks)
        self._stats = stats
        self._pending: list[_Episode] = []
        self._episodes_per_commit = episodes_per_commit
        self._unusable = ""
        data = self._names(layout.DATA_PATH)
        limit_bytes = info["data_files_size_in_mb"] * 2**20
        self._data = DataFiles(data, data.next_number(), limit_bytes)
        self._videos = {
            name: self._video_files(name)
            for name, feature in self._stored.items()
            if feature.dtype == "video"
        }
        rows = self._names(layout.EPISODES_PATH)
        series: list[Series] = [self._data, *self._videos.values()]
        self._episodes = EpisodeFiles(rows, rows.next_number(), series)

    @property
    def num_episodes(self) -> int:
        """Number of saved episodes, those of earlier sessions included."""
        return int(self._info["total_episodes"]) + len(self._pending)

    @property
    def num_frames(self) -> int:
        """Number of frames in saved episodes."""
        return int(self._info["total_frames"]) + sum(len(e.frames) for e in self._pending)

    @property
    def is_usable(self) -> bool:
        """False once it is finalized, or a write has failed."""
        return not self._unusable

    @property
    def is_finalized(self) -> bool:
        """True when everything is written and merged."""
        return self._unusable == _FINALIZED

    def check_usable(self) -> None:
        """Check that episodes can be added.

        Raises:
            DatasetError: a write has failed, or the session is finalized.
        """
        if self._unusable:
            raise DatasetError(f"{self.root}: {self._unusable}; use DatasetWriter.resume to go on")

    def temporary_video(self, camera: str) -> Path:
        """Return where to make the video of the next episode."""
        return self._videos[camera].temporary(self.num_episodes)

    def add(
        self,
        columns: Mapping[str, NDArray[Any]],
        tasks: Sequence[str],
        pictures: EncodedPictures,
        timestamps: NDArray[Any] | None = None,
    ) -> int:
        """Save an episode that fits the features, and return its index.

        Args:
            columns: numbers and text [frames, *frame_shape].
            tasks: the task of each frame.
            pictures: of every visual feature.
            timestamps: seconds from the start [frames]; None for a constant rate.

        Raises:
            OSError: the disk is full; the session cannot go on.
        """
        distinct = list(dict.fromkeys(tasks))
        for task in distinct:
            self._tasks.setdefault(task, len(self._tasks))
        index, first = self.num_episodes, self.num_frames
        count = np.arange(len(tasks), dtype=np.int64)
        seconds = count / self._info["fps"] if timestamps is None else timestamps
        complete: dict[str, Any] = {
            **columns,
            **pictures.images,
            names.TIMESTAMP: seconds.astype(self._stored[names.TIMESTAMP].dtype),
            names.FRAME_INDEX: count,
            names.EPISODE_INDEX: np.full(len(tasks), index, dtype=np.int64),
            names.INDEX: first + count,
            names.TASK_INDEX: np.array([self._tasks[task] for task in tasks], dtype=np.int64),
        }
        stats = {
            name: statistics.compute(complete[name]) if feature.is_numeric else pictures.stats[name]
            for name, feature in self._stored.items()
            if feature.is_numeric or feature.is_visual
        }
        frames = frame_table(self._stored, self._schema, complete)
        row = episode_table(index, distinct, first, len(tasks), stats)
        self._pending.append(_Episode(frames, row, stats, pictures.segments))
        if len(self._pending) >= self._episodes_per_commit:
            self._commit()
        return index

    def finalize(self) -> None:
        """Write what waits and merge the session's files.

        Raises:
            OSError: the disk is full; the session cannot go on.
        """
        self._commit()
        self._unusable = _HALF_WAY
        self._merge([self._data, *self._videos.values()])
        if self.num_episodes:  # after a kill, its episodes may not be counted yet
            self._write_summary()
        self._unusable = _FINALIZED

    def _commit(self) -> None:
        """Bring waiting episodes to disk; the episodes metadata is what makes them count."""
        if not self._pending:
            return
        self._unusable = _HALF_WAY
        while self._pending:
            batch = self._pending[: self._fitting()]
            for camera, videos in self._videos.items():
                videos.append([episode.segments[camera] for episode in batch])
            self._data.append([episode.frames for episode in batch])
            if len(self._tasks) > self._tasks_on_disk:
                write_groups(self.root / layout.TASKS_PARQUET, [tasks_table(list(self._tasks))])
                self._tasks_on_disk = len(self._tasks)
            self._episodes.append([episode.row for episode in batch])
            self._info["total_episodes"] += len(batch)
            self._info["total_frames"] += sum(len(episode.frames) for episode in batch)
            self._stats = statistics.aggregate([self._stats, *(e.stats for e in batch)])
            del self._pending[: len(batch)]
        self._write_summary()
        self._unusable = ""

    def _fitting(self) -> int:
        """Return how many waiting episodes fit the files; full files are ended first."""
        parts: list[tuple[DataFiles | VideoFiles, list[Any]]] = [
            (self._data, [episode.frames for episode in self._pending])
        ]
        for camera, videos in self._videos.items():
            parts.append((videos, [episode.segments[camera] for episode in self._pending]))
        full = [files for files, waiting in parts if not files.has_room(waiting[:1])]
        if full:
            self._merge(full)
        count = 1
        while count < len(self._pending) and all(
            files.has_room(waiting[: count + 1]) for files, waiting in parts
        ):
            count += 1
        return count

    def _merge(self, full: Sequence[Series]) -> None:
        """End files: make one of the segments of each; `series` tells why in this order."""
        for files in full:
            files.merge()
        self._episodes.merge()
        for files in full:
            files.finish()

    def _write_summary(self) -> None:
        for camera, videos in self._videos.items():
            entry = self._info["features"][camera]
            if not entry.get("info") and (described := videos.describe(self._info["fps"])):
                entry["info"] = described
        self._info["total_tasks"] = len(self._tasks)
        self._info["splits"] = {"train": f"0:{self._info['total_episodes']}"}
        write_json(self.root / layout.STATS, statistics.to_json(self._stats))
        write_json(self.root / layout.INFO, self._info)

    def _names(self, template: str, video_key: str = "") -> FileNames:
        return FileNames(self.root, template, self._info["chunks_size"], video_key)

    def _video_files(self, camera: str) -> "VideoFiles":
        from leray.data.lerobot.video_files import VideoFiles  # PyAV only where there are videos

        names = self._names(layout.VIDEO_PATH, camera)
        limit_bytes = self._info["video_files_size_in_mb"] * 2**20
        return VideoFiles(names, names.next_number(), limit_bytes, self.fps)
