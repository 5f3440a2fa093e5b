"""The encoder: exact frames and times, what options do, and what is left after every failure."""

import os
import resource
import subprocess
import sys
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from leray.data.video.encoder import VideoEncoder, VideoOptions, encoder_name
from leray.data.video.options import HARDWARE
from leray.data.video.output import Mp4Output
from leray.data.video.streaming import StreamingEncoder
from leray.errors import ConfigError, DatasetError, FeatureMismatchError

CODECS = {"libsvtav1": "av1", "h264": "h264", "hevc": "hevc"}
ENCODERS = (VideoEncoder, StreamingEncoder)


def pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth shades with a bright square whose place tells the frame."""
    rows, columns = np.mgrid[0:height, 0:width]
    shades = np.stack([columns * 2, rows * 3, rows + columns], axis=-1).astype(np.uint8)
    frames = []
    for number in range(count):
        frame = shades.copy()
        left = 3 * number % (width - 12)
        frame[10:26, left : left + 12] = (250, 240, 60)
        frames.append(frame)
    return frames


def noise(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    return list(
        np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    )


def encode(path, frames, *, fps=30, kind=VideoEncoder, **options) -> int:
    encoder = kind(path, fps=fps, options=VideoOptions(**options))
    for frame in frames:
        encoder.add(frame)
    return encoder.close()


def decode(path) -> tuple[list[Fraction], list[np.ndarray]]:
    """Return times (s) and RGB frames, by PyAV alone."""
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
        return (
            [frame.pts * frame.time_base for frame in shown],
            [frame.to_ndarray(format="rgb24") for frame in shown],
        )


def packets(path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def psnr_db(left, right) -> float:
    error = np.mean((np.float64(left) - np.float64(right)) ** 2)
    return 10 * np.log10(255**2 / error)


def nearest(frames, shown) -> list[int]:
    """Return which of the frames each shown one resembles most."""
    return [max(range(len(frames)), key=lambda k: psnr_db(frames[k], frame)) for frame in shown]


@pytest.fixture
def full_disk():
    """Let no file of this process grow beyond a few kilobytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("fps", [1, 10, 24, 29, 30, 120])
@pytest.mark.parametrize("vcodec", CODECS)
def test_frames_and_times_are_exact(tmp_path, vcodec, fps, kind):
    path = tmp_path / "deep" / "a.mp4"
    frames = pictures(7)
    assert encode(path, frames, fps=fps, kind=kind, vcodec=vcodec, crf=12) == 7
    times, shown = decode(path)
    assert times == [Fraction(k, fps) for k in range(7)]
    assert min(map(psnr_db, frames, shown)) > 30
    assert nearest(frames, shown) == list(range(7))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == CODECS[vcodec]
        assert (stream.frames, stream.average_rate, stream.start_time) == (7, fps, 0)
        assert stream.duration * stream.time_base == Fraction(7, fps)
        assert container.duration == pytest.approx(7e6 / fps, abs=1)
        assert (stream.width, stream.height, stream.pix_fmt) == (64, 48, "yuv420p")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("vcodec", CODECS)
def test_key_frames_are_where_asked_and_nothing_is_reordered(tmp_path, vcodec):
    for g in (1, 2, 5):
        encode(tmp_path / "a.mp4", pictures(12), vcodec=vcodec, g=g)
        found = packets(tmp_path / "a.mp4")
        assert [packet.pts for packet in found] == [packet.dts for packet in found]
        keys = [k for k, packet in enumerate(found) if packet.is_keyframe]
        assert set(range(0, 12, g)) <= set(keys)  # a scene change may add one
        assert len(keys) < 12 or g == 1


@pytest.mark.parametrize("vcodec", CODECS)
def test_one_frame_is_a_video(tmp_path, vcodec):
    assert encode(tmp_path / "a.mp4", pictures(1), fps=10, vcodec=vcodec) == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(1, 10)
    assert decode(tmp_path / "a.mp4")[0] == [0]


def test_index_precedes_the_frames(tmp_path):
    encode(tmp_path / "a.mp4", pictures(3))
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


