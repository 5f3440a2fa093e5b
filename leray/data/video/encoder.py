"""Frames in, one mp4 out."""

import functools
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from leray.data.video.options import AUTO, HARDWARE, SOFTWARE, VideoOptions
from leray.data.video.output import Mp4Output, writing
from leray.errors import ConfigError, DatasetError, FeatureMismatchError

__all__ = ["VideoEncoder", "VideoOptions", "encoder_name"]

_SVT_FATAL_ONLY = "0"
_OPEN, _COMPLETE, _ABORTED = "open", "complete", "aborted"


class VideoEncoder:
    """Compresses frames of constant rate into an mp4, which exists only once it is complete.

    Frame k is shown at exactly k/fps; no frame is dropped or repeated. The first frame sets height
    and width. Leaving a `with` block closes, or aborts after an error.

    Example:
        >>> with VideoEncoder(Path("front.mp4"), fps=30) as encoder:  # doctest: +SKIP
        ...     for frame in frames:
        ...         encoder.add(frame)

    Args:
        path: the mp4 to make; an existing file is replaced at the end.
        fps: frames per second; LeRobot's are whole.
        options: how to compress; LeRobot's defaults when None.

    Raises:
        ConfigError: fps is not positive, or this machine cannot encode with these options.
    """

    def __init__(
        self, path: Path, *, fps: int | Fraction, options: VideoOptions | None = None
    ) -> None:
        if isinstance(fps, bool) or not isinstance(fps, int | Fraction) or fps <= 0:
            raise ConfigError(f"fps must be a positive integer, not {fps!r}")
        self.path = path
        """The mp4 that `close` completes."""
        self._rate = Fraction(fps)
        self._options = options or VideoOptions()
        self._encoder = encoder_name(self._options.vcodec)
        self._pix_fmt = _native_pix_fmt(self._encoder, self._options.pix_fmt)
        self._shape: tuple[int, ...] | None = None
        self._output: Mp4Output | None = None
        self._state = _OPEN
        self._frames = self._packets = 0

    def check(self, frame: NDArray[np.uint8]) -> None:
        """Check that a frame can be added, without adding it; the first sets height and width.

        Raises:
            FeatureMismatchError: the frame is not uint8 [H, W, 3], or differs in size from the
                first.
            ConfigError: frames of this size cannot be encoded with these options.
            DatasetError: the encoder is closed or aborted.
        """
        if self._state != _OPEN:
            raise DatasetError(f"{self.path} is {self._state}; make another VideoEncoder")
        shape = frame.shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or shape[2] != 3 or frame.size == 0:
            raise FeatureMismatchError(
                f"a frame for {self.path.name} is {frame.dtype}{list(shape)}; "
                "frames are uint8 [height, width, 3]"
            )
        if self._shape is None:
            self._check_size(shape[0], shape[1])
            self._shape = shape
        if shape != self._shape:
            raise FeatureMismatchError(
                f"a frame for {self.path.name} has shape {list(shape)}; "
                f"the first one had {list(self._shape)}"
            )

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Compress one frame; the array may be reused afterwards.

        Args:
            frame: RGB [H, W, 3].

        Raises:
            FeatureMismatchError, ConfigError, DatasetError: as `check`; nothing was added.
            OSError: the disk is full; the temporary file is gone and the encoder closed.
        """
        self.check(frame)
        self.add_picture(av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), "rgb24"))

    def add_picture(self, picture: av.VideoFrame) -> None:
        """Compress one frame as a decoder returned it, with its colours as they are tagged.

        Raises:
            ConfigError: frames of this size cannot be encoded with these options.
            OSError: the disk is full; the temporary file is gone and the encoder closed.
        """
        try:
            if self._output is None:
                self._open(picture)
            picture.pts, picture.time_base = self._frames, 1 / self._rate
            picture.pict_type = av.video.frame.PictureType.NONE
            self._encode(picture)
        except BaseException:
            self.abort()
            raise
        self._frames += 1

    def close(self) -> int:
        """Complete the file, bring it to disk and return the number of frames.

        Raises:
            DatasetError: there were no frames, the encoder lost one, or it was aborted; there is no
                file then.
            OSError: the disk is full; the temporary file is gone.
        """
        if self._state == _COMPLETE:
            return self._frames
        if self._state == _ABORTED:
            raise DatasetError(f"{self.path} is {self._state}; its frames are dropped")
        try:
            if self._output is None:
                raise DatasetError(f"no frame was added to {self.path}; a video needs one")
            self._encode(None)
            if self._packets != self._frames:
                raise DatasetError(
                    f"{self._encoder} returned {self._packets} of {self._frames} frames of "
                    f"{self.path}; use another vcodec"
                )
            self._output.commit()
        except BaseException:
            self.abort()
            raise
        self._state = _COMPLETE
        return self._frames

    def abort(self) -> None:
        """Drop all frames and delete the temporary file; after `close` this does nothing."""
        if self._state == _OPEN:
            self._state = _ABORTED
            if self._output is not None:
                self._output.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check_size(self, height: int, width: int) -> None:
        # AV1 files state a picture of any size; the others would need it to be cropped on display.
        halved = av.VideoFormat(self._pix_fmt, 4, 4)
        odd = (height % 2 and halved.chroma_height() == 2) or (
            width % 2 and halved.chroma_width() == 2
        )
        if odd and self._encoder != "libsvtav1":
            raise ConfigError(
                f"{self._options.vcodec} cannot encode {width}x{height} frames as "
                f"{self._options.pix_fmt}, which needs even sizes; crop them, or use libsvtav1"
            )

    def _open(self, picture: av.VideoFrame) -> None:
        os.environ.setdefault("SVT_LOG", _SVT_FATAL_ONLY)
        self._output = Mp4Output(self.path, self._rate)
        self._stream = self._output.container.add_stream(
            self._encoder,
            rate=self._rate,
            options=self._options.encoder_options(self._encoder),
            width=picture.width,
            height=picture.height,
            pix_fmt=self._pix_fmt,
            time_base=1 / self._rate,
            **_device(self._encoder),
        )
        context = self._stream.codec_context
        if not picture.format.is_rgb:
            context.color_range = picture.color_range
            context.colorspace = picture.colorspace
            context.color_primaries = picture.color_primaries
            context.color_trc = picture.color_trc
        try:
            context.open()
        except (av.FFmpegError, ValueError) as error:
            raise ConfigError(
                f"{self._encoder} cannot encode {picture.width}x{picture.height} "
                f"{self._options.pix_fmt} on this machine; use another vcodec"
            ) from error

    def _encode(self, picture: av.VideoFrame | None) -> None:
        assert self._output is not None
        with writing(self.path):
            for packet in self._stream.encode(picture):
                self._output.container.mux(packet)
                self._packets += 1


def encoder_name(vcodec: str) -> str:
    """Return FFmpeg's name of the encoder for a `vcodec`; `auto` tries the devices.

    Raises:
        ConfigError: the installed PyAV has no such encoder.
    """
    if vcodec == AUTO:
        return _working_encoder()
    name = SOFTWARE.get(vcodec, vcodec)
    if name not in av.codecs_available:
        present = [*SOFTWARE, *HARDWARE]
        offered = [key for key in present if SOFTWARE.get(key, key) in av.codecs_available]
        raise ConfigError(
            f"vcodec {vcodec!r} is not part of this PyAV; it has {', '.join(offered)}, {AUTO}"
        )
    return name


@functools.cache
def _working_encoder() -> str:
    for name in HARDWARE:
        if name in av.codecs_available and _works(name):
            return name
    return encoder_name("libsvtav1")


def _works(name: str) -> bool:
    """Tell whether an encoder really encodes here; most are compiled in without their device."""
    try:
        context = av.CodecContext.create(name, "w", **_device(name))
        context.width, context.height = 640, 480
        context.pix_fmt = _native_pix_fmt(name, "yuv420p")
        context.time_base = Fraction(1, 30)
        picture = av.VideoFrame(640, 480, "yuv420p")
        picture.pts = 0
        return len([*context.encode(picture), *context.encode(None)]) == 1
    except (av.FFmpegError, ConfigError, ValueError):
        return False


def _device(encoder: str) -> dict[str, "av.codec.hwaccel.HWAccel"]:
    """Return what `add_stream` needs for encoders that take frames from their device only."""
    if encoder.endswith("_vaapi"):
        return {"hwaccel": av.codec.hwaccel.HWAccel("vaapi")}
    return {}


def _native_pix_fmt(encoder: str, pix_fmt: str) -> str:
    """Return the spelling of a pixel format that an encoder takes.

    Raises:
        ConfigError: it takes no such format.
    """
    formats = av.Codec(encoder, "w").video_formats or ()
    names = [item.name for item in formats if item.components]
    if pix_fmt in names or not names:
        return pix_fmt
    # The same samples in another order; the file says yuv420p.
    if pix_fmt == "yuv420p" and "nv12" in names:
        return "nv12"
    raise ConfigError(f"pix_fmt {pix_fmt!r} is not for {encoder}; one of {', '.join(names)}")
