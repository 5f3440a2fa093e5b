"""Durable file writing: a reader sees the old content or the new, never a part."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def fsync_directory(path: Path) -> None:
    """Flush a directory's entries, so that a rename inside it survives a power cut."""
    fsync_path(path)


def fsync_path(path: Path) -> None:
    """Flush a file's content or a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write; it takes the place of `path` when the block ends without an error.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, flush it, and rename it into place.

    Raises:
        OSError: the disk is full or the folder cannot be written; the old file is then untouched.
    """
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON atomically, with the layout LeRobot uses (indent 4, UTF-8)."""
    write_atomic(path, json.dumps(value, indent=4, ensure_ascii=False).encode())