QUIET = """
import sys
from pathlib import Path
import numpy as np
from leray.data.video.encoder import VideoEncoder, VideoOptions

folder, vcodec = Path(sys.argv[1]), sys.argv[2]
for name, end in (("a.mp4", VideoEncoder.close), ("b.mp4", VideoEncoder.abort)):
    encoder = VideoEncoder(folder / name, fps=30, options=VideoOptions(vcodec=vcodec))
    for shade in range(3):
        encoder.add(np.full((48, 64, 3), shade, np.uint8))
    end(encoder)
"""


@pytest.mark.parametrize("vcodec", CODECS)
def test_encoders_print_nothing(tmp_path, vcodec):
    # In a process of its own: the libraries look at their settings once, at their first use.
    command = [sys.executable, "-c", QUIET, str(tmp_path), vcodec]
    plain = {name: value for name, value in os.environ.items() if name != "SVT_LOG"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.mp4").is_file()


def test_arrays_may_be_read_only_or_scattered(tmp_path):
    frame = pictures(1)[0]
    fixed = frame.copy()
    fixed.flags.writeable = False
    channels_first = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    encode(tmp_path / "a.mp4", [frame, fixed, channels_first], vcodec="h264", crf=8, g=1)
    assert min(psnr_db(frame, shown) for shown in decode(tmp_path / "a.mp4")[1]) > 30


def test_odd_sizes(tmp_path):
    odd = pictures(3, 47, 63)
    encoder = VideoEncoder(tmp_path / "a.mp4", fps=30, options=VideoOptions(vcodec="h264"))
    with pytest.raises(ConfigError, match=r"63x47 .*yuv420p.* even .*libsvtav1"):
        encoder.add(odd[0])
    encoder.add(pictures(1)[0])  # nothing was added: the size is still open
    assert encoder.close() == 1
    encode(tmp_path / "a.mp4", odd, vcodec="h264", pix_fmt="yuv444p")
    assert decode(tmp_path / "a.mp4")[1][0].shape == (47, 63, 3)
    encode(tmp_path / "a.mp4", odd, crf=12)
    shown = decode(tmp_path / "a.mp4")[1][0]
    assert psnr_db(odd[0][:, -3:], shown[:, -3:]) > 30
    assert psnr_db(odd[0][-3:], shown[-3:]) > 30


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (np.zeros((48, 60, 3), np.uint8), r"\[48, 60, 3\].*\[48, 64, 3\]"),
        (np.zeros((48, 64, 3), np.float32), "float32.*uint8"),
        (np.zeros((48, 64, 4), np.uint8), "4"),
        (np.zeros((48, 64), np.uint8), r"\[48, 64\]"),
        (np.zeros((0, 64, 3), np.uint8), r"\[0, 64, 3\]"),
    ],
)
def test_other_frames_are_refused_and_the_rest_is_kept(tmp_path, kind, frame, said):
    encoder = kind(tmp_path / "a.mp4", fps=30, options=VideoOptions(vcodec="h264"))
    first, second = pictures(2)
    encoder.add(first)
    with pytest.raises(FeatureMismatchError, match=said):
        encoder.add(frame)
    encoder.add(second)
    assert encoder.close() == 2


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_file_is_replaced_only_at_the_end(tmp_path, kind):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    encoder = kind(path, fps=30)
    for frame in pictures(30):
        encoder.add(frame)
    assert path.read_bytes() == b"old"
    encoder.abort()
    encoder.abort()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
    with pytest.raises(DatasetError, match="aborted"):
        encoder.add(pictures(1)[0])
    with pytest.raises(DatasetError, match="aborted"):
        encoder.close()


@pytest.mark.parametrize("kind", ENCODERS)
def test_closing_twice_and_aborting_late_keep_the_file(tmp_path, kind):
    path = tmp_path / "a.mp4"
    with kind(path, fps=30) as encoder:
        for frame in pictures(3):
            encoder.add(frame)
    assert encoder.close() == 3
    encoder.abort()
    assert len(decode(path)[0]) == 3
    with pytest.raises(DatasetError, match="complete"):
        encoder.add(pictures(1)[0])


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_error_in_the_block_aborts(tmp_path, kind):
    def record():
        with kind(tmp_path / "a.mp4", fps=30) as encoder:
            encoder.add(pictures(1)[0])
            raise KeyError

    with pytest.raises(KeyError):
        record()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ENCODERS)
