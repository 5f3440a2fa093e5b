"""Frames to mp4 and back."""

import av
import numpy as np
import pytest

from leray.envs.video import write_video


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream, frames


def test_frames_come_back_in_order_and_colour(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    frames = [np.full((32, 48, 3), colour, np.uint8) for colour in colours for _ in range(4)]
    path = tmp_path / "deep" / "film.mp4"
    write_video(path, frames, fps=25)
    stream, decoded = read(path)
    assert len(decoded) == 12
    assert (stream.width, stream.height, stream.average_rate) == (48, 32, 25)
    assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")  # browsers play it
    for number, colour in enumerate(colours):
        error = decoded[4 * number + 2].astype(int).mean((0, 1)) - colour
        assert np.abs(error).max() < 20


@pytest.mark.parametrize("fps", [10, 29.97, 0.5])
def test_any_frame_rate(tmp_path, fps):
    path = tmp_path / "film.mp4"
    write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 3, fps=fps)
    stream, decoded = read(path)
    assert float(stream.average_rate) == pytest.approx(fps, rel=1e-3)
    assert len(decoded) == 3


def test_odd_sizes_lose_a_row_and_a_column(tmp_path):
    path = tmp_path / "film.mp4"
    write_video(path, [np.zeros((17, 19, 3), np.uint8)] * 2, fps=10)
    stream, _ = read(path)
    assert (stream.width, stream.height) == (18, 16)
