"""A folder that appears under its name when it is complete, and whose making can be interrupted."""

import contextlib
import errno
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from leray.errors import DatasetError
from leray.files import fsync_directory

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def work_folder(output: Path, purpose: str, *, old: Path | None = None) -> Iterator[Path]:
    """Yield the folder beside `output` in which it is made; at the end it gets that name.

    After a kill or on a full disk, the next call of the same purpose finds the folder as it was
    left, but for files that were being written; a call of another purpose finds it empty. After
    other errors nothing is left.

    Args:
        output: the folder to make.
        purpose: what is being made, in full: equal texts stand for equal content.
        old: new name of what is at `output`; when None, nothing may be there.

    Raises:
        DatasetError: `output` or `old` is in use, another process is making it, or the disk is
            full.
    """
    work, note = _places(output)
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        with _locked(note, output) as file:
            check_free(output if old is None else old)
            if file.read() != purpose and work.exists():
                shutil.rmtree(work)
            file.seek(0)
            file.truncate()
            file.write(purpose)
            file.flush()
            work.mkdir(exist_ok=True)
            for leftover in work.rglob(".*.tmp"):
                leftover.unlink()
            try:
                yield work
            except Exception as error:
                if not _is_full(error):
                    shutil.rmtree(work)
                    note.unlink()
                raise
            _bring_to_disk(work)
            if old is not None:
                output.rename(old)
            work.rename(output)
            note.unlink()
            fsync_directory(output.parent)
    except OSError as error:
        if _is_full(error):
            raise DatasetError(
                f"the disk is full: what is ready stays in {work}; free some space and give the "
                "same command again to go on"
            ) from error
        raise DatasetError(f"{output} cannot be made: {error}") from error


def finish_exchange(output: Path, old: Path) -> bool:
    """Go on with an exchange of two folders that a kill interrupted between the two renames.

    Returns:
        True when there was one: `output` is the new folder now.
    """
    work, note = _places(output)
    if output.exists() or not (old.is_dir() and work.is_dir() and note.is_file()):
        return False
    work.rename(output)
    note.unlink()
    fsync_directory(output.parent)
    return True


def check_free(output: Path) -> None:
    """Check that a folder can be made.

    Raises:
        DatasetError: it exists and is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DatasetError(f"{output} exists; give the name of a new folder, or remove it first")


def _places(output: Path) -> tuple[Path, Path]:
    """Return where a folder is made, and the note that says what for, which is also a lock."""
    name = f".{output.name}.partial"
    return output.with_name(name), output.with_name(f"{name}.json")


@contextlib.contextmanager
def _locked(note: Path, output: Path) -> Iterator[IO[str]]:
    with note.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"another process is making {output}; wait for it, or give another folder"
            ) from error
        file.seek(0)
        yield file


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


def _bring_to_disk(folder: Path) -> None:
    """Flush the entries of all folders; files are flushed when they are written."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            fsync_directory(path)
