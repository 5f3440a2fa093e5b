"""The cameras' video files: there, whole, as declared, and long enough for their episodes."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature
from leray.data.lerobot import layout
from leray.data.tools.check.contents import Contents
from leray.data.tools.check.findings import Findings
from leray.data.tools.check.spans import check_spans
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

_LONG_GROUP = 30
"""Frames between key frames above which random access is slow; LeRobot's recorder uses 2."""
_DECODED_TOGETHER = 16
_MAX_DAMAGED = 20
"""Frames of a file that are reported one by one."""


def check_videos(
    contents: Contents,
    findings: Findings,
    *,
    depth: Literal["fast", "full", "none"],
    tolerance_s: float,
    progress: Callable[[int, int], None],
) -> None:
    """Check every video file of every camera.

    Args:
        contents: the dataset.
        findings: gains what is wrong.
        depth: `none` asks only whether the files exist, `fast` reads their list of frames, `full`
            decodes every frame.
        tolerance_s: by how much the time of a frame may be off.
        progress: called with the files done and their number.
    """
    cameras = [camera for camera in contents.cameras if camera in contents.episodes.videos]
    total = sum(len(contents.episodes.videos[camera].files) for camera in cameras)
    done = 0
    for camera in cameras:
        declared = declared_info(contents.info, camera)
        if declared is None and depth != "none":
            message = "says nothing about codec, size and frame rate"
            where = {"file": layout.INFO, "column": camera}
            findings.note("video-info", message, repairable=True, **where)
        for number, name in enumerate(contents.episodes.videos[camera].files):
            progress(done, total)
            done += 1
            if not (contents.root / name).is_file():
                findings.error("video", f"is missing, {_held(contents, camera, number)}", file=name)
            elif depth != "none":
                _check_file(contents, camera, number, findings, depth, tolerance_s)
    progress(total, total)


def declared_info(info: Mapping[str, Any], camera: str) -> dict[str, Any] | None:
    """Return what `info.json` says about a camera's files; old versions call it `video_info`."""
    entry = info["features"][camera]
    found = next((entry[key] for key in ("info", "video_info") if entry.get(key)), None)
    return found if isinstance(found, dict) else None


def _held(contents: Contents, camera: str, number: int) -> str:
    positions = np.flatnonzero(contents.episodes.videos[camera].file == number)
    indices = contents.episodes.index[positions]
    if len(indices) == 1:
        return f"it should hold episode {indices[0]}"
    return f"it should hold {len(indices)} episodes, {indices[0]} to {indices[-1]}"


def _check_file(
    contents: Contents,
    camera: str,
    number: int,
    findings: Findings,
    depth: Literal["fast", "full", "none"],
    tolerance_s: float,
) -> None:
    name = contents.episodes.videos[camera].files[number]
    where: dict[str, Any] = {"file": name, "column": camera}
    try:
        with VideoReader(contents.root / name, name=name, threads=2) as video:
            _check_declaration(contents, camera, video, where, findings)
            _check_rate(contents.fps, video, where, findings)
            _check_groups(contents, video, name, where, findings)
            if video.num_complete < video.num_frames:
                message = f"is cut off: it lists {video.num_frames} frames and holds "
                findings.error("video", f"{message}{video.num_complete}", **where)
            check_spans(contents, camera, number, video, tolerance_s, findings)
            if depth == "full":
                _decode(video, where, findings)
    except DatasetError as error:
        stated = declared_info(contents.info, camera) or {}
        if stated.get("video.is_depth_map") is True or stated.get("is_depth_map") is True:
            findings.note("video", f"was not looked at: {error}", **where)
        else:
            findings.error("video", str(error), **where)


def _check_declaration(
    contents: Contents,
    camera: str,
    video: VideoReader,
    where: dict[str, Any],
    findings: Findings,
) -> None:
    feature: Feature = contents.features[camera]
    size = (video.height, video.width, 3)
    if len(feature.shape) == 3 and feature.image_shape != size:
        found, declared = _times(size), _times(feature.image_shape)
        message = f"shows {found} (height, width, channels), declared is {declared}"
        findings.error("video-shape", message, repairable=True, **where)
    declared_entry = declared_info(contents.info, camera)
    if declared_entry is None:
        return
    facts = {
        "video.height": video.height,
        "video.width": video.width,
        "video.codec": video.codec,
        "video.pix_fmt": video.pix_fmt,
        "video.channels": 3,
        "video.fps": contents.fps,
    }
    for key, fact in facts.items():
        if key in declared_entry and declared_entry[key] != fact:
            message = f"{key} is {fact}, declared is {declared_entry[key]!r}"
            findings.warning("video-info", message, repairable=True, **where)


def _times(shape: tuple[int, int, int]) -> str:
    return "x".join(map(str, shape))


def _check_rate(fps: float, video: VideoReader, where: dict[str, Any], findings: Findings) -> None:
    times: NDArray[np.float64] = video.timestamps
    if video.num_frames < 2:
        return
    step_s = float(times[-1] - times[0]) / (video.num_frames - 1)
    # A drift of less than half a frame over the whole file is jitter, see `check_spans`.
    if abs(step_s - 1 / fps) * (video.num_frames - 1) > 0.5 / fps:
        rate = 1 / step_s if step_s > 0 else 0.0
        findings.error("video-rate", f"has {rate:.6g} frames per second, not {fps:g}", **where)


def _check_groups(
    contents: Contents, video: VideoReader, name: str, where: dict[str, Any], findings: Findings
) -> None:
    edges = np.append(video.keyframes, video.num_frames)
    longest = int(np.diff(edges, prepend=0).max())
    if longest > _LONG_GROUP:
        message = f"has up to {longest} frames from one key frame to the next: random access is "
        findings.note("key-frames", f"{message}slow; LeRobot's recorder uses 2", **where)
    limit = contents.info.get("video_files_size_in_mb", layout.VIDEO_FILES_SIZE_IN_MB)
    size = (contents.root / name).stat().st_size / 2**20
    if contents.is_v3 and type(limit) is int and size > limit:
        findings.note("file-size", f"has {size:.0f} MiB, the limit is {limit}", **where)


def _decode(video: VideoReader, where: dict[str, Any], findings: Findings) -> None:
    """Decode all frames, a few at a time; those that fail are found one by one."""
    damaged = 0
    for first in range(0, video.num_complete, _DECODED_TOGETHER):
        frames = np.arange(first, min(first + _DECODED_TOGETHER, video.num_complete))
        try:
            video.read(frames)
        except DatasetError:
            for frame in frames:
                try:
                    video.read([int(frame)])
                except DatasetError as error:
                    findings.error("video-frame", str(error), **where)
                    damaged += 1
            if damaged >= _MAX_DAMAGED:
                message = f"the frames after {frames[-1]} were not decoded any more"
                findings.note("video-frame", message, **where)
                return
