"""Encoded pictures of a dataset's image columns in one flat file, for random access.

Parquet decodes a whole row group to get at one picture; here each is one read by position. The
bytes are kept as they are, decoding is left to whoever reads.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature
from leray.data.lerobot.images import decode_image
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

_BYTES, _ENDS = "bytes.bin", "ends.bin"


class ImageCache:
    """The pictures of one camera, by frame number.

    Args:
        folder: made by `ingest_images`.
        feature: of the camera.

    Raises:
        DatasetError: it is damaged; remove it to have it made again.
    """

    def __init__(self, folder: Path, feature: Feature) -> None:
        self._folder, self._feature = folder, feature
        try:
            ends: NDArray[np.int64] = np.fromfile(folder / _ENDS, dtype=np.int64)
            self._descriptor = os.open(folder / _BYTES, os.O_RDONLY)
        except OSError as error:
            raise _damaged(folder, error) from error
        self._edges = np.concatenate([[0], ends])
        if os.fstat(self._descriptor).st_size != self._edges[-1]:
            raise _damaged(folder, "the file has another size than it should")

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode pictures [n, height, width, channels].

        Raises:
            DatasetError: a picture is damaged or of another size than declared.
        """
        out = np.empty((len(frames), *self._feature.image_shape), np.uint8)
        for picture, frame in zip(out, frames.tolist(), strict=True):
            start, stop = self._edges[frame : frame + 2].tolist()
            content = os.pread(self._descriptor, stop - start, start)
            picture[:] = decode_image(content, self._feature, f"{self._folder}, frame {frame}")
        return out


def ingest_images(reader: DatasetReader, camera: str, folder: Path) -> None:
    """Write a camera's encoded pictures into an empty folder.

    Raises:
        DatasetError: a picture is missing.
        OSError: the disk is full.
    """
    ends, total = [], 0
    with (folder / _BYTES).open("wb") as file:
        for content in reader.encoded_images(camera):
            total += file.write(content)
            ends.append(total)
    np.array(ends, dtype=np.int64).tofile(folder / _ENDS)


def _damaged(folder: Path, reason: Any) -> DatasetError:
    return DatasetError(
        f"the image cache {folder} is damaged ({reason}): remove it, it is made again"
    )
