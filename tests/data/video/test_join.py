"""Joining and cutting: bit for bit where bytes are copied, frame for frame where they are not."""

import itertools
import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from leray.data.video.encoder import VideoEncoder, VideoOptions
from leray.data.video.join import concatenate, cut
from leray.data.video.parameters import key_frame_prefix
from leray.data.video.reader import VideoReader
from leray.errors import ConfigError, DatasetError

HEIGHT, WIDTH = 48, 64
SAMPLE = (
    Path(__file__).parents[4]
    / "shared/data/gr1_picknplace_v20/videos/chunk-000/observation.images.ego_view"
)
B_FRAMES = {"g": "12", "bf": "3", "b_strategy": "0", "sc_threshold": "0"}
KINDS = {
    "h264": ("libx264", {"g": "4", "bf": "0", "sc_threshold": "0"}),
    "h264 with B-frames": ("libx264", B_FRAMES),
    "hevc": ("libx265", {"g": "4", "bf": "0", "x265-params": "log-level=none:scenecut=0"}),
    "hevc with open groups": (
        "libx265",
        {"g": "6", "x265-params": "log-level=none:scenecut=0:open-gop=1:min-keyint=6"},
    ),
    "av1": ("libsvtav1", {"g": "4", "preset": "12"}),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("SVT_LOG", "0")


def pictures(count: int, first: int = 0) -> list[np.ndarray]:
    """Smooth shades with a bright square whose place tells the frame."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    shades = np.stack([columns * 2, rows * 3, rows + columns], axis=-1).astype(np.uint8)
    frames = []
    for number in range(first, first + count):
        frame = shades.copy()
        top, left = 3 * number % (HEIGHT - 12), 5 * number % (WIDTH - 12)
        frame[top : top + 12, left : left + 12] = (250, 240, 60)
        frames.append(frame)
    return frames


def make(path, frames, kind="h264", *, fps=30, size=None, sound=False, clock=None, **options):
    """Encode with PyAV alone."""
    encoder, settings = KINDS[kind]
    container_options = {} if clock is None else {"video_track_timescale": str(clock)}
    with av.open(str(path), "w", format="mp4", container_options=container_options) as container:
        width, height = size or (WIDTH, HEIGHT)
        video = container.add_stream(
            encoder, rate=fps, options=settings | options, width=width, height=height
        )
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts, picture.time_base = number, Fraction(1, fps)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None:
            beep = np.sin(np.arange(16000 * len(frames) // fps) * 0.2)[None].astype(np.float32)
            samples = av.AudioFrame.from_ndarray(beep, "fltp", "mono")
            samples.sample_rate, samples.time_base, samples.pts = 16000, Fraction(1, 16000), 0
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def decode(path) -> tuple[list[Fraction], np.ndarray]:
    """Return times (s) and the stored samples of all frames, by PyAV alone."""
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
        return (
            [frame.pts * frame.time_base for frame in shown],
            np.stack([frame.to_ndarray() for frame in shown]),
        )


def sound_s(path) -> tuple[float, float]:
    """Return begin and end of the sound."""
    with av.open(str(path)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
        return times[0], times[-1] + 1024 / 16000


def check_exact(path, expected, fps=30) -> None:
    """Assert that a file shows these samples at exact times and states its length exactly."""
    times, frames = decode(path)
    np.testing.assert_array_equal(frames, expected)
    assert times == [Fraction(k, fps) for k in range(len(expected))]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate) == (len(expected), fps)
        assert stream.duration * stream.time_base == Fraction(len(expected), fps)
        assert container.duration == pytest.approx(1e6 * len(expected) / fps, abs=1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def check_same_frames(path, original) -> None:
    """Assert that a file that was encoded anew shows these frames, not their neighbours."""
    shown = decode(path)[1]
    assert len(shown) == len(original)
    for number, frame in enumerate(shown):
        errors = [np.mean((np.float64(frame) - candidate) ** 2) for candidate in original]
        assert np.argmin(errors) == number


@pytest.fixture
def full_disk():
    """Let no file of this process grow beyond a few kilobytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fps", [10, 24, 29, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_is_its_parts(tmp_path, kind, fps):
    lengths = (13, 8, 30) if "open" in kind else (13, 1, 8, 30)  # x265 needs a few for its times
    parts = [
        make(tmp_path / f"{i}.mp4", pictures(n, 50 * i), kind, fps=fps)
        for i, n in enumerate(lengths)
    ]
    concatenate(parts, tmp_path / "new" / "all.mp4")
    expected = np.concatenate([decode(part)[1] for part in parts])
    check_exact(tmp_path / "new" / "all.mp4", expected, fps)
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "all.mp4"]


