"""Making the video files of a new dataset out of clips of the old ones."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from leray.data.tools.rewriting.clips import Clip, clip_of
from leray.data.video.encoder import VideoEncoder
from leray.data.video.join import concatenate, cut
from leray.data.video.options import VideoOptions
from leray.data.video.track import read_track

_FAITHFUL = {"h264": ("h264", 16), "hevc": ("hevc", 18), "av1": ("libsvtav1", 20)}
"""Encoder and quality for frames that cannot be copied: nothing of them should get lost."""


def write_video(clips: Sequence[Clip], target: Path, *, fps: int, scratch: Path) -> int:
    """Join clips into one mp4, copying bytes wherever the codec allows it.

    Args:
        clips: of one form, in order.
        target: the mp4 to make; complete or not there.
        fps: frames per second.
        scratch: folder for parts, deleted afterwards.

    Returns:
        How many frames were encoded anew: clips that begin or end between key frames.

    Raises:
        DatasetError: a source is damaged.
        OSError: the disk is full.
    """
    parts, encoded = [], 0
    try:
        for number, clip in enumerate(clips):
            if clip.is_whole:
                parts.append(clip.path)
                continue
            part = target if len(clips) == 1 else scratch / f"{number:06d}.mp4"
            stretch = (clip.path, clip.start_frame, clip.num_frames)
            if not cut(*stretch, part, _options_like(clip), fps=fps):
                encoded += clip.num_frames
            parts.append(part)
        if parts != [target]:
            concatenate(parts, target, fps=fps)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return encoded


def encode_clip(clip: Clip, target: Path, options: VideoOptions, fps: int) -> Clip:
    """Encode a clip anew, unless its new file is there, and return that as a clip; sound is lost.

    Raises:
        DatasetError: the source is damaged.
        ConfigError: this machine cannot encode with these options.
        OSError: the disk is full.
    """
    if not target.is_file():
        pictures = read_track(clip.path).decode(clip.start_frame, clip.num_frames)
        with VideoEncoder(target, fps=fps, options=options) as encoder:
            for picture in pictures:
                encoder.add_picture(picture)
    return clip_of(read_track(target), 0, clip.num_frames)


def _options_like(clip: Clip) -> VideoOptions | None:
    """Return options with which encoded frames fit beside copied ones."""
    codec, _, _, pix_fmt = clip.form[:4]
    if codec not in _FAITHFUL:
        return None
    vcodec, crf = _FAITHFUL[codec]
    return VideoOptions(vcodec=vcodec, pix_fmt=pix_fmt, crf=crf)
