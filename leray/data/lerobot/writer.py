"""Writing LeRobot v3.0 datasets of numbers and text, safe against being killed.

A saved episode is on disk when the call returns, in files that any reader of the format opens. A
save writes in this order, each file whole or not at all: frames, tasks, episodes metadata (which
makes the episode count), statistics, `info.json`. `series` says how files grow, `recovery` what a
kill may leave.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names, statistics
from leray.data.features import Features
from leray.data.lerobot import layout
from leray.data.lerobot.episodes import episodes_files
from leray.data.lerobot.frames import FrameBuffer, check_episode
from leray.data.lerobot.metadata import read_info
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.recovery import (
    check_resumable,
    current_statistics,
    next_number,
    recover,
)
from leray.data.lerobot.schema import (
    BOOKKEEPING,
    check_writable,
    episode_table,
    frame_schema,
    frame_table,
    tasks_table,
)
from leray.data.lerobot.series import DataFiles, EpisodeFiles, write_groups
from leray.errors import DatasetError
from leray.files import write_json

_FINALIZED = "the writer is finalized"
_HALF_WAY = "a save failed half way"


class DatasetWriter:
    """Records episodes into a dataset folder; made by `create` or `resume`.

    One writer per dataset at a time. Leaving the `with` block finalizes; after an error inside it,
    the frames of the unsaved episode are dropped and the saved ones are kept.

    Example:
        >>> features = Features({"action": Feature("float32", (2,))})  # doctest: +SKIP
        >>> with DatasetWriter.create("outputs/demo", fps=10, features=features) as writer:
        ...     writer.add_frame({"action": np.zeros(2, np.float32)}, task="reach")
        ...     writer.save_episode()  # doctest: +SKIP
    """

    def __init__(
        self,
        root: Path,
        info: dict[str, Any],
        *,
        tasks: Sequence[str] = (),
        stats: statistics.Statistics | None = None,
        episodes_per_commit: int = 1,
    ) -> None:
        self.root = root
        """The dataset's folder."""
        declared = Features.from_info(info["features"])
        self.features = declared.select(name for name in declared if name not in BOOKKEEPING)
        """What every frame holds, without the bookkeeping columns."""
        self._info = info
        self._stored = declared
        self._schema = frame_schema(declared)
        self._tasks = {task: index for index, task in enumerate(tasks)}
        self._tasks_on_disk = len(self._tasks)
        self._stats = stats or {}
        self._buffer = FrameBuffer(self.features)
        self._pending: list[tuple[pa.Table, pa.Table, statistics.Statistics]] = []
        self._episodes_per_commit = episodes_per_commit
        self._unusable = ""
        chunks_size = info["chunks_size"]
        self._data = DataFiles(
            lambda number: root / layout.numbered_path(layout.DATA_PATH, number, chunks_size),
            next_number(sorted((root / "data").glob("*/*.parquet")), chunks_size),
            info["data_files_size_in_mb"] * 2**20,
        )
        self._episodes = EpisodeFiles(
            lambda number: root / layout.numbered_path(layout.EPISODES_PATH, number, chunks_size),
            next_number(episodes_files(root), chunks_size),
            chunks_size,
        )

    @classmethod
    def create(
        cls,
        root: str | Path,
        *,
        fps: int,
        features: Features,
        robot_type: str | None = None,
        data_files_size_in_mb: int = layout.DATA_FILES_SIZE_IN_MB,
        episodes_per_commit: int = 1,
    ) -> Self:
        """Create a dataset in a new folder.

        Args:
            root: a folder that does not exist yet, or is empty.
            fps: frames per second, a positive integer.
            features: what every frame holds; bookkeeping columns (`timestamp`, ...) are added.
            robot_type: the robot's name.
            data_files_size_in_mb: size of a data file (MiB) before the next one is begun.
            episodes_per_commit: how many episodes go to disk together. 1 keeps every saved episode
                through a kill; more is faster for bulk conversion, and a kill loses those not yet
                written.

        Raises:
            DatasetError: the folder is in use, or an option or a feature is not writable.
        """
        root = Path(root)
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise DatasetError(f"{root} exists and is not empty; resume it, or give a new folder")
        for name, value in (("fps", fps), ("data_files_size_in_mb", data_files_size_in_mb)):
            if type(value) is not int or value < 1:
                raise DatasetError(f"{name} must be a positive integer, not {value!r}")
        if reason := check_writable(features):
            raise DatasetError(f"cannot create {root}: {reason}")
        info = {
            "codebase_version": layout.VERSIONS[-1],
            "robot_type": robot_type,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": layout.CHUNKS_SIZE,
            "data_files_size_in_mb": data_files_size_in_mb,
            "video_files_size_in_mb": layout.VIDEO_FILES_SIZE_IN_MB,
            "fps": fps,
            "splits": {},
            "data_path": layout.DATA_PATH,
            "video_path": None,
            "features": Features({**features, **BOOKKEEPING}).to_info(),
        }
        write_json(root / layout.INFO, info)
        return cls(root, info, episodes_per_commit=_positive(episodes_per_commit))

    @classmethod
    def resume(cls, root: str | Path, *, episodes_per_commit: int = 1) -> Self:
        """Go on writing a v3.0 dataset, in new files; leftovers of a kill are removed first.

        Raises:
            DatasetError: there is no v3.0 dataset, it is damaged, or it has features that are not
                writable.
        """
        root = Path(root)
        info = read_info(root)
        check_resumable(root, info)
        declared = Features.from_info(info.get("features"))
        if lacking := [name for name in BOOKKEEPING if name not in declared]:
            raise DatasetError(f"{root} declares no {lacking[0]!r}; it cannot be extended")
        if reason := check_writable(
            declared.select(name for name in declared if name not in BOOKKEEPING)
        ):
            raise DatasetError(f"cannot extend {root}: {reason}")
        recover(root, info)
        reader = DatasetReader.open(root)
        if absent := [n for n in declared if n not in reader.features and n not in BOOKKEEPING]:
            raise DatasetError(f"{root} declares feature {absent[0]!r} but has no column for it")
        info["total_episodes"], info["total_frames"] = reader.num_episodes, reader.num_frames
        for key, default in (
            ("chunks_size", layout.CHUNKS_SIZE),
            ("data_files_size_in_mb", layout.DATA_FILES_SIZE_IN_MB),
        ):
            info[key] = _positive(info.get(key, default), f"{root}: {key}")
        return cls(
            root,
            info,
            tasks=reader.tasks,
            stats=current_statistics(reader),
            episodes_per_commit=_positive(episodes_per_commit),
        )

    @property
    def num_episodes(self) -> int:
        """Number of saved episodes, those of earlier sessions included."""
        return int(self._info["total_episodes"]) + len(self._pending)

    @property
    def num_frames(self) -> int:
        """Number of frames in saved episodes."""
        return int(self._info["total_frames"]) + sum(len(table) for table, _, _ in self._pending)

    def add_frame(self, frame: Mapping[str, Any], task: str) -> None:
        """Add one frame to the episode being recorded; values are copied.

        Args:
            frame: exactly the declared features, each of its declared dtype and shape (a scalar may
                be 0-d).
            task: what the robot is asked to do.

        Raises:
            FeatureMismatchError: the frame does not fit; one line names every difference.
            DatasetError: the writer is finalized.
        """
        self._check_usable()
        self._buffer.add(frame, task)

    def save_episode(self) -> int:
        """Save the recorded frames as an episode and return its index.

        Raises:
            DatasetError: there are no frames, or the writer is finalized.
            OSError: the disk is full; earlier episodes are untouched, go on with `resume`.
        """
        self._check_usable()
        if not len(self._buffer):
            raise DatasetError("there is no frame to save; call add_frame first")
        columns, tasks = self._buffer.columns(), self._buffer.tasks
        self._buffer.clear()
        return self._save(columns, tasks)

    def add_episode(self, columns: Mapping[str, Any], task: str) -> int:
        """Save a whole episode given as arrays and return its index.

        Args:
            columns: per declared feature an array [frames, *shape], or [frames] for scalars, in its
                exact dtype.
            task: what the robot is asked to do.

        Raises:
            FeatureMismatchError: the columns do not fit; one line names every difference.
            DatasetError: the writer is finalized, or frames of another episode wait to be saved.
            OSError: the disk is full; earlier episodes are untouched, go on with `resume`.
        """
        self._check_usable()
        self._check_nothing_waits()
        arrays = check_episode(self.features, columns, task)
        frames = len(next(iter(arrays.values())))
        return self._save(arrays, [task] * frames)

    def clear_episode_buffer(self) -> None:
        """Drop the frames that were added but not saved."""
        self._buffer.clear()

    def finalize(self) -> None:
        """Write what is pending and merge the session's files; nothing can be added afterwards.

        Raises:
            DatasetError: frames were added but neither saved nor cleared.
            OSError: the disk is full; saved episodes are untouched, go on with `resume`.
        """
        if self._unusable == _FINALIZED:
            return
        self._check_usable()
        self._check_nothing_waits()
        self._commit()
        self._unusable = _HALF_WAY
        self._merge()
        self._unusable = _FINALIZED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.clear_episode_buffer()
            if self._unusable:
                return
        self.finalize()

    def _save(self, columns: dict[str, NDArray[Any]], tasks: Sequence[str]) -> int:
        distinct = list(dict.fromkeys(tasks))
        for task in distinct:
            self._tasks.setdefault(task, len(self._tasks))
        index, first = self.num_episodes, self.num_frames
        count = np.arange(len(tasks), dtype=np.int64)
        complete = {
            **columns,
            names.TIMESTAMP: (count / self._info["fps"]).astype(np.float32),
            names.FRAME_INDEX: count,
            names.EPISODE_INDEX: np.full(len(tasks), index, dtype=np.int64),
            names.INDEX: first + count,
            names.TASK_INDEX: np.array([self._tasks[task] for task in tasks], dtype=np.int64),
        }
        stats = {
            name: statistics.compute(complete[name])
            for name, feature in self._stored.items()
            if feature.is_numeric
        }
        frames = frame_table(self._stored, self._schema, complete)
        row = episode_table(index, distinct, first, len(tasks), stats)
        self._pending.append((frames, row, stats))
        if len(self._pending) >= self._episodes_per_commit:
            self._commit()
        return index

    def _commit(self) -> None:
        """Bring pending episodes to disk; the episodes metadata is what makes them count."""
        if not self._pending:
            return
        self._unusable = _HALF_WAY
        while self._pending:
            batch = self._fitting()
            tables, rows, stats = zip(*self._pending[:batch], strict=True)
            data_file = self._data.append(tables)
            if len(self._tasks) > self._tasks_on_disk:
                write_groups(self.root / layout.TASKS_PARQUET, [tasks_table(list(self._tasks))])
                self._tasks_on_disk = len(self._tasks)
            self._episodes.append(rows, data_file)
            self._info["total_episodes"] += batch
            self._info["total_frames"] += sum(map(len, tables))
            self._stats = statistics.aggregate([self._stats, *stats])
            del self._pending[:batch]
        self._write_summary()
        self._unusable = ""

    def _fitting(self) -> int:
        """Return how many pending episodes fit the data file; a full one is ended first."""
        tables = [table for table, _, _ in self._pending]
        if not self._data.has_room(tables[:1]):
            self._merge()
        count = 1
        while count < len(tables) and self._data.has_room(tables[: count + 1]):
            count += 1
        return count

    def _merge(self) -> None:
        """Make one data file and one episodes file of the segments; older segments go last."""
        self._data.merge()
        self._episodes.merge(self._data.base)
        self._data.finish()

    def _write_summary(self) -> None:
        self._info["total_tasks"] = len(self._tasks)
        self._info["splits"] = {"train": f"0:{self._info['total_episodes']}"}
        write_json(self.root / layout.STATS, statistics.to_json(self._stats))
        write_json(self.root / layout.INFO, self._info)

    def _check_usable(self) -> None:
        if self._unusable:
            raise DatasetError(f"{self.root}: {self._unusable}; use DatasetWriter.resume to go on")

    def _check_nothing_waits(self) -> None:
        if len(self._buffer):
            raise DatasetError(
                f"{len(self._buffer)} frames are not saved; "
                "call save_episode or clear_episode_buffer first"
            )


def _positive(value: Any, name: str = "episodes_per_commit") -> int:
    if type(value) is not int or value < 1:
        raise DatasetError(f"{name} must be a positive integer, not {value!r}")
    return value
