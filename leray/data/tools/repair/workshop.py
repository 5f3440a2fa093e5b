"""Changing a dataset's files so that nothing stored is ever lost.

The old version of a changed file is kept under `.leray-repair-<n>/`, at the same relative path,
before the new one, complete, takes its place by renaming. So a kill leaves every file old or new.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from leray.data.lerobot.series import atomic_writer
from leray.data.tools.check.orphans import ORPHAN_SUFFIX
from leray.errors import DatasetError
from leray.files import fsync_directory, write_atomic


class Workshop:
    """One repair of one dataset folder: changes files, and remembers what it did.

    Args:
        root: the dataset's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        """What was changed, and what could not be, one line each."""
        self._kept: Path | None = None

    @property
    def kept(self) -> Path | None:
        """Folder of the old files; None while nothing was changed."""
        return self._kept

    def tell(self, line: str) -> None:
        """Note something that was changed."""
        self.lines.append(line)

    def give_up(self, line: str) -> None:
        """Note something that cannot be mended, and why."""
        self.lines.append(f"not mended: {line}")

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a JSON file; text that is no Unicode stays as it is."""
        text = json.dumps(value, indent=4, ensure_ascii=False)
        self.write_bytes(name, text.encode("utf-8", "surrogatepass"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Replace a file."""
        write_atomic(self._prepared(name), content)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Replace a small parquet file, as one row group."""
        with self.parquet_writer(name, table.schema) as writer:
            writer.write_table(table, row_group_size=max(len(table), 1))

    @contextmanager
    def parquet_writer(self, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """Yield a writer whose file takes the place of the old one when the block ends."""
        with atomic_writer(self._prepared(name), schema) as writer:
            yield writer

    def move_aside(self, name: str) -> None:
        """Rename a file or folder so that no reader takes it for part of the dataset."""
        path = self._inside(name)
        target = path.with_name(path.name + ORPHAN_SUFFIX)
        number = 1
        while target.exists():
            number += 1
            target = path.with_name(f"{path.name}.{number}{ORPHAN_SUFFIX}")
        path.rename(target)
        fsync_directory(path.parent)

    def put_away(self, name: str) -> None:
        """Move a leftover to the old files."""
        path = self._inside(name)
        target = self._place(name)
        path.rename(target)
        fsync_directory(path.parent)

    def _prepared(self, name: str) -> Path:
        """Keep the old version of a file, once, and return where the new one goes."""
        path = self._inside(name)
        if path.exists():
            target = self._place(name)
            if not target.exists():
                _link_or_copy(path, target)
        return path

    def _inside(self, name: str) -> Path:
        path = self.root / name
        folder = path.parent.resolve()
        if not folder.is_relative_to(self.root.resolve()):
            raise DatasetError(
                f"{path} lies outside of the dataset's folder (through a link); copy it in first"
            )
        return path

    def _place(self, name: str) -> Path:
        """Return where the old version of a file is kept; the folder is made for the first one."""
        if self._kept is None:
            number = 1
            while True:
                self._kept = self.root / f".leray-repair-{number}"
                try:
                    self._kept.mkdir()
                    break
                except FileExistsError:
                    number += 1
        target = self._kept / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _link_or_copy(path: Path, target: Path) -> None:
    """Give a file's content a second name; where the disk has no links, copy it."""
    content = path.resolve()
    try:
        os.link(content, target)
    except OSError:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            shutil.copyfile(content, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    fsync_directory(target.parent)
