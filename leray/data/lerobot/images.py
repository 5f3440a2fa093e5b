"""Encoded pictures inside parquet files: from a column's value to pixels."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from leray.data.features import Feature
from leray.data.lerobot.metadata import Metadata
from leray.data.lerobot.parquet import damage_reported, iterate_rows, open_parquet
from leray.errors import DatasetError

IMAGE_BATCH_ROWS = 256
"""Rows of encoded pictures that are in memory at once."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
"""Formats that are read; others can make Pillow start programs or need more than it checks."""
_DAMAGE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What Pillow raises on damaged pictures."""


def iterate_images(metadata: Metadata, selected: NDArray[np.int64], camera: str) -> Iterator[bytes]:
    """Yield the encoded pictures of some episodes, frame by frame, a batch of rows in memory.

    Raises:
        DatasetError: a file is missing or damaged, or a row holds no picture.
    """
    episodes = metadata.episodes
    for position in selected.tolist():
        path = metadata.root / episodes.files[int(episodes.file[position])]
        start, stop = int(episodes.start[position]), int(episodes.start[position])
        stop += int(episodes.length[position])
        with damage_reported(path), open_parquet(path) as file:
            check_row_count(path, file, stop)
            runs = np.array([[start, stop]], dtype=np.int64)
            for first, batch in iterate_rows(file, [camera], runs, batch_rows=IMAGE_BATCH_ROWS):
                column = batch.column(0)
                for row in range(max(start, first), min(stop, first + batch.num_rows)):
                    where = f"{path}, row {row}, {camera}"
                    yield image_bytes(metadata.root, column[row - first].as_py(), where)


def check_row_count(path: Path, file: pq.ParquetFile, needed: int) -> None:
    """Check that a file has the rows that the episodes metadata speaks of.

    Raises:
        DatasetError: it has fewer.
    """
    if file.metadata.num_rows < needed:
        raise DatasetError(
            f"{path} has {file.metadata.num_rows} rows, the episodes metadata says at least "
            f"{needed}; copy the dataset again"
        )


def image_bytes(root: Path, entry: Any, where: str) -> bytes:
    """Return the encoded picture of an image column's value: `{bytes, path}`, or plain bytes.

    Raises:
        DatasetError: it holds neither bytes nor the path of a file inside the dataset.
    """
    if isinstance(entry, bytes):
        return entry
    if isinstance(entry, dict):
        content, path = entry.get("bytes"), entry.get("path")
        if isinstance(content, bytes):
            return content
        if isinstance(path, str) and path:
            parts = PurePosixPath(path)
            if parts.is_absolute() or ".." in parts.parts or "\0" in path or "://" in path:
                raise DatasetError(f"{where}: path {path!r} leaves the dataset's folder")
            try:
                return (root / path).read_bytes()
            except OSError as error:
                raise DatasetError(f"{where}: {path} cannot be read: {error}") from error
    raise DatasetError(f"{where} holds no picture; record or copy the dataset again")


def decode_image(content: bytes, feature: Feature, where: str) -> NDArray[np.uint8]:
    """Decode one encoded picture into uint8 [height, width, channels].

    Raises:
        DatasetError: it is damaged or of another size than declared.
    """
    height, width, channels = feature.image_shape
    if channels not in _MODES:
        raise DatasetError(f"{where}: pictures of {channels} channels cannot be read; 1, 3 and 4")
    try:
        with Image.open(BytesIO(content), formats=_FORMATS) as image:
            if (image.height, image.width) != (height, width):
                raise DatasetError(
                    f"{where} is {image.height}x{image.width}, declared are {height}x{width}"
                )
            if image.mode in ("I", "F", "I;16"):
                raise DatasetError(f"{where} has pixels of mode {image.mode}, not of 8 bits")
            picture = np.asarray(image.convert(_MODES[channels]))
    except _DAMAGE as error:
        raise DatasetError(f"{where} is damaged: {error}; copy the dataset again") from error
    return picture.reshape(height, width, channels)
