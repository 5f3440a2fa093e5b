"""The pictures of one episode on their way to disk, encoded while it is recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Features
from leray.data.image_statistics import ImageStatistics
from leray.data.lerobot.encoded import EncodedPictures
from leray.data.lerobot.pictures import PngEncoder, image_column
from leray.data.lerobot.video_files import look_at
from leray.data.video.encoder import VideoEncoder
from leray.data.video.options import VideoOptions
from leray.data.video.streaming import StreamingEncoder
from leray.errors import DatasetError


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """How the pictures of a dataset are encoded."""

    fps: Fraction
    options: VideoOptions
    streaming: bool
    """Whether videos are encoded in threads of their own."""

    @property
    def whole_fps(self) -> int | None:
        """Frames per second where they are whole, as LeRobot's are; None tells to ask the video."""
        return int(self.fps) if self.fps.denominator == 1 else None

    def encoder(self, path: Path) -> VideoEncoder | StreamingEncoder:
        """Return an encoder for the video of one episode."""
        kind = StreamingEncoder if self.streaming else VideoEncoder
        return kind(path, fps=self.fps, options=self.options)

    def check(self, cameras: Features) -> None:
        """Check that this machine can encode the videos of cameras, as far as can be told.

        Raises:
            ConfigError: it cannot.
        """
        for camera, feature in cameras.items():
            if feature.dtype == "video":
                encoder = VideoEncoder(Path(camera), fps=self.fps, options=self.options)
                encoder.check(np.zeros(feature.image_shape, np.uint8))


class Recording:
    """Takes the pictures of one episode, frame by frame; keeps them encoded only.

    The statistics count every frame, in memory that does not grow.

    Args:
        cameras: visual features.
        settings: how to encode.
        path_of: gives the temporary path of a camera's video.

    Raises:
        ConfigError: this machine cannot encode so.
    """

    def __init__(
        self, cameras: Features, settings: EncoderSettings, path_of: Callable[[str], Path]
    ) -> None:
        self._paths = {
            name: path_of(name) for name, feature in cameras.items() if feature.dtype == "video"
        }
        self._videos = {name: settings.encoder(path) for name, path in self._paths.items()}
        self._images = {name: PngEncoder() for name in cameras if name not in self._paths}
        self._stats = {
            name: ImageStatistics(feature.image_shape[2]) for name, feature in cameras.items()
        }

    def add(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Encode one frame: a picture [height, width, channels] of every camera; they are copied.

        Raises:
            DatasetError, OSError: a picture could not be compressed or written; see `abort`.
        """
        for name, picture in pictures.items():
            encoder = self._videos.get(name) or self._images[name]
            encoder.add(picture)
            self._stats[name].add(picture)

    def finish(self, num_frames: int) -> EncodedPictures:
        """Complete the files, bring videos to disk.

        Args:
            num_frames: of the episode, to make sure of.

        Raises:
            DatasetError, OSError: a picture could not be compressed or written; nothing is left.
        """
        encoded = EncodedPictures()
        try:
            for name, video in self._videos.items():
                video.close()
                encoded.segments[name] = look_at(self._paths[name])
            for name, image in self._images.items():
                encoded.images[name] = image_column(image.close())
            encoded.stats = {name: gathered.result() for name, gathered in self._stats.items()}
            _check_lengths(encoded, num_frames)
        except BaseException:
            self.abort()
            raise
        return encoded

    def abort(self) -> None:
        """Drop all pictures and delete what was written."""
        encoders: list[Any] = [*self._videos.values(), *self._images.values()]
        for encoder in encoders:
            encoder.abort()
        for path in self._paths.values():  # those that were complete
            path.unlink(missing_ok=True)


def _check_lengths(encoded: EncodedPictures, num_frames: int) -> None:
    found = {name: segment.num_frames for name, segment in encoded.segments.items()}
    found |= {name: len(column) for name, column in encoded.images.items()}
    for name, count in found.items():
        if count != num_frames:
            raise DatasetError(
                f"{name} holds {count} frames of an episode of {num_frames}; record it again"
            )
