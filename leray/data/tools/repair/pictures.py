"""Statistics of a camera's pictures, from the frames that LeRobot would sample."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from leray.data.features import Feature
from leray.data.image_statistics import ImageStatistics, sampled_frames
from leray.data.lerobot import layout
from leray.data.lerobot.reader import DatasetReader
from leray.data.statistics import FeatureStatistics, Statistics
from leray.data.tools.check.statistics import entry_problems
from leray.data.tools.check.stored_statistics import EpisodeStatistics, numbers_of
from leray.errors import DatasetError

_DECODED_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class PictureStatistics:
    """The statistics of one camera."""

    whole: FeatureStatistics
    """Of the whole dataset."""
    episodes: list[FeatureStatistics]
    """Of each episode, in the order of the episode table."""

    @classmethod
    def of(
        cls, reader: DatasetReader, camera: str, progress: Callable[[int, int], None]
    ) -> "PictureStatistics":
        """Decode sampled frames of every episode.

        Raises:
            DatasetError: there are none, or a frame cannot be read.
        """
        lengths = reader.metadata.episodes.length.tolist()
        if not lengths:
            raise DatasetError("there are no frames")
        channels = reader.features[camera].image_shape[2]
        whole = ImageStatistics(channels)
        episodes = []
        start = 0
        for done, length in enumerate(lengths):
            progress(done, len(lengths))
            episode = ImageStatistics(channels)
            frames = start + sampled_frames(length)
            for part in np.array_split(frames, -(-len(frames) // _DECODED_TOGETHER)):
                for picture in reader.read_frames(camera, part):
                    whole.add(picture)
                    episode.add(picture)
            episodes.append(episode.result())
            start += length
        progress(len(lengths), len(lengths))
        return cls(whole.result(), episodes)


def unsound_cameras(reader: DatasetReader) -> list[str]:
    """Return the cameras of which any stored statistics are absent or impossible."""
    stored = [_stored(reader)] if reader.version != "v2.1" else []
    if reader.version != "v2.0":
        stored += _of_episodes(reader)
    return [
        camera
        for camera in reader.cameras
        if is_picture(reader.features[camera])
        and any(_is_unsound(entries, reader, camera) for entries in stored)
    ]


def is_picture(feature: Feature) -> bool:
    """Tell whether a camera declares a shape that pictures can have."""
    return len(feature.shape) == 3 and feature.image_shape[2] in (1, 3, 4)


def _is_unsound(entries: Statistics, reader: DatasetReader, camera: str) -> bool:
    problems = entry_problems(entries.get(camera), camera, reader.features[camera], None)
    return next(problems, None) is not None


def _stored(reader: DatasetReader) -> Statistics:
    try:
        stored = layout.read_json(reader.root / layout.STATS)
    except DatasetError:
        return {}
    return {name: numbers_of(entry) for name, entry in stored.items()} if stored else {}


def _of_episodes(reader: DatasetReader) -> list[Statistics]:
    """Return the cameras' entries of all episodes; an empty one where there is none."""
    found = EpisodeStatistics(reader.root, reader.version)
    entries = []
    for index in reader.episodes:
        try:
            entry = found.take(index) or {}
        except DatasetError:
            return [{}]
        entries.append({camera: entry.get(camera, {}) for camera in reader.cameras})
    return entries
