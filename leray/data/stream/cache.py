"""Where a dataset's flat copies are kept on this machine, and when they are too old."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from leray.data.lerobot.folder import is_local
from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.arrays import ingest
from leray.data.stream.image_cache import ingest_images
from leray.errors import DatasetError
from leray.files import fsync_path

CACHE_VARIABLE = "LERAY_CACHE"
"""Environment variable that names the folder of caches."""

_UNUSED_S = 30 * 24 * 3600.0


def cache_root() -> Path:
    """Return `$LERAY_CACHE`, else `leray` in the user's cache folder."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leray"


def cached_arrays(reader: DatasetReader, keys: Sequence[str]) -> Path:
    """Return the folder of a dataset's flat columns, made now if it is not there.

    It is found by what was read: a dataset that changes gets a new one. Those that were not used
    for 30 days are removed.

    Raises:
        DatasetError: a column is damaged, or the disk is full.
    """
    folder = cache_root() / "arrays" / _fingerprint(reader, keys)
    return _kept(folder, partial(ingest, reader, keys))


def cached_images(reader: DatasetReader, camera: str) -> Path:
    """Return the folder of a camera's encoded pictures, as `cached_arrays` does.

    Raises:
        DatasetError: a picture is missing, or the disk is full.
    """
    folder = cache_root() / "images" / _fingerprint(reader, [camera])
    return _kept(folder, partial(ingest_images, reader, camera))


def _kept(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder, filled now if it is not there; it appears when all of it is written.

    If another process was first, its work is kept.
    """
    if folder.is_dir():
        with suppress(OSError):  # another user's
            os.utime(folder)
        return folder
    _remove_unused(folder.parent)
    work = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        work.mkdir(parents=True)
        fill(work)
        for path in (*work.iterdir(), work):
            fsync_path(path)  # a power cut must not leave what only looks complete
        work.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise DatasetError(
                f"the cache {folder} cannot be written ({error}): free some space, or set "
                f"{CACHE_VARIABLE} to a folder on another disk"
            ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _fingerprint(reader: DatasetReader, keys: Sequence[str]) -> str:
    episodes = reader.metadata.episodes
    rows = np.searchsorted(episodes.index, reader.episodes)
    files = []
    for number in np.unique(episodes.file[rows]).tolist():
        path = reader.root / episodes.files[number]
        try:
            files.append([episodes.files[number], _state(path)])
        except OSError as error:
            raise DatasetError(f"{path} cannot be read: {error}; copy the dataset again") from error
    described = {
        "root": str(reader.root.absolute() if isinstance(reader.root, Path) else reader.root),
        "info": reader.metadata.info,
        "files": files,
        "episodes": [
            column[rows].tolist() for column in (episodes.index, episodes.start, episodes.length)
        ],
        "keys": list(keys),
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:24]


def _state(path: Any) -> list[Any]:
    """Return what changes when a file does."""
    if is_local(path):
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    return [path.fs.ukey(path.path)]  # not every filesystem tells a time


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - _UNUSED_S
    with suppress(OSError):  # it is not there, or another process was faster
        for entry in folder.iterdir():
            if entry.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
