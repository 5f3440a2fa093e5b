"""Where episodes lie in a video file: on its frames, whole, and apart from each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.data.video.reader import VideoReader


def check_spans(
    contents: Contents,
    camera: str,
    number: int,
    video: VideoReader,
    tolerance_s: float,
    findings: Findings,
) -> None:
    """Check the stretch of one video file that each of its episodes is said to have."""
    table = contents.episodes.videos[camera]
    name = table.files[number]
    positions = np.flatnonzero(table.file == number)
    positions = positions[np.argsort(table.start_s[positions], kind="stable")]
    lengths = contents.episodes.length[positions]
    needed = int(lengths.sum())
    where: dict[str, Any] = {"file": name, "column": camera}
    if video.num_frames < needed:
        message = f"has {video.num_frames} frames, its episodes need {needed}"
        findings.error("video-frames", message, **where)
    elif video.num_frames > needed:
        message = f"has {video.num_frames} frames, its episodes need only {needed}"
        findings.note("video-frames", message, **where)
    repairable = contents.is_v3 and are_spans_derivable(contents, positions, video.num_frames)
    end, before = 0, -1
    jitter_s, unsteady = 0.0, -1
    for position in positions.tolist():
        index = int(contents.episodes.index[position])
        first = video.frame_at(float(table.start_s[position]))
        for problem in _problems(contents, camera, position, first, video, tolerance_s):
            findings.error("video-span", problem, episode=index, repairable=repairable, **where)
        if first < end:
            message = f"begins at frame {first}, before episode {before} ends at frame {end}"
            findings.error("video-span", message, episode=index, repairable=repairable, **where)
        end, before = first + int(contents.episodes.length[position]), index
        off_s = _jitter_s(video.timestamps[first:end], contents.fps)
        if off_s > jitter_s:
            jitter_s, unsteady = off_s, index
    if jitter_s > tolerance_s:
        message = f"frames are up to {jitter_s:.6g} s off a steady {contents.fps:g} per second"
        findings.error("video-rate", message, episode=unsteady, **where)


def _jitter_s(times: NDArray[np.float64], fps: float) -> float:
    """Return by how much frames are shown off their place after the first, at most."""
    return float(np.abs(times - times[0] - np.arange(len(times)) / fps).max())


def are_spans_derivable(contents: Contents, positions: NDArray[np.int64], num_frames: int) -> bool:
    """Tell whether episodes fill a file exactly, in their order, so that their places follow."""
    return int(contents.episodes.length[positions].sum()) == num_frames


def _problems(
    contents: Contents,
    camera: str,
    position: int,
    first: int,
    video: VideoReader,
    tolerance_s: float,
) -> list[str]:
    """Say what is wrong with the span of one episode, in seconds and frames."""
    table, fps = contents.episodes.videos[camera], contents.fps
    start_s, end_s = float(table.start_s[position]), float(table.end_s[position])
    length = int(contents.episodes.length[position])
    problems = []
    shown_s = float(video.timestamps[first])
    if abs(shown_s - start_s) > tolerance_s:
        problems.append(f"begins at {start_s:.6g} s, the nearest frame is shown at {shown_s:.6g} s")
    if first + length > video.num_frames:
        problems.append(f"needs frames {first} to {first + length - 1} of {video.num_frames}")
    # The end is read off the file's duration by LeRobot: it may be off by a part of a frame.
    if np.isfinite(end_s) and abs(end_s - start_s - length / fps) > 0.5 / fps:
        stated = round((end_s - start_s) * fps, 2)
        problems.append(
            f"lasts from {start_s:.6g} s to {end_s:.6g} s, {stated:g} frames; it has {length}"
        )
    return problems