def test_no_frame_is_no_video(tmp_path, kind):
    with pytest.raises(DatasetError, match="no frame"):
        kind(tmp_path / "a.mp4", fps=30).close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("vcodec", CODECS)
def test_full_disk(tmp_path, vcodec, full_disk):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(OSError, match="File too large"):
        encode(tmp_path / "a.mp4", noise(40), vcodec=vcodec, crf=5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


@pytest.mark.parametrize("fps", [0, -1, 2.5, "30", True])
def test_bad_fps(tmp_path, fps):
    with pytest.raises(ConfigError, match="fps"):
        VideoEncoder(tmp_path / "a.mp4", fps=fps)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vcodec": "vp9"}, "'vp9'.*libsvtav1, h264, hevc"),
        ({"g": 0}, "g must be .* from 1"),
        ({"crf": 64}, "1 to 63 for libsvtav1"),
        ({"crf": 0}, "1 to 63 for libsvtav1"),
        ({"crf": 52, "vcodec": "h264"}, "0 to 51 for h264"),
        ({"crf": True}, "integer"),
        ({"preset": 14}, "0 to 13"),
        ({"preset": "fast"}, "0 to 13"),
        ({"preset": 12, "vcodec": "h264"}, "12 is not for h264; one of ultrafast"),
        ({"preset": 1, "vcodec": "h264_nvenc"}, "neither preset"),
        ({"fast_decode": 3}, "0 to 2"),
    ],
)
def test_bad_options(values, said):
    with pytest.raises(ConfigError, match=said):
        VideoOptions(**values)


def test_bad_pix_fmt_names_those_allowed(tmp_path):
    with pytest.raises(ConfigError, match="'yuv444p' is not for libsvtav1; one of yuv420p"):
        VideoEncoder(tmp_path / "a.mp4", fps=30, options=VideoOptions(pix_fmt="yuv444p"))


def test_a_size_that_the_encoder_refuses(tmp_path):
    encoder = VideoEncoder(tmp_path / "a.mp4", fps=30, options=VideoOptions(vcodec="hevc"))
    with pytest.raises(ConfigError, match="libx265 cannot encode 8x8"):
        encoder.add(np.zeros((8, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_defaults_are_those_of_lerobot():
    options = VideoOptions()
    assert (options.vcodec, options.pix_fmt, options.g, options.crf) == (
        "libsvtav1",
        "yuv420p",
        2,
        30,
    )
    assert options.encoder_options("libsvtav1") == {"g": "2", "crf": "30", "preset": "12"}
    faster = VideoOptions(fast_decode=2).encoder_options("libsvtav1")
    assert faster["svtav1-params"] == "fast-decode=2"  # changes large pictures only


def test_synonyms():
    assert encoder_name("h264") == encoder_name("libx264") == "libx264"
    assert encoder_name("hevc") == encoder_name("libx265") == "libx265"


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ({"crf": 60}, {"crf": 10}),
        ({"crf": 45, "vcodec": "h264"}, {"crf": 10, "vcodec": "h264"}),
        ({"crf": 45, "vcodec": "hevc"}, {"crf": 10, "vcodec": "hevc"}),
        ({"g": 30}, {"g": 1}),
        ({"g": 30, "vcodec": "h264"}, {"g": 1, "vcodec": "h264"}),
    ],
)
def test_quality_and_key_frames_change_the_size(tmp_path, coarse, fine):
    sizes = []
    for options in (coarse, fine):
        encode(tmp_path / "a.mp4", pictures(30), **options)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] * 1.2 < sizes[1]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"preset": 12}, {"preset": 4}),
        ({"preset": None}, {"preset": 4}),
        ({"vcodec": "h264"}, {"vcodec": "h264", "preset": "ultrafast"}),
        ({"vcodec": "h264"}, {"vcodec": "h264", "fast_decode": 1}),
        ({"vcodec": "hevc"}, {"vcodec": "hevc", "preset": "ultrafast"}),
        ({"vcodec": "hevc"}, {"vcodec": "hevc", "fast_decode": 1}),
    ],
)
def test_effort_reaches_the_encoder(tmp_path, left, right):
    contents = []
    for options in (left, right):
        encode(tmp_path / "a.mp4", pictures(10, 96, 128), g=10, **options)
        contents.append([bytes(packet) for packet in packets(tmp_path / "a.mp4")])
    assert contents[0] != contents[1]


