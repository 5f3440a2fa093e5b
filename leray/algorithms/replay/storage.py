"""Typed columns in one preallocated file per feature, or in memory."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Features
from leray.errors import CheckpointError, ConfigError
from leray.files import write_json

LAYOUT_VERSION = 1
LAYOUT_FILE = "layout.json"
HEADER_FILE = "header.bin"
Counters = tuple[int, int, int]


class ColumnStorage:
    """Rows of typed columns and a small header, memory-mapped when a folder is given.

    Disk space is reserved at creation, so that a full disk shows as an error then and not as a
    crash in the middle of a run. What was written survives the death of the process.

    The header is `[which, oldest, counters 0, counters 1]`: counters are written to the half that
    is not in force, which one store then switches, so that a kill leaves the old or the new ones.
    """

    def __init__(self, features: Features, num_rows: int, folder: Path | None) -> None:
        self.folder = folder
        layout = {
            "layout_version": LAYOUT_VERSION,
            "columns": {
                key: [features.numpy_dtype(key).str, *feature.shape]
                for key, feature in features.items()
            },
        }
        self._existing = folder is not None and (folder / LAYOUT_FILE).exists()
        if self._existing and folder is not None:
            num_rows = _check_layout(folder, layout)
        self.num_rows = num_rows
        """Rows there is room for: of an existing folder, those it was made with."""
        self._header = self._array("header", np.dtype(np.int64), (8,))
        self.next = self._array("next", np.dtype(np.int64), (num_rows,))
        """Absolute row that follows each row; see `ring.py`."""
        self.columns: dict[str, NDArray[Any]] = {
            key: self._array(key, features.numpy_dtype(key), (num_rows, *feature.frame_shape))
            for key, feature in features.items()
        }
        if folder is not None and not self._existing:
            write_json(folder / LAYOUT_FILE, {"num_rows": num_rows, **layout})

    @property
    def oldest(self) -> int:
        """First row whose slot has not been given to a newer one; set before that happens."""
        return int(self._header[1])

    @oldest.setter
    def oldest(self, row: int) -> None:
        self._header[1] = row

    def counters(self) -> Counters:
        """Return the committed numbers: rows ever written, steps in the window, steps ever."""
        start = 2 + 3 * int(self._header[0])
        head, steps, total = self._header[start : start + 3].tolist()
        return head, steps, total

    def commit(self, counters: Counters) -> None:
        """Put new counters in force, all at once."""
        other = 1 - int(self._header[0])
        self._header[2 + 3 * other : 5 + 3 * other] = counters
        self._header[0] = other

    def _array(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if self.folder is None:
            return np.zeros(shape, dtype)
        path = self.folder / f"{name}.bin"
        num_bytes = max(1, int(np.prod(shape)) * dtype.itemsize)
        if not self._existing:
            self.folder.mkdir(parents=True, exist_ok=True)
            _reserve(path, num_bytes)  # also over what a creation that failed has left
        found = path.stat().st_size if path.exists() else 0
        if found != num_bytes:
            raise CheckpointError(
                f"{path}: {found} bytes where {num_bytes} are expected; the replay is damaged: "
                f"remove {self.folder} to start with an empty replay"
            )
        return np.memmap(path, dtype, mode="r+", shape=shape)

    def flush(self) -> None:
        """Write everything back to disk, so that it also survives a power cut."""
        for array in (*self.columns.values(), self.next, self._header):
            if isinstance(array, np.memmap):
                array.flush()


def read_oldest(folder: Path) -> int:
    """Return `oldest` of a storage on disk, which may be being written to at this moment."""
    with (folder / HEADER_FILE).open("rb") as file:
        header = np.frombuffer(file.read(16), np.int64)
    return int(header[1])


def header_content(oldest: int, counters: Counters) -> bytes:
    """Return the content of a header file in which these numbers are in force."""
    return np.array([0, oldest, *counters, 0, 0, 0], np.int64).tobytes()


def _reserve(path: Path, num_bytes: int) -> None:
    """Create a file of zeros whose disk space is set aside."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        if sys.platform == "darwin":  # which cannot reserve through the standard library
            os.ftruncate(descriptor, num_bytes)
        else:
            os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(
            f"replay needs {num_bytes / 2**20:.0f} MiB for {path} and the disk does not give them "
            f"({error.strerror}): free space, or lower --policy.online_buffer_capacity or "
            "--policy.offline_buffer_capacity"
        ) from error
    finally:
        os.close(descriptor)


def _check_layout(folder: Path, layout: dict[str, Any]) -> int:
    """Refuse to open a replay that was written with other columns; return its number of rows."""
    path = folder / LAYOUT_FILE
    try:
        found = json.loads(path.read_text())
        num_rows = int(found.pop("num_rows"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): remove {folder} to start with an empty replay"
        ) from error
    if found != layout:
        raise CheckpointError(
            f"{folder} holds a replay of other features ({found['columns']}) than this run needs "
            f"({layout['columns']}): keep the run's options, or give another --output_dir"
        )
    return num_rows
