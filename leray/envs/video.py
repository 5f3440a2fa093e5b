"""Frames to an mp4 that browsers play."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], *, fps: float) -> None:
    """Encode frames as H.264.

    Args:
        path: the mp4 file; its folder is made.
        frames: pictures of shape [H, W, 3]; odd sizes lose their last row or column.
        fps: frames per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
