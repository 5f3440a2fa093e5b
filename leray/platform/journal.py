"""A list of records on disk, with a mark of how far they have been delivered elsewhere."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from leray.files import write_json


class Journal:
    """Append-only JSON lines, written at once and delivered later, maybe by another process.

    Each record is one `write` to a file opened for appending, so a killed process loses nothing
    that `append` returned for; a line cut short by a power loss is skipped by readers.

    Args:
        path: The `.jsonl` file; the delivery mark stands beside it with the ending `.delivered`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = path.with_suffix(".delivered")
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._descriptor).st_size
        if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
            os.write(self._descriptor, b"\n")
        self._torn = False
        if self._read_mark()[1] > size:  # a power loss cut the file: all of it is delivered again
            self._mark.unlink()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            OSError: the disk is full or gone, or the journal is closed.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._descriptor < 0:
                raise OSError(f"{self.path} is closed")
            whole = b"\n" + line if self._torn else line
            self._torn = os.write(self._descriptor, whole) < len(whole)
            if self._torn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self, offset: int, limit_bytes: int = 1 << 20) -> tuple[list[dict[str, Any]], int]:
        """Return the whole records after a byte offset, and the offset behind the last of them.

        Args:
            offset: Where to start, 0 or an offset returned earlier.
            limit_bytes: About how much to read; one whole line is read where there is one.
        """
        chunk = b""
        while b"\n" not in chunk:
            more = os.pread(self._descriptor, limit_bytes, offset + len(chunk))
            if not more:
                return [], offset
            chunk += more
        whole = chunk[: chunk.rindex(b"\n") + 1]
        records = []
        for line in whole.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records, offset + len(whole)

    def records(self, offset: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the records after a byte offset, reading a part of the file at a time."""
        while True:
            records, following = self.read(offset)
            yield from records
            if following == offset:
                return
            offset = following

    def delivered(self, receiver: str) -> int:
        """Return the offset up to which a receiver has everything; 0 for an unknown receiver."""
        marked, offset = self._read_mark()
        return offset if marked == receiver else 0

    def mark_delivered(self, receiver: str, offset: int) -> None:
        """Remember that a receiver has everything before an offset."""
        write_json(self._mark, {"receiver": receiver, "offset": offset})

    def count_after(self, offset: int) -> int:
        """Return how many records stand after a byte offset."""
        return sum(1 for _ in self.records(offset))

    def close(self) -> None:
        """Close the file; the journal can be opened again later."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _read_mark(self) -> tuple[str, int]:
        """Return receiver and offset; an offset of 0 where no mark is, or a damaged one."""
        try:
            mark = json.loads(self._mark.read_text())
            return str(mark["receiver"]), int(mark["offset"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", 0
