"""The growing mp4 files of one camera in one writing session.

Every saved episode is a whole mp4 under a final name, a segment; when the file is complete, its
segments are merged into the first without encoding anew, as `series` describes.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

from leray.data.lerobot.encoded import Segment
from leray.data.lerobot.series import FileNames
from leray.data.video.join import concatenate
from leray.data.video.probe import video_info
from leray.data.video.track import read_track
from leray.errors import DatasetError
from leray.files import fsync_directory


def look_at(path: Path) -> Segment:
    """Look at the complete video of an episode.

    Raises:
        DatasetError: it is damaged.
    """
    track = read_track(path)
    return Segment(path, track.num_frames, path.stat().st_size, (track.format, track.sound))


class VideoFiles:
    """The files of one camera; a new one when the size limit would be passed.

    Args:
        names: of the camera's files.
        first: number of the first file to write.
        limit_bytes: size that a file should not reach.
        fps: frames per second.
    """

    def __init__(self, names: FileNames, first: int, limit_bytes: int, fps: Fraction) -> None:
        self._names = names
        self._base = first
        self._limit_bytes = limit_bytes
        self._fps = fps
        self._open: list[Segment] = []
        self._places: list[tuple[int, int, int]] = []
        """File, first frame in it and number of frames, of each episode of the session."""

    def temporary(self, episode: int) -> Path:
        """Return where the video of an episode is made until it counts."""
        return self._names.path(0).parent.parent / f".episode-{episode:06d}.mp4.tmp"

    def describe(self, fps: int) -> dict[str, Any] | None:
        """Return LeRobot's `info` entry, by the camera's first file; None when there is none."""
        present = self._names.present()
        return video_info(present[0], fps) if present else None

    def has_room(self, segments: Sequence[Segment]) -> bool:
        """Tell whether segments can join the file and keep it below its limit.

        One segment always fits into an empty file.
        """
        together = [*self._open, *segments]
        if len(together) == 1:
            return True
        is_small = sum(segment.num_bytes for segment in together) < self._limit_bytes
        return is_small and len({segment.kind for segment in together}) == 1

    def append(self, segments: Sequence[Segment]) -> None:
        """Give segments their final names, in the order of the episodes."""
        for segment in segments:
            number = self._base + len(self._open)
            path = self._names.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            segment.path.replace(path)
            self._open.append(replace(segment, path=path))
            self._places.append((number, 0, segment.num_frames))
        fsync_directory(self._open[-1].path.parent)

    def merge(self) -> None:
        """Copy all segments into the first; the others stay until `finish`.

        Segments that cannot be joined, such as videos of rare codecs, stay files of their own.
        """
        if len(self._open) < 2:
            return
        paths = [segment.path for segment in self._open]
        whole = int(self._fps) if self._fps.denominator == 1 else None
        try:
            concatenate(paths, paths[0], fps=whole)
        except DatasetError:
            self._base += len(paths) - 1
            self._open = self._open[-1:]
            return
        lengths = [segment.num_frames for segment in self._open]
        starts = accumulate(lengths[:-1], initial=0)
        self._places[-len(paths) :] = [
            (self._base, start, length) for start, length in zip(starts, lengths, strict=True)
        ]

    def finish(self) -> None:
        """Delete the merged segments and go on with the next file."""
        for segment in self._open[1:]:
            segment.path.unlink(missing_ok=True)
        if self._open:
            self._base += 1
        self._open = []

    def columns(self, first: int, count: int) -> dict[str, list[Any]]:
        """Return the columns of the episodes metadata that tell where episodes lie."""
        places = self._places[first : first + count]
        prefix = f"videos/{self._names.video_key}"
        return {
            **self._names.columns(prefix, [file for file, _, _ in places]),
            f"{prefix}/from_timestamp": [float(start / self._fps) for _, start, _ in places],
            f"{prefix}/to_timestamp": [float((start + n) / self._fps) for _, start, n in places],
        }
