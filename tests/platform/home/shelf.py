"""A folder of this machine that is used as a store would be, and fails when a test says so."""

import os
import threading
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Shelf(LocalFileSystem):
    """`shelf://folder`: writes are counted, and from a given one on each fails.

    The first that fails leaves half of its file, as a filesystem that is no object store may. Those
    whose name holds `held` wait until the shelf is opened.
    """

    protocol = "shelf"
    writes = 0
    fails_from: int | None = None
    error: type[Exception] = OSError
    opened = threading.Event()
    held = ""
    names: list[str] = []  # noqa: RUF012 - shared by all instances, reset by the fixture

    @classmethod
    def reset(cls) -> None:
        """Forget what an earlier test did."""
        cls.writes, cls.fails_from, cls.error, cls.held, cls.names = 0, None, OSError, "", []
        cls.opened.clear()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        # never relative to the working directory, as a local path without a slash would be
        return super()._strip_protocol("/" + str(path).removeprefix("shelf:").lstrip("/"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._count(path, value)
        super().pipe_file(path, value, mode=mode, **kwargs)

    def put_file(self, path1: str, path2: str, callback: Any = None, **kwargs: Any) -> None:
        self._count(path2, Path(path1).read_bytes())
        super().put_file(path1, path2, callback=callback, **kwargs)

    def rm_file(self, path: str) -> None:
        self._count(path, None)
        super().rm_file(path)

    def _count(self, path: str, content: bytes | None) -> None:
        path = self._strip_protocol(path)
        if path.endswith(".lock"):
            return
        Shelf.writes += 1
        Shelf.names.append(path)
        if self.held and self.held in path:
            self.opened.wait(10)
        if self.fails_from is not None and Shelf.writes >= self.fails_from:
            if Shelf.writes == self.fails_from and content is not None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                Path(path).write_bytes(content[: len(content) // 2])
            raise self.error("the shelf is broken")


fsspec.register_implementation("shelf", Shelf, clobber=True)