@pytest.mark.parametrize("kind", KINDS)
def test_joined_files_join_again(tmp_path, kind):
    parts = [make(tmp_path / f"{i}.mp4", pictures(7, 50 * i), kind) for i in range(3)]
    expected = [decode(part)[1] for part in parts]
    concatenate(parts[:2], parts[0])
    concatenate([parts[0], parts[2]], parts[0])
    check_exact(parts[0], np.concatenate(expected))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("h264", {"tune": "fastdecode", "refs": "1"}),
        ("h264 with B-frames", {"tune": "fastdecode", "bf": "1"}),
        ("hevc", {"preset": "ultrafast"}),
        ("av1", {"svtav1-params": "film-grain=8"}),
    ],
)
def test_parts_of_other_settings_are_readable_at_random(tmp_path, kind, settings):
    parts = [
        make(tmp_path / "0.mp4", pictures(13), kind),
        make(tmp_path / "1.mp4", pictures(13, 50), kind, **settings),
        make(tmp_path / "2.mp4", pictures(13, 99), kind),
    ]
    headers = []
    for part in parts:
        with av.open(str(part)) as container:
            headers.append(container.streams.video[0].codec_context.extradata)
    assert headers[0] != headers[1]
    concatenate(parts, tmp_path / "all.mp4")
    check_exact(tmp_path / "all.mp4", np.concatenate([decode(part)[1] for part in parts]))
    order = np.random.default_rng(0).permutation(39)
    whole = {}
    for first, part in zip((0, 13, 26), parts, strict=True):
        with VideoReader(part) as reader:
            whole |= dict(zip(range(first, first + 13), reader.read(np.arange(13)), strict=True))
    with VideoReader(tmp_path / "all.mp4") as reader:
        for number in order:
            np.testing.assert_array_equal(reader.read(np.array([number]))[0], whole[int(number)])


@pytest.mark.parametrize(
    ("codec", "header"),
    [
        ("h264", b""),
        ("h264", bytes.fromhex("0164000affe100ff6764")),  # the set is shorter than it says
        ("h264", bytes.fromhex("0164000afee1000267640100")),  # lengths of three bytes
        ("hevc", bytes(22)),
        ("av1", b"\x81\x00"),
        ("vp9", b"\x00" * 40),
    ],
)
def test_headers_that_cannot_be_read_have_no_prefix(codec, header):
    assert key_frame_prefix(codec, header) is None


def test_a_prefix_holds_the_parameter_sets():
    header = bytes.fromhex("0164000affe1 0003 676401 01 0002 68ee".replace(" ", ""))
    assert key_frame_prefix("h264", header) == bytes.fromhex("00000003676401 0000000268ee")
    assert key_frame_prefix("av1", b"\x81\x00\x0c\x00\x0a\x0b") == b"\x0a\x0b"


def test_coarse_clocks_are_made_exact(tmp_path):
    parts = [make(tmp_path / f"{i}.mp4", pictures(20, i), clock=1000) for i in range(2)]
    assert decode(parts[0])[0][1] == Fraction(33, 1000)
    concatenate(parts, tmp_path / "all.mp4")
    check_exact(tmp_path / "all.mp4", np.concatenate([decode(part)[1] for part in parts]))


def test_the_rate_of_the_dataset_wins_over_a_small_error(tmp_path):
    part = make(tmp_path / "0.mp4", pictures(40), fps=1000)
    with pytest.raises(DatasetError, match=r"0\.mp4 has 1000 frames per second.* joined at 980"):
        concatenate([part, part], tmp_path / "all.mp4", fps=980)
    concatenate([part, part], tmp_path / "all.mp4", fps=995)
    assert decode(tmp_path / "all.mp4")[0] == [Fraction(k, 995) for k in range(80)]


