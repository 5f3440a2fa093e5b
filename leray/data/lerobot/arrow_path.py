"""A path inside a pyarrow filesystem, made known to fsspec and universal_pathlib by importing this.

It is a module of its own so that a pickled path brings its registration along.
"""

from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from upath import UPath
from upath.registry import register_implementation

PROTOCOL = "arrow"


class ArrowFileSystem(ArrowFSWrapper):  # type: ignore[misc]
    """An fsspec filesystem over a `pyarrow.fs.FileSystem`; paths are kept as they are."""

    protocol = PROTOCOL

    def __init__(self, filesystem: Any, **options: Any) -> None:
        super().__init__(filesystem, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).removeprefix(f"{PROTOCOL}://").rstrip("/")

    def ls(self, path: str, detail: bool = False, **options: Any) -> list[Any]:  # noqa: FBT001, FBT002
        """List a folder, under the name it was asked by; Arrow may drop a leading slash."""
        entries = super().ls(path, detail=True, **options)
        folder = self._strip_protocol(path)
        for entry in entries:
            entry["name"] = f"{folder}/{entry['name'].rpartition('/')[2]}"
        return entries if detail else [entry["name"] for entry in entries]

    @classmethod
    def _parent(cls, path: str) -> str:
        return cls._strip_protocol(path).rpartition("/")[0]


class ArrowPath(UPath):
    """A path inside a pyarrow filesystem: `ArrowPath("bucket/key", filesystem=...)`."""


fsspec.register_implementation(PROTOCOL, ArrowFileSystem, clobber=True)
register_implementation(PROTOCOL, ArrowPath, clobber=True)
