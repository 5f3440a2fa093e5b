"""Which frames of which source file make up each video file of a new dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.tools.rewriting.source import Source
from leray.data.video.parameters import key_frame_prefix
from leray.data.video.track import VideoTrack, open_video, read_track
from leray.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Clip:
    """Consecutive frames of a video file."""

    path: Path
    start_frame: int
    num_frames: int
    size: int
    """Bytes."""
    is_whole: bool
    """The file holds nothing else and begins with a key frame: it can be joined as it is."""
    has_sound: bool
    form: tuple[Any, ...]
    """Clips can share a file when this is equal: codec, size, pixel format, sound, and what the
    decoder must know where key frames cannot carry it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the frames of an episode lie in the new dataset."""

    file: int
    """Number of the video file."""
    from_s: float
    to_s: float


class ClipFinder:
    """Finds episodes' frames in the video files of one camera; for episodes in order.

    Args:
        camera: name of a video feature.
    """

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._track: VideoTrack | None = None
        self._times_s: NDArray[np.floating[Any]] = np.zeros(0)
        """When the frames of that file are shown."""

    def find(self, source: Source, position: int) -> Clip:
        """Return the frames of an episode.

        Args:
            source: the dataset.
            position: row of the episode in its episode table.

        Raises:
            DatasetError: the file is missing or damaged, or has too few frames.
        """
        episodes = source.metadata.episodes
        table = episodes.videos[self._camera]
        track = self._open(source.metadata.root / table.files[table.file[position]])
        start = int(np.abs(self._times_s - table.start_s[position]).argmin())
        length = int(episodes.length[position])
        if start + length > track.num_frames:
            raise DatasetError(
                f"{track.path} has {track.num_frames} frames; episode {episodes.index[position]} "
                f"needs {length} from frame {start} on: copy the video again, or see "
                "`leray dataset check`"
            )
        return clip_of(track, start, length)

    def _open(self, path: Path) -> VideoTrack:
        """Return what a file holds; the last one is remembered."""
        if self._track is None or self._track.path != path:
            self._track = read_track(path)
            with open_video(path) as (_, stream, _):
                tick_s = float(stream.time_base)
            self._times_s = self._track.index.pts[self._track.index.packet_of] * tick_s
        return self._track


def clip_of(track: VideoTrack, start_frame: int, num_frames: int) -> Clip:
    """Return a stretch of a video as a clip."""
    index = track.index
    packets = index.packet_of[start_frame : start_frame + num_frames]
    prefixes = [key_frame_prefix(track.codec, extradata) for extradata in index.extradata]
    return Clip(
        path=track.path,
        start_frame=start_frame,
        num_frames=num_frames,
        size=int(index.size[packets].sum()),
        is_whole=bool(num_frames == len(index) and packets[0] == 0 and index.is_key[0]),
        has_sound=track.sound is not None,
        form=(*track.format, track.sound, index.extradata if None in prefixes else ()),
    )


def arrange(
    clips: Sequence[Clip], fps: int, limit_bytes: int
) -> tuple[list[list[Clip]], list[Place]]:
    """Distribute the clips of a camera, one per episode, over files.

    A new file begins where the next clip would reach the size limit, or does not fit the file's
    form. Clips that follow each other in their source are one.

    Args:
        clips: of all episodes, in order.
        fps: frames per second.
        limit_bytes: size that a file should not reach.

    Returns:
        The clips of each file, and where each episode lies.
    """
    files: list[list[Clip]] = []
    places = []
    size = frames = 0
    for clip in clips:
        if not files or clip.form != files[-1][-1].form or size + clip.size >= limit_bytes:
            files.append([])
            size = frames = 0
        end = frames + clip.num_frames
        places.append(Place(len(files) - 1, frames / fps, end / fps))
        files[-1].append(clip)
        size, frames = size + clip.size, end
    return [_joined(file) for file in files], places


def _joined(clips: Sequence[Clip]) -> list[Clip]:
    """Make one clip of those that follow each other in one file."""
    breaks = [
        number
        for number, (left, right) in enumerate(pairwise(clips), start=1)
        if left.path != right.path or left.start_frame + left.num_frames != right.start_frame
    ]
    runs = [list(run) for run in np.split(np.arange(len(clips)), breaks)]
    return [_span([clips[i] for i in run]) for run in runs]


def _span(clips: Sequence[Clip]) -> Clip:
    if len(clips) == 1:
        return clips[0]
    first, last = clips[0], clips[-1]
    end = last.start_frame + last.num_frames
    return clip_of(read_track(first.path), first.start_frame, end - first.start_frame)
