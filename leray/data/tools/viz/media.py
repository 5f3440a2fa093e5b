"""What a page embeds of an episode: a short H.264 clip per camera, numbers as packed bytes."""

import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from leray.errors import DatasetError

_PICTURES = {1: "gray", 3: "rgb24", 4: "rgba"}
"""Number of channels to the name of the pixel format."""
_COLORS = "colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m"
"""States the matrix that the conversion from RGB uses, so that players do not guess another."""
_OPTIONS = {"crf": "26", "g": "10", "bf": "0", "sc_threshold": "0", "x264-params": _COLORS}
"""A key frame every 10 frames and none out of order: scrubbing decodes at most ten frames."""
_TOLERANCE = 1e-4
"""Largest error of a number, as a part of the range of its dimension, that no plot shows."""


def encode_clip(chunks: Iterable[NDArray[np.uint8]], *, fps: float, width: int) -> bytes:
    """Encode frames as an mp4 that every browser plays; frame k is shown at k / fps seconds.

    Args:
        chunks: frames in order, uint8 [n, H, W, C] with 1, 3 or 4 channels; n may differ.
        fps: frames per second.
        width: pixels; wider frames are scaled down to it, narrower ones keep their size. Sides are
            rounded to even numbers, as H.264 needs.

    Raises:
        DatasetError: there is no frame, or frames differ in size or have another number of
            channels.
        OSError: the temporary file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="leray-viz-") as folder:
        path = Path(folder) / "clip.mp4"  # the index moves to the front in a second pass
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
            stream.pix_fmt = "yuv420p"
            shape: tuple[int, ...] = ()
            for frame in (frame for chunk in chunks for frame in chunk):
                if not shape:
                    shape = frame.shape
                    stream.width, stream.height = _clip_size(shape, width)
                elif frame.shape != shape:
                    raise DatasetError(f"a frame has shape {frame.shape}, the first has {shape}")
                container.mux(stream.encode(_picture(frame, stream)))
            if not shape:
                raise DatasetError("there is no frame to encode")
            container.mux(stream.encode())
        return path.read_bytes()


def pack_numbers(values: NDArray[Any]) -> tuple[str, bytes]:
    """Pack the numbers of an episode, one dimension after the other.

    Booleans become bytes; others float32 where the difference cannot be seen, else float64.

    Args:
        values: numeric [frames, ...].

    Returns:
        The type (`u1`, `f4` or `f8`) and the little-endian bytes of [dimensions, frames].
    """
    columns = values.reshape(len(values), -1).T
    if values.dtype == np.bool_:
        return "u1", columns.astype(np.uint8).tobytes()
    exact = columns.astype("<f8")
    finite = np.isfinite(exact)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype("<f4")
        errors = np.abs(rounded - exact)
    worst = errors.max(axis=1, where=finite, initial=0)
    low = exact.min(axis=1, where=finite, initial=np.inf)
    high = exact.max(axis=1, where=finite, initial=-np.inf)
    span = np.where(high > low, high - low, np.abs(high))
    if (worst <= _TOLERANCE * span).all():
        return "f4", rounded.tobytes()
    return "f8", exact.tobytes()


def _clip_size(shape: tuple[int, ...], width: int) -> tuple[int, int]:
    """Return the clip's width and height for frames of shape [H, W, C]."""
    if len(shape) != 3 or shape[2] not in _PICTURES:
        raise DatasetError(f"frames of shape {shape} cannot be shown; needed is [H, W, 1, 3 or 4]")
    scale = min(1.0, width / shape[1])
    return _even(shape[1] * scale), _even(shape[0] * scale)


def _even(size: float) -> int:
    return max(2, round(size / 2) * 2)


def _picture(frame: NDArray[np.uint8], stream: Any) -> av.VideoFrame:
    if frame.shape[2] == 1:
        frame = frame[:, :, 0]
    pixels = _PICTURES[1 if frame.ndim == 2 else frame.shape[2]]
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=pixels)
    return picture.reformat(
        width=stream.width, height=stream.height, format="yuv420p", interpolation="AREA"
    )
