"""Pictures of a dataset's cameras by frame number, from videos or from encoded images."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature
from leray.data.lerobot.folder import is_local, open_binary
from leray.data.lerobot.images import (
    IMAGE_BATCH_ROWS,
    check_row_count,
    decode_image,
    image_bytes,
)
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.parquet import damage_reported, iterate_rows, open_parquet, to_numpy
from leray.data.lerobot.videos import VideoTable
from leray.data.video.cache import VideoCache
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError


class FrameReader:
    """Random access to the pictures of some episodes; for one thread, holds open video files.

    Args:
        metadata: of the whole dataset.
        selected: positions in its episode table [episodes], ascending.
        max_open: video files kept open at once.
    """

    def __init__(
        self, metadata: Metadata, selected: NDArray[np.int64], *, max_open: int = 16
    ) -> None:
        self._metadata = metadata
        self._selected = selected
        self._ends = np.cumsum(metadata.episodes.length[selected], dtype=np.int64)
        self._cache = VideoCache(max_open)

    def read(
        self, camera: str, frames: NDArray[np.int64], *, tolerance_s: float | None = None
    ) -> NDArray[np.uint8]:
        """Return pictures in the order asked for.

        A video's frame is found by counting from the episode's first one, so timestamps that jitter
        do no harm.

        Args:
            camera: name of a visual feature.
            frames: positions [n] among the selected episodes' frames; any order, repeats allowed.
            tolerance_s: refuse a video frame shown further from its stored timestamp than this.

        Returns:
            uint8 [n, height, width, channels], RGB.

        Raises:
            DatasetError: a file is missing or damaged, has too few frames, shows other sizes than
                declared, or breaks the tolerance.
        """
        episode = np.searchsorted(self._ends, frames, side="right")
        position = self._selected[episode]
        offset = frames - self._ends[episode] + self._metadata.episodes.length[position]
        if self._metadata.features[camera].dtype == "video":
            return self._read_videos(camera, position, offset, tolerance_s)
        out = self._allocate(camera, len(frames))
        for number, here in _groups(self._metadata.episodes.file[position]):
            path = self._metadata.root / self._metadata.episodes.files[number]
            rows = self._metadata.episodes.start[position[here]] + offset[here]
            for row, picture in self._pictures(path, camera, np.unique(rows)):
                out[here[rows == row]] = picture
        return out

    def _read_videos(
        self,
        camera: str,
        position: NDArray[np.int64],
        offset: NDArray[np.int64],
        tolerance_s: float | None,
    ) -> NDArray[np.uint8]:
        table = self._metadata.episodes.videos[camera]
        groups = list(_groups(table.file[position]))
        out = self._allocate(camera, len(position)) if len(groups) != 1 else None
        for number, here in groups:
            path = self._metadata.root / table.files[number]
            video = self._open(path)
            episodes, frames = (position, offset) if out is None else (position[here], offset[here])
            wanted = self._numbers(video, table, episodes, frames)
            if tolerance_s is not None:
                self._check_times(path, video, table, episodes, frames, tolerance_s)
            size = (video.height, video.width, 3)
            _check_size(path, size, self._metadata.features[camera], camera)
            pictures = video.read(wanted)
            if out is None:  # from one file: no copy
                return pictures
            out[here] = pictures
        assert out is not None
        return out

    def gop(self, camera: str) -> int:
        """Return how many frames lie between key frames of the first video; 1 for images.

        Raises:
            DatasetError: the video is missing or damaged.
        """
        table = self._metadata.episodes.videos.get(camera)
        if table is None or not len(self._selected):
            return 1
        video = self._open(self._metadata.root / table.files[int(table.file[self._selected[0]])])
        return int(np.diff(np.append(video.keyframes, video.num_frames)).max(initial=1))

    def close(self) -> None:
        """Close the open video files."""
        self._cache.close()

    def _allocate(self, camera: str, count: int) -> NDArray[np.uint8]:
        shape = self._metadata.features[camera].image_shape
        try:
            return np.empty((count, *shape), np.uint8)
        except (MemoryError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{self._metadata.root}: {count} pictures of {camera}, declared as {shape}, do not "
                "fit into memory; ask for fewer, or correct the shape in meta/info.json"
            ) from error

    def _open(self, path: Path) -> VideoReader:
        return self._cache.get(str(path), partial(open_video, path))

    def _numbers(
        self,
        video: VideoReader,
        table: VideoTable,
        position: NDArray[np.int64],
        offset: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the frame numbers in a video file of frames `offset` of episodes `position`."""
        different, which = np.unique(position, return_inverse=True)
        starts = table.start_s[different]
        if starts.max() > video.timestamps[-1] + 0.5 / self._metadata.fps:
            row = different[int(starts.argmax())]
            path = self._metadata.root / table.files[int(table.file[row])]
            raise DatasetError(
                f"{path} ends at {video.timestamps[-1]:.3f} s, before the start of episode "
                f"{self._metadata.episodes.index[row]} at {starts.max():.3f} s: copy the video "
                "again, or see `leray dataset check`"
            )
        first = np.array([video.frame_at(start) for start in starts.tolist()])
        numbers: NDArray[np.int64] = first[which] + offset
        if numbers.max() >= video.num_frames:
            lacking = int(numbers.argmax())
            index = self._metadata.episodes.index[position[lacking]]
            path = self._metadata.root / table.files[int(table.file[position[lacking]])]
            raise DatasetError(
                f"{path} has {video.num_frames} frames; frame {offset[lacking]} of episode {index} "
                f"would be number {numbers[lacking]}: copy the video again, or see "
                "`leray dataset check`"
            )
        return numbers

    def _check_times(
        self,
        path: Path,
        video: VideoReader,
        table: VideoTable,
        position: NDArray[np.int64],
        offset: NDArray[np.int64],
        tolerance_s: float,
    ) -> None:
        stored = self._timestamps(position, offset)
        expected = table.start_s[position] + stored
        shown = video.timestamps[self._numbers(video, table, position, offset)]
        error = np.abs(shown - expected)
        if error.max() > tolerance_s:
            worst = int(error.argmax())
            index = self._metadata.episodes.index[position[worst]]
            raise DatasetError(
                f"{path}: frame {offset[worst]} of episode {index} is shown at {shown[worst]:.4f} "
                f"s, its timestamp says {expected[worst]:.4f} s; allowed is {tolerance_s} s: give "
                "a larger tolerance, or none to go by frame numbers"
            )

    def _timestamps(
        self, position: NDArray[np.int64], offset: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        episodes, stored = self._metadata.episodes, np.empty(len(position))
        feature = self._metadata.bookkeeping.get(names.TIMESTAMP)
        if feature is None:
            return offset / self._metadata.fps
        for number, here in _groups(episodes.file[position]):
            path = self._metadata.root / episodes.files[number]
            rows = episodes.start[position[here]] + offset[here]
            wanted = np.unique(rows)
            found = np.empty(len(wanted))
            with damage_reported(path), open_parquet(path) as file:
                check_row_count(path, file, int(wanted[-1]) + 1)
                for first, batch in iterate_rows(file, [names.TIMESTAMP], _runs(wanted)):
                    inside = (wanted >= first) & (wanted < first + batch.num_rows)
                    values = _column(path, batch, feature)
                    found[inside] = values[wanted[inside] - first]
            stored[here] = found[np.searchsorted(wanted, rows)]
        return stored

    def _pictures(
        self, path: Path, camera: str, rows: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        feature = self._metadata.features[camera]
        with damage_reported(path), open_parquet(path) as file:
            check_row_count(path, file, int(rows[-1]) + 1)
            for first, batch in iterate_rows(
                file, [camera], _runs(rows), batch_rows=IMAGE_BATCH_ROWS
            ):
                column = batch.column(0)
                for row in rows[(rows >= first) & (rows < first + batch.num_rows)].tolist():
                    where = f"{path}, row {row}, {camera}"
                    content = image_bytes(self._metadata.root, column[row - first].as_py(), where)
                    yield row, decode_image(content, feature, where)


def open_video(path: Path) -> VideoReader:
    """Open a video on any filesystem.

    Raises:
        DatasetError: it is missing, damaged or not a video.
    """
    if is_local(path):
        return VideoReader(path)
    try:
        return VideoReader(open_binary(path), name=str(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}; copy the dataset again") from error


def _column(path: Path, batch: pa.RecordBatch, feature: Feature) -> NDArray[Any]:
    try:
        return to_numpy(batch.column(0), feature)
    except ValueError as error:
        name = batch.schema.names[0]
        raise DatasetError(f"{path}: column {name!r} cannot be read: {error}") from error


def _groups(keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each distinct key with the positions that have it."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        yield int(keys[here[0]]), here


def _runs(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ascending distinct rows as half-open ranges [runs, 2]."""
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    return np.array([[run[0], run[-1] + 1] for run in np.split(rows, breaks)], dtype=np.int64)


def _check_size(path: Path, size: tuple[int, int, int], feature: Feature, camera: str) -> None:
    if size != feature.image_shape:
        found, declared = ("x".join(map(str, shape)) for shape in (size, feature.image_shape))
        raise DatasetError(
            f"{path} shows {found} (height, width, channels), {camera} declares {declared}: "
            "correct the shape in meta/info.json (`leray dataset check --repair=true` does)"
        )
