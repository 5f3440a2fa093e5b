"""The `info` entry of a video feature, for every codec and with sound."""

from fractions import Fraction

import av
import numpy as np
import pytest

from leray.data.video.probe import video_info
from leray.errors import DatasetError


def make(path, encoder, *, pix_fmt="yuv420p", with_sound=False):
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream(encoder, rate=20, width=64, height=48, pix_fmt=pix_fmt)
        sound = container.add_stream("aac", rate=16000, layout="mono") if with_sound else None
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 40, np.uint8))
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
            samples.sample_rate, samples.time_base, samples.pts = 16000, Fraction(1, 16000), 0
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


@pytest.mark.parametrize(
    ("encoder", "codec"), [("libx264", "h264"), ("libx265", "hevc"), ("libsvtav1", "av1")]
)
def test_info_of_every_codec(tmp_path, encoder, codec):
    assert video_info(make(tmp_path / "a.mp4", encoder), 20) == {
        "video.height": 48,
        "video.width": 64,
        "video.codec": codec,
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": 20,
        "video.channels": 3,
        "has_audio": False,
    }


def test_grey_has_one_channel(tmp_path):
    info = video_info(make(tmp_path / "a.mp4", "libx265", pix_fmt="gray"), 20)
    assert (info["video.pix_fmt"], info["video.channels"]) == ("gray", 1)


def test_info_with_sound(tmp_path):
    info = video_info(make(tmp_path / "a.mp4", "libx264", with_sound=True), 20)
    assert info["has_audio"] is True
    assert info["audio.bit_rate"] > 0
    assert {key: info[key] for key in info if key.startswith("audio.")} == {
        "audio.channels": 1,
        "audio.codec": "aac",
        "audio.bit_rate": info["audio.bit_rate"],
        "audio.sample_rate": 16000,
        "audio.bit_depth": 32,
        "audio.channel_layout": "mono",
    }


def test_what_is_no_video(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.mp4 is missing"):
        video_info(tmp_path / "a.mp4", 20)
    (tmp_path / "a.mp4").write_bytes(b"not a video" * 99)
    with pytest.raises(DatasetError, match=r"a\.mp4 is damaged or not a video"):
        video_info(tmp_path / "a.mp4", 20)
    with pytest.raises(DatasetError, match="cannot be read"):
        video_info(tmp_path, 20)
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
        samples.sample_rate, samples.time_base, samples.pts = 16000, Fraction(1, 16000), 0
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    with pytest.raises(DatasetError, match="holds no video"):
        video_info(tmp_path / "b.mp4", 20)
