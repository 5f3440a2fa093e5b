"""Parquet files of a new dataset, written one after the other."""

import contextlib
import os
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from leray.data.lerobot.series import FileNames


class ParquetFiles:
    """A series of parquet files; the next one begins where a size limit would be passed.

    To be used in a `with` block. Unlike those of a recording, the files are readable only once the
    block has ended.

    Args:
        names: of the files.
        limit_bytes: size that a file should not reach.
    """

    def __init__(self, names: FileNames, limit_bytes: int) -> None:
        self.names = names
        self._limit_bytes = limit_bytes
        self._number = 0
        self._rows = 0
        self._file: Any = None
        self._writer: Any = None

    def make_room(self, rows: int) -> int:
        """Return the number of the file that the next rows go to, judged by the rows so far."""
        if self._file is not None:
            size = self._file.tell()
            if size + size / self._rows * rows < self._limit_bytes:
                return self._number
            self._finish()
            self._number += 1
        return self._number

    def append(self, group: pa.Table) -> None:
        """Write a row group to the file that `make_room` told."""
        if self._file is None:
            self._begin(group.schema)
        self._writer.write_table(group, row_group_size=len(group))
        self._rows += len(group)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is None:
            return
        if kind is None:
            self._finish()
            return
        with contextlib.suppress(Exception):  # it tries to complete a file that is given up
            self._writer.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _begin(self, schema: pa.Schema) -> None:
        path = self.names.path(self._number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="snappy", write_page_checksum=True
        )
        self._rows = 0

    def _finish(self) -> None:
        """Complete the file and bring it to disk."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
