"""Removing what a killed writer left among the videos; frames of listed episodes stay untouched.

A save cut short leaves a video that no episode needs yet. A merge cut short leaves frames twice: in
the merged file and in the segments it was made of, packet by packet the same. Only those are
deleted; any other video that no listed episode needs is set aside under another name.
"""

from pathlib import Path

import numpy as np

from leray.data.lerobot.episodes import EpisodeTable
from leray.data.lerobot.videos import VideoTable
from leray.data.video.join import cut
from leray.data.video.track import VideoTrack, read_track
from leray.errors import DatasetError


def recover_videos(
    root: Path, camera: str, episodes: EpisodeTable, fps: float, orphan_suffix: str
) -> None:
    """Bring the videos of one camera back to the last saved episode.

    Args:
        root: the dataset's folder.
        camera: name of a video feature.
        episodes: the listed episodes.
        fps: frames per second.
        orphan_suffix: ends the name of a video that is set aside.
    """
    table = episodes.videos.get(camera) or VideoTable.build([])
    ends = np.rint(table.start_s * fps).astype(np.int64) + episodes.length[: len(table.file)]
    frames = {
        root / path: int(ends[table.file == number].max())
        for number, path in enumerate(table.files)
    }
    listed = sorted(path for path in frames if path.exists())
    _drop_repeated_frames(listed, frames)
    merged = _track(listed[-1]) if listed else None
    for path in sorted((root / "videos" / camera).glob("*/*.mp4")):
        if path in frames:
            continue
        track = _track(path)
        if merged is not None and track is not None and _holds(merged, track):
            path.unlink()
        else:
            path.rename(path.with_name(path.name + orphan_suffix))


def _drop_repeated_frames(listed: list[Path], frames: dict[Path, int]) -> None:
    """Cut frames off a merged file that the listed segments after it still hold."""
    later_bytes = later_frames = 0
    for position in range(len(listed) - 1, -1, -1):
        path = listed[position]
        # Only a file as large as all later ones together can hold their frames: few are opened.
        if later_frames and path.stat().st_size > later_bytes / 2:
            track = _track(path)
            if track is not None and track.num_frames == frames[path] + later_frames:
                later = [_track(other) for other in listed[position + 1 :]]
                if _ends_with(track, [other for other in later if other is not None]):
                    _shorten(path, frames[path])
                return
        later_bytes += path.stat().st_size
        later_frames += frames[path]


def _shorten(path: Path, num_frames: int) -> None:
    shorter = path.with_name(f".{path.name}.shorter.tmp")
    try:
        if cut(path, 0, num_frames, shorter):  # never replaced by frames that were encoded anew
            shorter.replace(path)
    finally:
        shorter.unlink(missing_ok=True)


def _ends_with(track: VideoTrack, parts: list[VideoTrack]) -> bool:
    first = len(track.index) - sum(len(part.index) for part in parts)
    for part in parts:
        if first < 0 or not _is_at(track, first, part):
            return False
        first += len(part.index)
    return True


def _holds(track: VideoTrack, part: VideoTrack) -> bool:
    """Tell whether a video holds all packets of another in a row."""
    last = len(track.index) - len(part.index)
    starts = np.flatnonzero(track.index.size[: max(last + 1, 0)] == part.index.size[0])
    return any(_is_at(track, first, part) for first in starts.tolist())


def _is_at(track: VideoTrack, first: int, part: VideoTrack) -> bool:
    count = len(part.index)
    if not np.array_equal(track.index.size[first : first + count], part.index.size):
        return False
    try:
        pairs = zip(track.packets(first, count), part.packets(0, count), strict=True)
        return all(mine == other for mine, other in pairs)
    except DatasetError:  # one of them is cut off
        return False


def _track(path: Path) -> VideoTrack | None:
    try:
        return read_track(path)
    except DatasetError:
        return None
