"""Pictures as the values of an `image` column: PNG files inside parquet files."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from leray.data.lerobot.schema import IMAGE_TYPE
from leray.errors import FeatureMismatchError

_COMPRESSION = 6
_THREADS = 4
_WAITING_FRAMES = 30
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PART = 256


class PngEncoder:
    """Compresses the frames of one camera in threads of its own, each frame to a PNG file.

    `add` copies the frame and returns at once; when many frames wait, it waits too.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="encode png")
        self._waiting: deque[Future[bytes]] = deque()
        self._done: list[bytes] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Hand over one frame [height, width, channels]; it is copied."""
        if len(self._waiting) == _WAITING_FRAMES:
            self._done.append(self._waiting.popleft().result())
        self._waiting.append(self._pool.submit(encode_png, frame.copy()))

    def close(self) -> list[bytes]:
        """Wait for all frames and return their files, in order."""
        self._done.extend(future.result() for future in self._waiting)
        self._waiting.clear()
        self._pool.shutdown()
        return self._done

    def abort(self) -> None:
        """Drop all frames."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()


def encode_png(frame: NDArray[np.uint8]) -> bytes:
    """Compress a picture [height, width, channels] of 1, 3 or 4 channels, without loss."""
    file = BytesIO()
    picture = frame[..., 0] if frame.shape[2] == 1 else frame
    Image.fromarray(picture).save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()


def is_encoded(value: Any) -> bool:
    """Tell whether pictures are given as files rather than as an array of pixels."""
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return True
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], bytes)


def image_column(value: Sequence[bytes] | pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """Return encoded pictures as an `image` column.

    Args:
        value: the files' contents, or an Arrow array of them or of `{bytes, path}`, whose paths are
            kept.

    Raises:
        FeatureMismatchError: it holds something else, or a picture has no bytes.
    """
    if isinstance(value, pa.ChunkedArray):
        parts = value.chunks
    elif isinstance(value, pa.Array):
        parts = [value]
    else:  # in parts, because one Arrow array holds at most 2 GiB
        parts = [value[first : first + _PART] for first in range(0, len(value), _PART)]
    columns, first = [], 0
    for part in parts:
        try:
            columns.append(_structs(part, first))
        except (pa.ArrowException, TypeError) as error:
            raise FeatureMismatchError(
                "encoded pictures must be bytes, or {bytes, path} with bytes: "
                f"{str(error).splitlines()[0]}"
            ) from error
        first += len(part)
    return pa.chunked_array(columns, IMAGE_TYPE)


def _structs(part: Sequence[bytes] | pa.Array, first: int) -> pa.StructArray:
    """Return pictures as `{bytes, path}`; PNGs get the names that LeRobot gives them."""
    array = part if isinstance(part, pa.Array) else pa.array(part, pa.binary())
    if pa.types.is_struct(array.type):
        structs = array.cast(IMAGE_TYPE)
    else:
        contents = array.cast(pa.binary())
        is_png = pc.equal(pc.binary_slice(contents, 0, len(_PNG_SIGNATURE)), _PNG_SIGNATURE)
        numbers = range(first, first + len(array))
        names = pa.array([f"frame-{number:06d}.png" for number in numbers], pa.string())
        paths = pc.if_else(is_png, names, pa.scalar(None, pa.string()))
        structs = pa.StructArray.from_arrays([contents, paths], fields=[*IMAGE_TYPE])
    if structs.null_count or structs.field("bytes").null_count:
        raise TypeError("some are missing")
    return structs
