"""Samples of one dataset: frames with their windows in time, gathered a batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data import names
from leray.data.features import Feature, Features
from leray.data.lerobot.reader import DatasetReader
from leray.data.statistics import Statistics
from leray.data.stream.arrays import Arrays, FlatArray, open_arrays
from leray.data.stream.cache import cached_arrays, cached_images
from leray.data.stream.image_cache import ImageCache
from leray.data.windows import clamp, frame_offsets
from leray.errors import DatasetError

Batch = dict[str, NDArray[Any]]

DATASET_INDEX = "dataset_index"
"""Which dataset of a mix a sample is from."""

_ALWAYS = (names.TIMESTAMP, names.FRAME_INDEX, names.EPISODE_INDEX, names.TASK_INDEX)
_SHARE = 4
"""Arrays are memory-mapped while they take at most a fourth of the memory limit."""


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """What a sample holds; names are those of the stream, after renaming."""

    keys: Sequence[str] | None = None
    """Numeric features and cameras; None takes all."""
    delta_timestamps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Windows in seconds by feature; features without one give the frame itself."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """From the dataset's name of a feature to the stream's."""
    drop_n_last_frames: int = 0
    """Frames at the end of each episode that are no samples of their own; windows reach them."""
    tolerance_s: float | None = None
    """Refuse video frames shown further from their timestamp than this; None goes by number."""


class Samples:
    """The samples of one dataset, one per frame of its selected episodes but the dropped ones.

    Can be pickled: another process opens the dataset's files for itself. For one thread.

    Args:
        reader: the dataset.
        spec: what a sample holds.
        memory_limit_bytes: None reads the columns into memory; otherwise they are cached in files,
            memory-mapped if they fit well into the limit, read by position if not. Encoded
            pictures are always cached in files.

    Raises:
        ConfigError: a window does not fit the frame rate.
        DatasetError: a feature does not exist, or the dataset is damaged.
    """

    def __init__(
        self,
        reader: DatasetReader,
        spec: SampleSpec | None = None,
        *,
        memory_limit_bytes: int | None = None,
    ) -> None:
        self.reader, self.spec = reader, spec or SampleSpec()
        self._stored = _chosen_names(reader, self.spec)
        self.features = Features({key: reader.features[name] for key, name in self._stored.items()})
        """By stream name."""
        self._offsets = frame_offsets(self.spec.delta_timestamps, reader.fps)
        if unknown := [key for key in self._offsets if key not in self.features]:
            raise DatasetError(
                f"{reader.root}: delta_timestamps asks for {unknown[0]!r}; "
                f"there are: {', '.join(self.features)}"
            )
        own = {*names.BOOKKEEPING, DATASET_INDEX, *(k + names.PAD_SUFFIX for k in self._offsets)}
        if taken := [key for key in self.features if key in own]:
            raise DatasetError(
                f"{reader.root}: the name {taken[0]!r} is taken by the stream's own; give the "
                "feature another one with SampleSpec.rename"
            )
        self._memory_limit_bytes = memory_limit_bytes
        self._arrays = self._load()
        ends = self._arrays.ends
        lengths = np.diff(ends, prepend=0)
        kept = np.maximum(lengths - self.spec.drop_n_last_frames, 0)
        self._sample_ends = ends if (kept == lengths).all() else np.cumsum(kept)
        self._images = {
            key: ImageCache(cached_images(reader, self._stored[key]), feature)
            for key, feature in self.features.items()
            if feature.dtype == "image"
        }

    def __reduce__(self) -> tuple[Any, ...]:
        limit = 2**62 if self._memory_limit_bytes is None else self._memory_limit_bytes
        return _rebuild, (self.reader, self.spec, limit)

    def __len__(self) -> int:
        return int(self._sample_ends[-1]) if len(self._sample_ends) else 0

    @property
    def cameras(self) -> list[str]:
        """Stream names of the features that are pictures."""
        return [key for key, feature in self.features.items() if feature.is_visual]

    @property
    def episode_ends(self) -> NDArray[np.int64]:
        """Sample after the last of each episode [episodes]."""
        return self._sample_ends

    @property
    def tasks(self) -> list[str]:
        """Task strings by task index."""
        return self.reader.tasks

    @property
    def stats(self) -> Statistics:
        """Statistics by stream name; those of cameras only where the stored ones are sound."""
        stats = self.reader.stats
        return {key: stats[name] for key, name in self._stored.items() if name in stats}

    def window(self, key: str) -> int | None:
        """Return the length of a feature's window; None when it has no time axis."""
        return len(self._offsets[key]) if key in self._offsets else None

    def stored_name(self, key: str) -> str:
        """Return the dataset's own name of a feature."""
        return self._stored[key]

    @property
    def sample_bytes(self) -> int:
        """Memory of one sample, masks and bookkeeping included."""
        values = sum(
            (self.window(key) or 1) * feature.size * _dtype(feature).itemsize
            for key, feature in self.features.items()
        )
        return values + sum(map(len, self._offsets.values())) + 8 * len(names.BOOKKEEPING)

    def gather(self, samples: NDArray[np.int64]) -> Batch:
        """Return the samples with some numbers.

        Args:
            samples: [B], each in 0 .. len - 1; any order, repeats allowed.

        Returns:
            Per feature [B, *frame_shape], or [B, T, *frame_shape] with a window, then also
            `<key>_is_pad` bool [B, T]. Pictures are uint8 [B, (T,) height, width, channels].
            `timestamp`, `frame_index`, `episode_index`, `task_index`, and `index`, the frames'
            places among those of the selected episodes, come with them [B].

        Raises:
            DatasetError: a file is missing or damaged.
        """
        episode = np.searchsorted(self._sample_ends, samples, side="right")
        ends = self._arrays.ends[episode]
        starts = np.where(episode > 0, self._arrays.ends[episode - 1], 0)
        if self._sample_ends is not self._arrays.ends:
            samples = samples - self._sample_ends[episode - 1] * (episode > 0) + starts
        batch: Batch = {}
        for key, feature in self.features.items():
            offsets = self._offsets.get(key)
            if offsets is None:
                batch[key] = self._values(key, feature, samples)
                continue
            frames, padded = clamp(samples, offsets, starts, ends)
            batch[key] = (
                self._windows(self._arrays.columns[self._stored[key]], frames, padded, offsets)
                if not feature.is_visual
                else self._pictures(key, frames)
            )
            batch[key + names.PAD_SUFFIX] = padded
        for name in _ALWAYS:
            batch[name] = self._arrays.columns[name].take(samples)
        batch[names.INDEX] = samples
        return batch

    def _load(self) -> Arrays:
        numeric = [name for name in self._stored.values() if self.reader.features[name].is_numeric]
        if self._memory_limit_bytes is None:
            return Arrays.read(self.reader, numeric)
        row = sum(
            f.size * _dtype(f).itemsize for f in self.reader.features.select(numeric).values()
        )
        folder = cached_arrays(self.reader, numeric)
        fits = row * self.reader.num_frames * _SHARE <= self._memory_limit_bytes
        return open_arrays(folder, mapped=fits)

    def _values(self, key: str, feature: Feature, frames: NDArray[np.int64]) -> NDArray[Any]:
        if feature.is_visual:
            return self._pictures(key, frames)
        return self._arrays.columns[self._stored[key]].take(frames)

    def _pictures(self, key: str, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode [*frames.shape, height, width, channels]."""
        flat = frames.reshape(-1)
        pictures = (
            self._images[key].read(flat)
            if key in self._images
            else self.reader.read_frames(self._stored[key], flat, tolerance_s=self.spec.tolerance_s)
        )
        return pictures.reshape(*frames.shape, *pictures.shape[1:])

    @staticmethod
    def _windows(
        column: FlatArray,
        frames: NDArray[np.int64],
        padded: NDArray[np.bool_],
        offsets: NDArray[np.int64],
    ) -> NDArray[Any]:
        """Take windows [B, T, *frame_shape]: whole runs where they are, else frame by frame."""
        length = len(offsets)
        if length == 1 or length > column.shape[0] or (np.diff(offsets) != 1).any():
            values = column.take(frames.reshape(-1))
            return values.reshape(*frames.shape, *column.shape[1:])
        clamped = np.flatnonzero(padded.any(axis=1))
        starts = np.minimum(frames[:, 0], column.shape[0] - length)
        windows = column.spans(starts, length)
        if len(clamped):  # what they show lies within the run, some of it several times
            within = frames[clamped] - starts[clamped, None]
            windows[clamped] = windows[clamped[:, None], within]
        return windows


def _rebuild(reader: DatasetReader, spec: SampleSpec, limit: int) -> Samples:
    return Samples(reader, spec, memory_limit_bytes=limit)


def stream_names(reader: DatasetReader, spec: SampleSpec) -> dict[str, str]:
    """Return the dataset's names of its features that can be streamed, by their stream names.

    Raises:
        DatasetError: a feature to rename does not exist, or two get the same name.
    """
    if unknown := [name for name in spec.rename if name not in reader.features]:
        raise DatasetError(
            f"{reader.root} has no feature {unknown[0]!r} to rename; "
            f"there are: {', '.join(reader.features)}"
        )
    usable = [name for name, f in reader.features.items() if f.is_numeric or f.is_visual]
    stored = {spec.rename.get(name, name): name for name in usable}
    if len(stored) < len(usable):
        raise DatasetError(f"{reader.root}: renaming gives two features the same name")
    return stored


def _chosen_names(reader: DatasetReader, spec: SampleSpec) -> dict[str, str]:
    stored = stream_names(reader, spec)
    if spec.keys is None:
        return stored
    if lacking := [key for key in spec.keys if key not in stored]:
        raise DatasetError(
            f"{reader.root} has no feature {lacking[0]!r}; there are: {', '.join(stored)}"
        )
    return {key: stored[key] for key in spec.keys}


def _dtype(feature: Feature) -> np.dtype[Any]:
    return np.dtype(np.uint8) if feature.is_visual else np.dtype(feature.dtype)