def test_rates_of_television_stay(tmp_path):
    part = make(tmp_path / "0.mp4", pictures(9), fps=Fraction(30000, 1001))
    concatenate([part, part], tmp_path / "all.mp4")
    assert decode(tmp_path / "all.mp4")[0] == [Fraction(1001 * k, 30000) for k in range(18)]


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("hevc", {}, r"hevc 64x48 yuv420p\) cannot follow .*0\.mp4 \(h264 64x48 yuv420p\)"),
        ("h264", {"size": (80, 48)}, "h264 80x48"),
        ("h264", {"fps": 24}, "has 24 frames per second, .* joined at 30"),
        ("h264", {"sound": True}, "cannot follow"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, kind, changes, said):
    parts = [
        make(tmp_path / "0.mp4", pictures(40)),
        make(tmp_path / "1.mp4", pictures(40), kind, **changes),
    ]
    before = parts[0].read_bytes()
    with pytest.raises(DatasetError, match=r"1\.mp4 .*0\.mp4") as caught:
        concatenate(parts, parts[0])
    assert caught.match(said)
    assert parts[0].read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4"]


def test_damaged_sources_leave_the_target(tmp_path):
    good = make(tmp_path / "0.mp4", pictures(40))
    concatenate([good], tmp_path / "1.mp4")  # its index precedes the frames
    whole = (tmp_path / "1.mp4").read_bytes()
    (tmp_path / "1.mp4").write_bytes(whole[: -len(whole) // 4])
    before = good.read_bytes()
    with pytest.raises(DatasetError, match=r"1\.mp4 is cut off before frame \d\d"):
        concatenate([good, tmp_path / "1.mp4"], good)
    for content in (whole[:500], b"", b"no video" * 99):
        (tmp_path / "1.mp4").write_bytes(content)
        with pytest.raises(DatasetError, match=r"1\.mp4 is damaged"):
            concatenate([good, tmp_path / "1.mp4"], good)
    with pytest.raises(DatasetError, match=r"2\.mp4 is missing"):
        concatenate([good, tmp_path / "2.mp4"], good)
    with pytest.raises(DatasetError, match="nothing to join"):
        concatenate([], good)
    assert good.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4"]


def test_full_disk_leaves_the_target(tmp_path, full_disk):
    noise = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    part = make(tmp_path / "0.mp4", noise, crf="30")
    before = part.read_bytes()
    with pytest.raises(OSError, match="File too large"):
        concatenate([part] * 10, part)
    assert part.read_bytes() == before
    assert list(tmp_path.iterdir()) == [part]


def test_sound_is_carried_along(tmp_path):
    parts = [make(tmp_path / f"{i}.mp4", pictures(60), sound=True) for i in range(3)]
    concatenate(parts, tmp_path / "all.mp4")
    check_exact(tmp_path / "all.mp4", np.concatenate([decode(part)[1] for part in parts]))
    assert sound_s(tmp_path / "all.mp4") == pytest.approx((0, 6), abs=0.15)
    for start, is_copy in ((60, True), (61, False)):
        assert cut(tmp_path / "all.mp4", start, 60, tmp_path / "piece.mp4") is is_copy
        assert len(decode(tmp_path / "piece.mp4")[0]) == 60
        assert sound_s(tmp_path / "piece.mp4") == pytest.approx((0, 2), abs=0.15)
        assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_any_piece_shows_its_frames(tmp_path, kind):
    source = make(tmp_path / "0.mp4", pictures(26), kind)
    stored = decode(source)[1]
    copied = []
    for start, count in itertools.product((0, 3, 12, 24), (1, 2, 9, 14)):
        if start + count > 26:
            continue
        if cut(source, start, count, tmp_path / "piece.mp4"):
            check_exact(tmp_path / "piece.mp4", stored[start : start + count])
            copied.append((start, count))
        else:
            check_same_frames(tmp_path / "piece.mp4", stored[start : start + count])
            assert decode(tmp_path / "piece.mp4")[0] == [Fraction(k, 30) for k in range(count)]
    at_key_frames = {(0, 1), (0, 2), (0, 9), (0, 14), (12, 1), (12, 2), (12, 9), (12, 14)}
    if kind in ("h264", "hevc", "av1"):
        assert set(copied) == at_key_frames | {(24, 1), (24, 2)}
    else:
        assert (0, 1) in copied
        assert set(copied) < at_key_frames | {(24, 1), (24, 2)}


def test_b_frames_decide_where_a_copy_may_end(tmp_path):
    source = make(tmp_path / "0.mp4", pictures(25), "h264 with B-frames")
    # Shown 0 1 2 3 4: stored I0 P4 B2 B1 B3, so only frames 0 and 4 end a run of stored packets.
    ends = [n for n in range(1, 13) if cut(source, 12, n, tmp_path / "piece.mp4")]
    assert ends == [1, 5, 9, 12]
    assert ends == [n for n in range(1, 13) if cut(source, 0, n, tmp_path / "piece.mp4")]


def test_a_copy_may_replace_its_source(tmp_path):
    source = make(tmp_path / "0.mp4", pictures(20))
    stored = decode(source)[1]
    assert cut(source, 4, 10, source)
    check_exact(source, stored[4:14])
    assert not cut(source, 1, 5, source)
    check_same_frames(source, stored[5:10])


def test_cut_and_join_give_the_file_back(tmp_path):
    source = make(tmp_path / "0.mp4", pictures(20))
    pieces = [tmp_path / f"{start}.mp4" for start in (4, 12)]
    cut(source, 0, 12, pieces[0])
    cut(source, 12, 8, pieces[1])
    concatenate(pieces, tmp_path / "all.mp4")
    check_exact(tmp_path / "all.mp4", decode(source)[1])


def test_encoding_anew_keeps_codec_and_format_unless_told(tmp_path):
    def codec_of(path):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            return context.codec.canonical_name, context.pix_fmt

    source = make(tmp_path / "0.mp4", pictures(20), "hevc", profile="main444-8")
    with VideoEncoder(
        tmp_path / "1.mp4", fps=30, options=VideoOptions(vcodec="h264", pix_fmt="yuv444p", g=9)
    ) as encoder:
        for frame in pictures(20):
            encoder.add(frame)
    assert not cut(source, 1, 5, tmp_path / "piece.mp4")
    assert codec_of(tmp_path / "piece.mp4") == ("hevc", "yuv420p")
    assert not cut(tmp_path / "1.mp4", 1, 5, tmp_path / "piece.mp4")
    assert codec_of(tmp_path / "piece.mp4") == ("h264", "yuv444p")
    assert not cut(source, 1, 5, tmp_path / "piece.mp4", VideoOptions(crf=20))
    assert codec_of(tmp_path / "piece.mp4") == ("av1", "yuv420p")
    check_same_frames(tmp_path / "piece.mp4", decode(source)[1][1:6])
    with pytest.raises(ConfigError, match="yuv444p"):
        cut(source, 1, 5, tmp_path / "piece.mp4", VideoOptions(pix_fmt="yuv444p"))


def test_colours_keep_their_tags(tmp_path):
    source = make(tmp_path / "0.mp4", pictures(9), "h264", color_range="pc", colorspace="bt709")
    assert not cut(source, 1, 5, tmp_path / "piece.mp4")
    tags = []
    for path in (source, tmp_path / "piece.mp4"):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            tags.append((context.color_range, context.colorspace))
    assert tags[0] == tags[1] == (2, 1)


@pytest.mark.parametrize(("start", "count"), [(-1, 3), (0, 0), (0, 21), (20, 1), (18, 3)])
def test_pieces_beyond_the_source_are_refused(tmp_path, start, count):
    source = make(tmp_path / "0.mp4", pictures(20))
    with pytest.raises(DatasetError, match=r"0\.mp4, which has frames 0 to 19"):
        cut(source, start, count, tmp_path / "piece.mp4")
    assert list(tmp_path.iterdir()) == [source]


def test_a_source_that_ends_early_leaves_the_target(tmp_path):
    whole = make(tmp_path / "0.mp4", pictures(40))
    concatenate([whole], tmp_path / "1.mp4")
    content = (tmp_path / "1.mp4").read_bytes()
    (tmp_path / "1.mp4").write_bytes(content[: -len(content) // 4])
    before = whole.read_bytes()
    for start in (4, 5):
        with pytest.raises(DatasetError, match=r"1\.mp4 is cut off before frame \d\d"):
            cut(tmp_path / "1.mp4", start, 40 - start, whole)
    assert whole.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "1.mp4"]


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample datasets are not here")
def test_a_recorded_dataset_joins_and_comes_apart(tmp_path):
    parts = sorted(SAMPLE.glob("*.mp4"))[3:]
    concatenate(parts, tmp_path / "all.mp4", fps=20)
    stored = [decode(part)[1] for part in parts]
    check_exact(tmp_path / "all.mp4", np.concatenate(stored), 20)
    assert cut(tmp_path / "all.mp4", len(stored[0]), len(stored[1]), tmp_path / "piece.mp4")
    check_exact(tmp_path / "piece.mp4", stored[1], 20)
