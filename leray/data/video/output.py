"""An mp4 being written: complete under its final name, or not there at all."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from leray.errors import DatasetError
from leray.files import fsync_directory

_MIN_TICKS_HZ = 10_000


class Mp4Output:
    """An mp4 under a temporary name beside its final one; `commit` renames it.

    Its index precedes the frames (faststart), and its durations are exact multiples of a frame.
    Leaving a `with` block commits, or discards after an error.

    Args:
        path: the file to make or replace.
        rate: frames per second of the video that will be written.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        ticks_hz = rate.numerator
        while ticks_hz < _MIN_TICKS_HZ:
            ticks_hz *= 2
        self.container = av.open(
            f"file:{self._temporary}",
            "w",
            format="mp4",
            container_options={"movflags": "+faststart", "movie_timescale": str(ticks_hz)},
        )
        """Where streams are added and packets go."""

    def commit(self) -> None:
        """Complete the file, bring it to disk and give it its name.

        Raises:
            OSError: the disk is full; the old file is then untouched.
            DatasetError: FFmpeg refused to complete the file.
        """
        try:
            with writing(self._path):
                self.container.close()
            with self._temporary.open("r+b") as file:
                os.fsync(file.fileno())
            self._temporary.replace(self._path)
        except BaseException:
            self.discard()
            raise
        fsync_directory(self._path.parent)

    def discard(self) -> None:
        """Delete what was written; the final name is untouched."""
        self._temporary.unlink(missing_ok=True)
        # Closing tries to complete a file that is gone, or on a full disk.
        with contextlib.suppress(av.FFmpegError, OSError):
            self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what FFmpeg raises into a DatasetError; errors of the disk pass as OSError."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise DatasetError(f"{path} cannot be written: {error}") from error
