"""Small videos encoded by PyAV, and the pictures that PyAV's own loop over them gives."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from numpy.typing import NDArray

CLOCK_HZ = 15360  # ticks of the presentation times handed in
X265 = "log-level=none"

KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264 g=2": ("libx264", "yuv420p", {"g": "2", "crf": "30"}),
    "h264 g=10": ("libx264", "yuv420p", {"g": "10", "bf": "0"}),
    "h264 g=10 10 bit": ("libx264", "yuv420p10le", {"g": "10"}),
    "h264 g=250": ("libx264", "yuv420p", {}),
    "h264 g=250 444": ("libx264", "yuv444p", {"preset": "fast"}),
    "h264 open": ("libx264", "yuv420p", {"g": "12", "x264-params": "open-gop=1:bframes=5"}),
    "h264 refresh": ("libx264", "yuv420p", {"g": "12", "x264-params": "intra-refresh=1"}),
    "hevc g=2": ("libx265", "yuv420p", {"x265-params": f"{X265}:keyint=2"}),
    "hevc g=250 10 bit": ("libx265", "yuv420p10le", {"x265-params": X265}),
    "hevc open": ("libx265", "yuv420p", {"x265-params": f"{X265}:keyint=10:min-keyint=10"}),
    "av1 g=2": ("libsvtav1", "yuv420p", {"g": "2", "crf": "30", "preset": "12"}),
    "av1 g=10 10 bit": ("libsvtav1", "yuv420p10le", {"g": "10", "preset": "12"}),
    "av1 g=250": ("libsvtav1", "yuv420p", {"g": "250", "preset": "12"}),
}
"""Encoder, storage of colour and options; "g" is the length of a group of pictures, and in "open"
ones pictures lean on both sides of a key frame."""


class Video(NamedTuple):
    path: Path
    frames: NDArray[np.uint8]  # [n, H, W, 3], from a reading from start to end
    timestamps: NDArray[np.float64]  # [n]


class Packet(NamedTuple):
    position: int
    size: int
    frame: int


def picture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """A texture that moves and changes; no two are alike."""
    blocks = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = np.roll(np.kron(blocks, np.ones((8, 8, 1), np.uint8)), 3 * number, axis=1)
    image[:8, : width // 2] = number * 37 % 256
    image[8:16, : width // 2] = number * 5 % 256
    return image


def encode(
    path: Path,
    encoder: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    *,
    num_frames: int = 60,
    size: tuple[int, int] = (48, 64),
    ticks: Iterable[int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(encoder, rate=30, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, CLOCK_HZ)
        for number, tick in enumerate(ticks if ticks is not None else range(num_frames)):
            frame = av.VideoFrame.from_ndarray(picture(number, *size))
            if ticks is not None:
                frame.pts, frame.time_base = tick, Fraction(1, CLOCK_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode(path: Path) -> Video:
    """What a plain loop over the file gives."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [
            (frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)
        ]
        base = stream.time_base
    frames = np.stack([pixels for _, pixels in shown])
    assert len({pixels.tobytes() for pixels in frames}) == len(frames)  # a mix-up would be seen
    return Video(path, frames, np.array([float(pts * base) for pts, _ in shown]))


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Video]:
    """Makes one of `KINDS`, once."""
    folder = tmp_path_factory.mktemp("videos")
    made: dict[str, Video] = {}

    def make(kind: str) -> Video:
        if kind not in made:
            made[kind] = decode(encode(folder / f"{kind}.mp4", *KINDS[kind]))
        return made[kind]

    return make


@pytest.fixture(params=KINDS)
def any_video(request: pytest.FixtureRequest, video: Callable[[str], Video]) -> Video:
    return video(request.param)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Encodes a video of its own: the arguments of `encode`, less the path."""

    def make_one(*args: Any, suffix: str = ".mp4", **kwargs: Any) -> Path:
        return encode(tmp_path / f"made{suffix}", *args, **kwargs)

    return make_one


@pytest.fixture(scope="session")
def plain_loop() -> Callable[[Path], Video]:
    return decode


@pytest.fixture(scope="session")
def packets_of() -> Callable[[Path], list[Packet]]:
    """Lists the packets of a video in decoding order."""

    def packets_of_one(path: Path) -> list[Packet]:
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            order = sorted(packet.pts for packet in packets)
            return [Packet(p.pos, p.size, order.index(p.pts)) for p in packets]

    return packets_of_one