@pytest.mark.parametrize("vcodec", HARDWARE)
def test_options_of_hardware_encoders_exist(vcodec):
    options = VideoOptions(vcodec=vcodec, crf=20).encoder_options(vcodec)
    assert "20" in options.values() or options["global_quality"] == str(118 * 61)
    if vcodec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {vcodec}")
    known = av.CodecContext.create(vcodec, "w").supported_options
    assert set(options) <= {option.name for option in (*known.generic, *known.private)}


@pytest.mark.parametrize("vcodec", HARDWARE)
def test_hardware_encodes_or_says_that_it_cannot(tmp_path, vcodec):
    frames = pictures(4, 192, 256)
    reason = ""
    try:
        encode(tmp_path / "a.mp4", frames, vcodec=vcodec)
    except ConfigError as error:
        reason = str(error)
    if reason:
        assert vcodec in reason
        assert not list(tmp_path.iterdir())
    else:
        assert len(decode(tmp_path / "a.mp4")[0]) == 4


def test_auto_finds_an_encoder_that_works(tmp_path):
    assert encoder_name("auto") in (*HARDWARE, "libsvtav1")
    frames = pictures(5, 192, 256)
    encode(tmp_path / "a.mp4", frames, vcodec="auto", preset=10)
    assert min(map(psnr_db, frames, decode(tmp_path / "a.mp4")[1])) > 28


def test_streaming_copies_and_keeps_the_order_when_the_encoder_is_slow(tmp_path):
    options = VideoOptions(vcodec="hevc", preset="placebo", crf=10)
    frames = pictures(12, 240, 320)
    encoder = StreamingEncoder(tmp_path / "a.mp4", fps=30, options=options, queue_frames=1)
    reused = np.empty_like(frames[0])
    for frame in frames:
        reused[:] = frame
        encoder.add(reused)
        assert encoder.num_waiting <= 1
    assert encoder.blocked_s > 0
    assert encoder.close() == 12
    assert nearest(frames, decode(tmp_path / "a.mp4")[1]) == list(range(12))


def test_streaming_does_not_block_while_the_queue_has_room(tmp_path):
    options = VideoOptions(vcodec="hevc", preset="placebo", crf=10)
    encoder = StreamingEncoder(tmp_path / "a.mp4", fps=30, options=options, queue_frames=12)
    began = time.monotonic()
    for frame in pictures(12, 240, 320):
        encoder.add(frame)
    added_s = time.monotonic() - began
    assert encoder.close() == 12
    assert encoder.blocked_s == 0
    assert added_s < 0.5 * (time.monotonic() - began)


def test_errors_of_the_thread_surface(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    encoder = StreamingEncoder(tmp_path / "file" / "a.mp4", fps=30, queue_frames=2)

    def record():
        for frame in pictures(100):
            encoder.add(frame)

    with pytest.raises(FileExistsError):
        record()
    with pytest.raises(FileExistsError):
        encoder.close()
    encoder.abort()


def test_streaming_on_a_full_disk(tmp_path, full_disk):
    with pytest.raises(OSError, match="File too large"):
        encode(tmp_path / "a.mp4", noise(60), kind=StreamingEncoder, vcodec="h264", crf=5)
    assert not list(tmp_path.iterdir())


def test_the_cause_is_told_while_the_thread_still_clears_up(tmp_path, monkeypatch):
    clearing, asked = threading.Event(), threading.Event()

    def slow_discard(output):
        clearing.set()
        asked.wait(10)

    def fail(encoder, picture):
        raise OSError("no space left")

    monkeypatch.setattr(Mp4Output, "discard", slow_discard)
    monkeypatch.setattr(VideoEncoder, "_encode", fail)
    frames = noise(2)
    encoder = StreamingEncoder(tmp_path / "a.mp4", fps=30, queue_frames=2)
    encoder.add(frames[0])
    assert clearing.wait(10)
    threading.Timer(0.2, asked.set).start()
    with pytest.raises(OSError, match="no space left"):
        encoder.add(frames[1])
