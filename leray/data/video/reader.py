"""Frames of an mp4 by number, in any order, exact to the bit."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from leray.data.video.decoder import FrameDecoder
from leray.data.video.index import PacketIndex, read_index
from leray.errors import DatasetError

_AGAIN = "copy or record the file again"
_LARGEST_SIDE = 16384  # pixels; what any of the codecs' decoders is made for


class VideoReader:
    """One open mp4 (h264, hevc, av1). Not safe to share: one reader per thread.

    Opening lists the packets; reading decodes what is asked for and no more. The decoder keeps its
    state between calls, so reading a video piece by piece costs no more than in one go.

    Args:
        source: path of a file, or a seekable file object, which the reader takes over and closes.
        name: what errors call it; its path when None.
        threads: decoding threads; 1 is best for random access, and with one reader per thread.

    Raises:
        DatasetError: it cannot be read, is no mp4, holds no video, or none of colour.

    Example:
        >>> with VideoReader("episode_000000.mp4") as video:  # doctest: +SKIP
        ...     frames = video.read(np.array([0, 50, 7]))
    """

    num_frames: int
    """Frames that the file lists; of a cut-off file, also those that it lacks."""
    num_complete: int
    """Frames whose data the file holds in full; fewer than `num_frames` only if it is cut off."""
    height: int
    width: int
    codec: str
    """`h264`, `hevc`, `av1`, or as FFmpeg calls another one."""
    pix_fmt: str
    """How the file stores colour, as FFmpeg calls it: `yuv420p`."""
    fps: float
    """Frames per second, on average; 0 where the file does not say."""
    timestamps: NDArray[np.float64]
    """When each frame is shown [num_frames], in seconds within the file, ascending."""
    keyframes: NDArray[np.int64]
    """Numbers of the frames where decoding can start."""

    def __init__(
        self, source: str | Path | BinaryIO, *, name: str | None = None, threads: int = 1
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        path = source if isinstance(source, str | Path) else getattr(source, "name", None)
        self._name = name or str(path or "the video")
        self._file = _open(source, self._name)
        try:
            self._size = _size(self._file)
            index, codec = self._open_stream()
        except (av.FFmpegError, OSError) as error:
            problem = _diagnosis(self._file, error)
            self._file.close()
            raise DatasetError(f"{self._name} {problem}") from error
        except DatasetError:
            self._file.close()
            raise
        self._decoder = FrameDecoder(
            self._file, self._size, index, codec, threads=threads, name=self._name
        )
        self._reformatter = VideoReformatter()  # kept: setting one up costs more than a frame

    def frame_at(self, seconds: float) -> int:
        """Return the number of the frame shown nearest to a time within the file, in seconds."""
        after = int(np.searchsorted(self.timestamps, seconds))
        if after == self.num_frames:
            return after - 1
        if after and seconds - self.timestamps[after - 1] <= self.timestamps[after] - seconds:
            return after - 1
        return after

    def read(self, frames: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Read frames; every group of pictures is decoded at most once, up to its last frame asked.

        Args:
            frames: their numbers [n], in any order, also repeatedly.

        Returns:
            RGB pictures [n, height, width, 3] in the order asked.

        Raises:
            DatasetError: a frame does not exist, or cannot be read or decoded.
        """
        numbers = np.asarray(frames)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(f"frames are a list of numbers, not {numbers.dtype}{numbers.shape}")
        wrong = numbers[(numbers < 0) | (numbers >= self.num_frames)]
        if len(wrong):
            raise DatasetError(
                f"{self._name} has no frame {wrong[0]}; there are: 0 to {self.num_frames - 1}"
            )
        result = np.empty((len(numbers), self.height, self.width, 3), dtype=np.uint8)
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(numbers.tolist()):
            rows.setdefault(number, []).append(row)

        def take(frame: int, picture: Any) -> None:
            pixels = self._rgb(frame, picture)
            for row in rows[frame]:
                result[row] = pixels

        self._decoder.decode(sorted(rows), take)
        return result

    def close(self) -> None:
        """Close the file; reading ends."""
        self._decoder.forget()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_stream(self) -> tuple[PacketIndex, Any]:
        """List the packets, and prepare the decoder; the container is not needed afterwards."""
        if self._size == 0:
            raise DatasetError(f"{self._name} is empty: {_AGAIN}")
        # Only the mp4 demuxer may look at it: others open further files that a forged one names.
        with av.open(self._file, format="mov", metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise DatasetError(f"{self._name} holds no video that can be decoded")
            codec = stream.codec_context
            self._check_picture(codec)
            index = read_index(container, stream, self._file, self._size)
            base, rate = stream.time_base, stream.average_rate
        self.num_frames = len(index.packet_of)
        self.num_complete = int((index.packet_of < index.num_readable(self._size)).sum())
        if self.num_frames == 0:
            raise DatasetError(f"{self._name} holds no frames: {_AGAIN}")
        self.height, self.width = codec.height, codec.width
        self.codec, self.pix_fmt = codec.codec.canonical_name, codec.pix_fmt
        self.timestamps = index.pts[index.packet_of] * base.numerator / base.denominator
        self.keyframes = np.sort(index.frame_of[index.is_key & index.is_shown])
        self.fps = float(rate) if rate else 0.0
        return index, codec

    def _check_picture(self, codec: Any) -> None:
        if not (0 < codec.width <= _LARGEST_SIDE and 0 < codec.height <= _LARGEST_SIDE):
            raise DatasetError(
                f"{self._name} claims pictures of {codec.width} x {codec.height} pixels; "
                f"the most is {_LARGEST_SIDE} on a side"
            )
        if codec.format is None:
            raise DatasetError(f"{self._name} holds no picture that can be decoded: {_AGAIN}")
        if len(codec.format.components) < 3:
            raise DatasetError(
                f"{self._name} holds pictures of format {codec.pix_fmt}; only colour can be read"
            )

    def _rgb(self, frame: int, picture: Any) -> NDArray[np.uint8]:
        if (picture.height, picture.width) != (self.height, self.width):
            raise DatasetError(
                f"{self._name}: frame {frame} is {picture.width} x {picture.height} pixels, "
                f"the video {self.width} x {self.height}: encode it again in one size"
            )
        # One thread: more would contend with the readers of the other threads.
        converted = self._reformatter.reformat(picture, format="rgb24", threads=1)
        return cast(NDArray[np.uint8], converted.to_ndarray())


def _open(source: str | Path | BinaryIO, name: str) -> BinaryIO:
    if not isinstance(source, str | Path):
        return source
    try:
        return open(source, "rb", buffering=0)  # packets are read whole
    except OSError as error:
        raise DatasetError(f"{name} cannot be opened: {error.strerror}") from error


def _size(file: BinaryIO) -> int:
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    return size


def _diagnosis(file: BinaryIO, error: Exception) -> str:
    """Say what is wrong with a file that FFmpeg does not open."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    file.seek(0)
    if file.read(8)[4:] == b"ftyp":
        return f"is cut off or damaged, its table of frames is missing: {_AGAIN}"
    return "is not an mp4 video"
