"""The video of an mp4 as it is stored: packets, and what a player must know to decode them."""

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from leray.data.video.decoder import FrameDecoder
from leray.data.video.index import PacketIndex, read_index
from leray.errors import DatasetError

_DECODED_AT_ONCE = 32

_MAX_RATE_DENOMINATOR = 1001
"""Rates are whole, or those of television: 30000/1001."""


@dataclass(frozen=True)
class VideoTrack:
    """What is known of a video once its file is closed again."""

    path: Path
    codec: str
    """Canonical name: h264, hevc, av1."""
    decoder: str
    """FFmpeg's decoder for it."""
    width: int
    height: int
    pix_fmt: str
    rate: Fraction
    """Mean frames per second; 0 when a single frame does not tell."""
    index: PacketIndex
    start_s: float
    """When the first frame is shown, on the clock of the container."""
    sound: tuple[str, int, str, bytes] | None
    """Codec, sample rate (Hz), channel layout and configuration of the sound, if there is any."""

    @property
    def num_frames(self) -> int:
        """Number of frames shown."""
        return len(self.index.packet_of)

    @property
    def format(self) -> tuple[str, int, int, str]:
        """What the parts of one video share: codec, width, height, pixel format."""
        return self.codec, self.width, self.height, self.pix_fmt

    def packets(self, first: int, count: int) -> Iterator[bytes]:
        """Read packets in decoding order.

        Raises:
            DatasetError: the file is missing, or ends too early.
        """
        index = self.index
        try:
            with self.path.open("rb") as file:
                for packet in range(first, first + count):
                    file.seek(int(index.position[packet]))
                    data = file.read(int(index.size[packet]))
                    if len(data) < index.size[packet]:
                        raise DatasetError(
                            f"{self.path} is cut off before frame {index.frame_of[packet]}: "
                            "copy or record the file again"
                        )
                    yield data
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read: {error.strerror}") from error

    def decode(self, start_frame: int, num_frames: int) -> Iterator[Any]:
        """Decode consecutive frames.

        Yields:
            The pictures in order, as PyAV returns them.

        Raises:
            DatasetError: the file is missing or ends too early, or a frame is damaged.
        """
        with _reading(self.path), self.path.open("rb") as file:
            codec = av.CodecContext.create(self.decoder, "r")
            codec.extradata = self.index.extradata[0]
            size = os.fstat(file.fileno()).st_size
            decoder = FrameDecoder(file, size, self.index, codec, threads=1, name=str(self.path))
            for first in range(start_frame, start_frame + num_frames, _DECODED_AT_ONCE):
                stop = min(first + _DECODED_AT_ONCE, start_frame + num_frames)
                pictures: dict[int, Any] = {}
                decoder.decode(range(first, stop), pictures.__setitem__)
                for frame in range(first, stop):
                    yield pictures.pop(frame)

    def __str__(self) -> str:
        return f"{self.codec} {self.width}x{self.height} {self.pix_fmt}"


@dataclass(frozen=True)
class Sound:
    """A stretch of the sound of an mp4."""

    path: Path
    start_s: float
    """Where it begins, on the clock of the container."""
    duration_s: float

    def packets(self) -> Iterator[tuple[float, Any]]:
        """Read the packets that begin within the stretch, each with its time (s) in it.

        Raises:
            DatasetError: the file is missing or damaged.
        """
        with open_video(self.path) as (container, _, _):
            stream = container.streams.audio[0]
            container.seek(int(max(self.start_s, 0) / stream.time_base), stream=stream)
            for packet in container.demux(stream):
                if packet.pts is None:
                    return
                time_s = float(packet.pts * stream.time_base) - self.start_s
                if time_s >= self.duration_s:
                    return
                if time_s >= 0:
                    yield time_s, packet


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any, BinaryIO]]:
    """Open an mp4 for the length of a `with` block.

    Yields:
        PyAV's container, its video stream, and the file under them.

    Raises:
        DatasetError: the file is missing, damaged, or holds no video.
    """
    # Only the mp4 demuxer may look at it: others open further files that a forged one names.
    options = {"format": "mov", "metadata_errors": "replace"}
    with _reading(path), path.open("rb") as file, av.open(file, **options) as container:
        stream = container.streams.best("video")
        if stream is None or stream.codec_context is None or stream.codec_context.format is None:
            raise DatasetError(f"{path} holds no video that can be decoded")
        yield container, stream, file


def read_track(path: Path) -> VideoTrack:
    """Read what a video is, without its frames.

    Raises:
        DatasetError: the file is missing, damaged, or holds no frame.
    """
    with open_video(path) as (container, stream, file):
        context = stream.codec_context
        index = read_index(container, stream, file, os.fstat(file.fileno()).st_size)
        if not len(index.packet_of):
            raise DatasetError(f"{path} holds no frame")
        pts = index.pts[index.packet_of]
        return VideoTrack(
            path=path,
            codec=context.codec.canonical_name,
            decoder=context.codec.name,
            width=context.width,
            height=context.height,
            pix_fmt=context.pix_fmt,
            rate=_rate(pts, stream),
            index=index,
            start_s=float(pts[0] * stream.time_base),
            sound=_sound(container),
        )


def _rate(pts: NDArray[np.int64], stream: Any) -> Fraction:
    """Return the frame rate by the frames' times; by the container's word for a single frame."""
    intervals, ticks = len(pts) - 1, int(pts[-1] - pts[0])
    if ticks <= 0:
        return Fraction(stream.average_rate or 0)
    hz = 1 / Fraction(stream.time_base)
    rate = intervals * hz / ticks
    whole = max(round(rate), 1)
    if abs(intervals * hz / whole - ticks) <= 1:  # coarse clocks round the times to their ticks
        return Fraction(whole)
    return rate.limit_denominator(_MAX_RATE_DENOMINATOR)


def _sound(container: Any) -> tuple[str, int, str, bytes] | None:
    if not container.streams.audio:
        return None
    audio = container.streams.audio[0].codec_context
    layout, extradata = audio.layout.name, audio.extradata or b""
    return audio.codec.canonical_name, audio.sample_rate, layout, extradata


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing") from error
    except (av.FFmpegError, OSError) as error:
        # A place that a damaged table makes up is refused by the file, not by FFmpeg.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
        raise DatasetError(f"{path} is damaged or not a video: {error.strerror}") from error
