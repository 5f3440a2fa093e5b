"""Making the video files of a new dataset out of clips of the old ones."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from leray.data.tools.rewriting.clips import Clip, clip_of
from leray.data.video.encoder import VideoEncoder
from leray.data.video.join import concatenate, cut
from leray.data.video.options import VideoOptions
from leray.data.video.track import read_track


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
            if not cut(clip.path, clip.start_frame, clip.num_frames, part, fps=fps):
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
