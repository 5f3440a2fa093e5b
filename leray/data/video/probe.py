"""What a dataset's `info.json` says about a video."""

from pathlib import Path
from typing import Any

from leray.data.video.track import open_video


def video_info(path: Path, fps: int) -> dict[str, Any]:
    """Return LeRobot's `info` entry of a video feature.

    Args:
        path: one of the feature's files; they are all alike.
        fps: the dataset's frames per second.

    Returns:
        `video.height`, `video.width`, `video.codec` (h264, hevc, av1), `video.pix_fmt`,
        `video.is_depth_map` (false), `video.fps`, `video.channels` (1 for grey, 3 for colour) and
        `has_audio`; with sound also `audio.channels`, `audio.codec`, `audio.bit_rate`,
        `audio.sample_rate`, `audio.bit_depth` and `audio.channel_layout`.

    Raises:
        DatasetError: the file is missing, damaged, or holds no video.
    """
    with open_video(path) as (container, stream, _):
        context = stream.codec_context
        info = {
            "video.height": context.height,
            "video.width": context.width,
            "video.codec": context.codec.canonical_name,
            "video.pix_fmt": context.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": len(context.format.components),
            "has_audio": bool(container.streams.audio),
        }
        if container.streams.audio:
            audio = container.streams.audio[0].codec_context
            info |= {
                "audio.channels": audio.channels,
                "audio.codec": audio.codec.canonical_name,
                "audio.bit_rate": audio.bit_rate,
                "audio.sample_rate": audio.sample_rate,
                "audio.bit_depth": audio.format.bits,
                "audio.channel_layout": audio.layout.name,
            }
        return info
