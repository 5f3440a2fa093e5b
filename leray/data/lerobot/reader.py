"""Reading LeRobot datasets of versions 2.0, 2.1 and 3.0 as contiguous columns."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leray.data import statistics
from leray.data.features import Features
from leray.data.image_statistics import ImageStatistics, is_std_possible, sampled_frames
from leray.data.lerobot import layout
from leray.data.lerobot.columns import ColumnLoader, Columns
from leray.data.lerobot.folder import open_folder
from leray.data.lerobot.metadata import Metadata, read_metadata
from leray.errors import DatasetError

if TYPE_CHECKING:
    from leray.data.lerobot.frame_reader import FrameReader

_IMAGE_STATISTICS_FRAMES = 2000
"""At most this many pictures of a camera are looked at to find its statistics."""


class DatasetReader:
    """A LeRobot dataset folder, or some episodes of one.

    Opening reads metadata only; `read` brings columns into memory and checks them against the
    metadata on the way, `read_frames` decodes pictures. It can be pickled; for one thread.

    Example:
        >>> dataset = DatasetReader.open("outputs/demonstrations")  # doctest: +SKIP
        >>> actions = dataset.read(["action"])["action"]  # doctest: +SKIP
    """

    metadata: Metadata
    """What the whole dataset says about itself, whichever episodes are selected."""

    def __init__(self, metadata: Metadata, selected: NDArray[np.int64]) -> None:
        self.metadata = metadata
        self._selected = selected

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.metadata, self._selected)

    @classmethod
    def open(
        cls,
        root: str | Path,
        *,
        episodes: Iterable[int] | None = None,
        filesystem: Any = None,
    ) -> "DatasetReader":
        """Open a dataset folder of version 2.0, 2.1 or 3.0.

        Args:
            root: the folder that holds `meta/` and `data/`, or its fsspec URL.
            episodes: indices of the episodes to read, in any order (they are read ascending); all
                when None.
            filesystem: the pyarrow or fsspec filesystem that `root` is a path of; None for local
                folders and URLs.

        Raises:
            DatasetError: there is no dataset, it is damaged or of another version, or an episode
                does not exist.
        """
        metadata = read_metadata(open_folder(root, filesystem))
        return cls(metadata, _select(metadata, episodes))

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.metadata.root

    @property
    def version(self) -> str:
        """`v2.0`, `v2.1` or `v3.0`."""
        return self.metadata.version

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.metadata.fps

    @property
    def robot_type(self) -> str | None:
        """The robot that recorded the dataset, as it names it."""
        return self.metadata.robot_type

    @property
    def features(self) -> Features:
        """The features that can be read, cameras included, bookkeeping columns excluded."""
        return self.metadata.features

    @property
    def cameras(self) -> list[str]:
        """Names of the features that are pictures."""
        return [name for name, feature in self.features.items() if feature.is_visual]

    @property
    def tasks(self) -> list[str]:
        """Task strings by task index."""
        return self.metadata.tasks

    @property
    def findings(self) -> list[str]:
        """Oddities that do not prevent reading, one line each."""
        return self.metadata.findings

    @property
    def episodes(self) -> list[int]:
        """Indices of the selected episodes, ascending."""
        indices: list[int] = self.metadata.episodes.index[self._selected].tolist()
        return indices

    @property
    def num_episodes(self) -> int:
        """Number of selected episodes."""
        return len(self._selected)

    @property
    def num_frames(self) -> int:
        """Number of frames in the selected episodes."""
        return int(self.metadata.episodes.length[self._selected].sum())

    @cached_property
    def stats(self) -> statistics.Statistics:
        """Statistics of the whole dataset by feature; what its files lack is computed exactly.

        Pictures are there only where the stored statistics are sound; see `image_stats`.

        Raises:
            DatasetError: the statistics files, or the data needed to complete them, are damaged.
        """
        stats = _stored_statistics(self.metadata)
        for camera in self.cameras:
            if camera in stats and (reason := _unsound(stats[camera])):
                del stats[camera]
                self.findings.append(f"stored statistics of {camera} {reason}; they are not used")
        lacking = [
            name
            for name, feature in self.features.items()
            if feature.is_numeric and not statistics.fits(stats.get(name, {}), feature.shape)
        ]
        if lacking and len(self.metadata.episodes):
            everything = DatasetReader(self.metadata, _select(self.metadata, None))
            for name in lacking:
                computed = statistics.compute(everything.read([name])[name])
                stored = stats.get(name, {})
                kept = {k: v for k, v in stored.items() if v.shape == computed[k].shape}
                stats[name] = computed | kept
            self.findings.append(
                f"stored statistics are incomplete, computed for: {', '.join(lacking)}"
            )
        return stats

    def image_stats(self, camera: str) -> statistics.FeatureStatistics:
        """Return a camera's statistics [channels, 1, 1] in [0, 1]: the stored ones if sound.

        Otherwise pictures spread over all episodes are decoded, at most 2,000.

        Raises:
            DatasetError: there is no such camera, or its pictures cannot be read.
        """
        self._check_camera(camera)
        if camera in self.stats:
            return self.stats[camera]
        everything = DatasetReader(self.metadata, _select(self.metadata, None))
        if not everything.num_frames:
            raise DatasetError(f"{self.root} has no frames: {camera} has no statistics")
        lengths = self.metadata.episodes.length
        starts = np.cumsum(lengths) - lengths
        frames = np.concatenate(
            [first + sampled_frames(int(n)) for first, n in zip(starts, lengths, strict=True)]
        )
        thinned = frames[:: -(-len(frames) // _IMAGE_STATISTICS_FRAMES)]
        gathered = ImageStatistics(self.features[camera].image_shape[2])
        for part in np.array_split(thinned, -(-len(thinned) // 32)):
            for picture in everything.read_frames(camera, part):
                gathered.add(picture)
        everything.close()
        self.stats[camera] = gathered.result()
        return self.stats[camera]

    def read(self, keys: Sequence[str] | None = None) -> Columns:
        """Read columns of the selected episodes; only the columns asked for are decoded.

        Peak memory is the result plus one batch of rows.

        Args:
            keys: names of features; all but cameras and images when None.

        Raises:
            DatasetError: a key cannot be read as a column, a file is damaged, or its rows disagree
                with the metadata.
        """
        return ColumnLoader(self.metadata, self._selected, self._readable(keys)).load()

    def grouped(self, frames: int) -> Iterator["DatasetReader"]:
        """Yield the selected episodes in consecutive groups of about so many frames."""
        lengths = self.metadata.episodes.length[self._selected]
        group = (np.cumsum(lengths) - 1) // frames
        for part in np.split(self._selected, np.flatnonzero(np.diff(group)) + 1):
            yield DatasetReader(self.metadata, part)

    def read_frames(
        self, camera: str, frames: NDArray[np.int64], *, tolerance_s: float | None = None
    ) -> NDArray[np.uint8]:
        """Decode pictures of one camera; each run of video between key frames at most once.

        A video's frame is found by counting from the episode's first one, so timestamps that jitter
        do no harm.

        Args:
            camera: name of a visual feature.
            frames: positions [n] among the selected episodes' frames; any order, repeats allowed.
            tolerance_s: refuse video frames shown further from their stored timestamp than this.

        Returns:
            uint8 [n, height, width, channels], RGB, whichever axis order the dataset declares.

        Raises:
            DatasetError: there is no such camera or frame, a file is missing or damaged, or the
                tolerance is broken.
        """
        self._check_camera(camera)
        frames = np.asarray(frames, dtype=np.int64)
        if len(frames) and not 0 <= frames.min() <= frames.max() < self.num_frames:
            raise DatasetError(
                f"{self.root}: frames {frames.min()} to {frames.max()} were asked for; there are 0 "
                f"to {self.num_frames - 1}"
            )
        return self._frames.read(camera, frames, tolerance_s=tolerance_s)

    def encoded_images(self, camera: str) -> Iterator[bytes]:
        """Yield the encoded pictures of an image column, frame by frame, in bounded memory.

        Raises:
            DatasetError: there is no such column, or a file is damaged.
        """
        self._check_camera(camera)
        if self.features[camera].dtype != "image":
            raise DatasetError(f"{self.root}: {camera} is a video; use read_frames")
        from leray.data.lerobot.images import iterate_images  # Pillow only where there are images

        yield from iterate_images(self.metadata, self._selected, camera)

    def gop(self, camera: str) -> int:
        """Return how many frames lie between key frames of a camera's first video; 1 for images.

        Raises:
            DatasetError: there is no such camera, or its video is missing or damaged.
        """
        self._check_camera(camera)
        return self._frames.gop(camera)

    def close(self) -> None:
        """Close the video files that `read_frames` holds open."""
        if "_frames" in self.__dict__:
            self._frames.close()
            del self.__dict__["_frames"]

    @cached_property
    def _frames(self) -> "FrameReader":
        from leray.data.lerobot.frame_reader import FrameReader  # PyAV only where there are frames

        return FrameReader(self.metadata, self._selected)

    def _check_camera(self, camera: str) -> None:
        if camera not in self.cameras:
            raise DatasetError(
                f"{self.root} has no camera {camera!r}; there are: "
                f"{', '.join(self.cameras) or 'none'}"
            )
        feature = self.features[camera]
        if len(feature.shape) != 3 or feature.image_shape[2] not in (1, 3, 4):
            raise DatasetError(
                f"{self.root}: camera {camera!r} declares shape {list(feature.shape)}, pictures "
                "have three axes, and 1, 3 or 4 channels; correct meta/info.json"
            )

    def _readable(self, keys: Sequence[str] | None) -> Features:
        readable = [
            name for name, f in self.features.items() if f.is_numeric or f.dtype == "string"
        ]
        wanted = readable if keys is None else list(keys)
        if unknown := [key for key in wanted if key not in readable]:
            raise DatasetError(
                f"{self.root} has no column {unknown[0]!r}; "
                f"there are: {', '.join(readable) or 'none'}"
            )
        return self.features.select(wanted)


def _select(metadata: Metadata, episodes: Iterable[int] | None) -> NDArray[np.int64]:
    """Return the positions of episodes in the table, ascending."""
    index = metadata.episodes.index
    if episodes is None:
        return np.arange(len(index), dtype=np.int64)
    wanted = np.unique(np.fromiter(episodes, dtype=np.int64))
    unknown = np.setdiff1d(wanted, index)
    if len(unknown):
        there = f"0 to {index[-1]}" if len(index) else "none"
        raise DatasetError(f"{metadata.root} has no episode {unknown[0]}; there are: {there}")
    return np.searchsorted(index, wanted).astype(np.int64)


def _unsound(entry: statistics.FeatureStatistics) -> str:
    """Say why stored statistics of pictures cannot be used; empty when they can."""
    shape = entry["mean"].shape if "mean" in entry else ()
    if len(shape) != 3 or shape[1:] != (1, 1) or not set(statistics.KEYS[:5]) <= set(entry):
        return f"have shape {list(shape)}, not [channels, 1, 1]"
    if any(value.shape != shape for key, value in entry.items() if key != "count"):
        return "have different shapes"
    return "" if is_std_possible(entry) else "have a standard deviation below what is possible"


def _stored_statistics(metadata: Metadata) -> statistics.Statistics:
    path = metadata.root / layout.STATS
    try:
        if path.is_file():
            return statistics.from_json(layout.read_json(path))
        path = metadata.root / layout.EPISODES_STATS_JSONL
        if metadata.version == "v2.1" and path.is_file():
            rows = layout.read_json_lines(path)
            return statistics.aggregate(statistics.from_json(row.get("stats")) for row in rows)
    except DatasetError as error:
        raise error if str(path) in str(error) else DatasetError(f"{path}: {error}") from error
    return {}
