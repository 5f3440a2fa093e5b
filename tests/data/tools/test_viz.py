"""What `leray dataset viz` embeds and writes; how it looks and moves is tested in a browser."""

import base64
import hashlib
import io
import json
import re
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.viz import page as page_module
from leray.data.tools.viz.media import encode_clip, pack_numbers
from leray.data.tools.viz.page import write_page
from leray.errors import ConfigError, DatasetError
from leray.platform.dataset.viz import VizConfig, run

LENGTHS = (30, 12)
DTYPES = {"u1": "<u1", "f4": "<f4", "f8": "<f8"}


class Page(HTMLParser):
    """A page as a browser reads it: tags in order, the content of scripts, styles and the title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.blocks, self.scripts = [], {}, []
        self.style, self.title, self.policy = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._inside = (tag, attrs)
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]

    def handle_endtag(self, tag):
        self._inside = ("", {})

    def handle_data(self, data):
        tag, attrs = getattr(self, "_inside", ("", {}))
        if tag == "script" and "type" in attrs:
            self.blocks[attrs["id"]] = json.loads(data)
        elif tag == "script":
            self.scripts.append(data)
        elif tag in ("style", "title"):
            setattr(self, tag, data)


def read(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def decoded(clip: bytes) -> tuple[list[np.ndarray], list, list]:
    """Return the pictures, presentation times and key frame numbers of a clip."""
    with av.open(io.BytesIO(clip)) as container:
        frames = list(container.decode(video=0))
    pictures = [frame.to_ndarray(format="rgb24") for frame in frames]
    times = [frame.pts * frame.time_base for frame in frames]
    return pictures, times, [i for i, frame in enumerate(frames) if frame.key_frame]


def numbers(packed: dict, length: int) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(packed["data"]), DTYPES[packed["type"]])
    return values.reshape(-1, length).T


@pytest.fixture
def filmed_page(filmed, tmp_path):
    output = tmp_path / "page.html"
    size = write_page(DatasetReader.open(filmed), output, name="filmed")
    assert size == output.stat().st_size
    return read(output)


@pytest.mark.parametrize("fps", [30, 29.97, 0.5])
def test_frame_k_of_a_clip_is_shown_at_k_over_fps(fps):
    rng = np.random.default_rng(0)
    levels = rng.permutation(np.arange(20, 230, 5))
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 36, 64, 3))
    clip = encode_clip(np.array_split(frames.astype(np.uint8), 4), fps=fps, width=320)
    pictures, times, keys = decoded(clip)
    rate = Fraction(fps).limit_denominator(1001)
    assert times == [k / rate for k in range(len(levels))]
    assert keys[0] == 0
    assert all(later - earlier <= 10 for earlier, later in pairwise([*keys, len(levels)]))
    np.testing.assert_allclose([picture.mean() for picture in pictures], levels, atol=2)


def test_a_clip_is_h264_that_browsers_play_with_its_index_first():
    clip = encode_clip([np.zeros((3, 48, 64, 3), np.uint8)], fps=10, width=320)
    with av.open(io.BytesIO(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.has_b_frames, len(container.streams)) == (False, 1)
    assert clip.index(b"moov") < clip.index(b"mdat")


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((360, 640), 320, (180, 320)),
        ((48, 64), 320, (48, 64)),
        ((33, 45), 320, (32, 44)),
        ((100, 333), 111, (34, 112)),
        ((1, 1), 320, (2, 2)),
        ((4, 2000), 32, (2, 32)),
    ],
)
def test_clips_are_scaled_down_never_up(size, width, expected):
    clip = encode_clip([np.full((2, *size, 3), 90, np.uint8)], fps=10, width=width)
    assert [picture.shape for picture in decoded(clip)[0]] == [(*expected, 3)] * 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_survive(channels):
    colour = np.array([200, 60, 120, 255][:channels], np.uint8)
    clip = encode_clip([np.broadcast_to(colour, (2, 32, 32, channels))], fps=10, width=320)
    expected = [200] * 3 if channels == 1 else [200, 60, 120]
    np.testing.assert_allclose(decoded(clip)[0][1].mean((0, 1)), expected, atol=3)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "no frame to encode"),
        ([np.zeros((2, 8, 8, 2), np.uint8)], r"\(8, 8, 2\) cannot be shown"),
        (
            [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 6, 3), np.uint8)],
            r"\(8, 6, 3\), the first has \(8, 8, 3\)",
        ),
    ],
)
def test_frames_that_make_no_clip_are_refused(chunks, message):
    with pytest.raises(DatasetError, match=message):
        encode_clip(chunks, fps=10, width=320)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([True, False, True]), "u1"),
        (np.arange(6, dtype=np.float32).reshape(3, 2), "f4"),
        (np.array([0.1, np.nan, np.inf, -np.inf, 0.3]), "f4"),
        (np.full((4, 2), np.nan), "f4"),
        (1.7e9 + np.arange(5) / 10, "f8"),
        (np.array([2**40, 2**40 + 1]), "f8"),
        (np.array([1e300, -1e300]), "f8"),
        (np.array([[0.0, 1.7e9], [1.0, 1.7e9 + 1]]), "f8"),
        (np.array([3, 4, 5]), "f4"),
    ],
)
def test_numbers_come_back(values, kind):
    packed_kind, content = pack_numbers(values)
    back = numbers({"type": packed_kind, "data": base64.b64encode(content)}, len(values))
    assert packed_kind == kind
    expected = values.reshape(len(values), -1).astype(np.float64)
    np.testing.assert_allclose(back.astype(np.float64), expected, rtol=1e-7)


def test_the_page_holds_the_dataset(filmed, filmed_page):
    reader = DatasetReader.open(filmed)
    columns = reader.read()
    summary = filmed_page.blocks["dataset"]
    order = [plot["name"] for plot in summary["plots"]]
    assert order == ["observation.state", "action", "next.reward", "next.done", "clock"]
    assert summary["plots"][0]["labels"] == list(reader.features["action"].names)
    assert summary["notes"] == ["grid is not plotted: it has 400 numbers a frame"]
    assert [camera["name"] for camera in summary["cameras"]] == reader.cameras
    assert [episode["length"] for episode in summary["embedded"]] == list(LENGTHS)
    start = 0
    for position, length in enumerate(LENGTHS):
        content = filmed_page.blocks[f"episode-{position}"]
        for key, packed in zip(order, content["values"], strict=True):
            expected = columns[key][start : start + length].reshape(length, -1)
            np.testing.assert_allclose(numbers(packed, length), expected, rtol=1e-6)
        for clip in content["clips"]:
            pictures, times, _ = decoded(base64.b64decode(clip))
            assert times == [Fraction(k, 10) for k in range(length)]
            red = np.array([picture[10:40, 5:25, 0].mean() for picture in pictures])
            green = np.array([picture[..., 1].mean() for picture in pictures])
            np.testing.assert_allclose(red, 20 + 7 * np.arange(length), atol=3.4)
            np.testing.assert_allclose(green, 60 + 100 * position, atol=4)
        start += length


def test_texts_are_stored_as_changes(filmed, filmed_page):
    hostile = DatasetReader.open(filmed).tasks[1]
    texts = [filmed_page.blocks[f"episode-{i}"]["texts"] for i in range(2)]
    assert texts[0] == {"task": [[0, "pick"]], "note": [[0, "begin"], [5, hostile]]}
    assert texts[1] == {"task": [[0, "pick"], [8, hostile]], "note": [[0, "begin"], [5, hostile]]}


def test_no_text_of_a_dataset_becomes_markup(filmed, tmp_path):
    reader = DatasetReader.open(filmed)
    hostile = reader.robot_type
    assert "</script><img" in hostile
    write_page(reader, tmp_path / "hostile.html", name=hostile, notes=(hostile,))
    text = (tmp_path / "hostile.html").read_text("utf-8")
    page = Page(text)
    assert page.title == hostile
    assert page.blocks["dataset"]["robot"] == hostile
    assert page.blocks["dataset"]["notes"][0] == hostile
    assert "img" not in page.tags
    assert page.tags.count("script") == 4
    data = text[text.index("</style>") :]
    assert "<img" not in data
    assert "<!--" not in data


def test_only_our_script_and_style_may_run(filmed_page):
    assert len(filmed_page.scripts) == 1
    for kind, text in (("script", filmed_page.scripts[0]), ("style", filmed_page.style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in filmed_page.policy
    assert filmed_page.policy.startswith("default-src 'none'; ")
    assert "unsafe" not in filmed_page.policy
    assert not re.search(r"https?://", filmed_page.scripts[0] + filmed_page.style)


def test_pictures_are_read_a_chunk_at_a_time(filmed, tmp_path, monkeypatch):
    sizes = []

    class Counting(DatasetReader):
        def read_frames(self, camera, frames, **options):
            sizes.append(len(frames))
            return super().read_frames(camera, frames, **options)

    monkeypatch.setattr(page_module, "CHUNK_FRAMES", 13)
    write_page(Counting.open(filmed, episodes=[0]), tmp_path / "page.html", name="x")
    assert sizes == [13, 13, 4] * 2


def test_a_page_that_fails_leaves_the_old_one(filmed, tmp_path):
    output = tmp_path / "page.html"
    output.write_text("old")

    def fail(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(DatasetReader.open(filmed), output, name="x", on_episode=fail)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


def test_the_command_writes_a_page_and_says_what_it_holds(filmed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(VizConfig(root=filmed, max_episodes=1))
    output = tmp_path / "outputs/viz/filmed.html"
    printed = capsys.readouterr().out
    note = "the first 1 of 2 episodes are in this page; choose with --episodes=[...]"
    assert note in printed
    assert f"outputs/viz/filmed.html is written, {output.stat().st_size / 1e6:.1f} MB" in printed
    page = read(output)
    assert [episode["index"] for episode in page.blocks["dataset"]["embedded"]] == [0]
    assert page.blocks["dataset"]["notes"][0].startswith(note)


def test_named_episodes_are_embedded_all_the_same(filmed, tmp_path):
    output = tmp_path / "new/page.html"
    run(VizConfig(root=filmed, episodes=[1, 0, 1], max_episodes=1, width=32, output=output))
    page = read(output)
    assert [episode["index"] for episode in page.blocks["dataset"]["embedded"]] == [0, 1]
    clip = base64.b64decode(page.blocks["episode-1"]["clips"][0])
    assert decoded(clip)[0][0].shape == (24, 32, 3)


def test_a_dataset_is_found_by_its_name(filmed, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home/lab").mkdir(parents=True)
    (tmp_path / "home/lab/filmed").symlink_to(filmed)
    run(VizConfig(repo_id="lab/filmed"))
    assert read(tmp_path / "outputs/viz/lab_filmed.html").title == "lab/filmed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no dataset given: say --root"),
        ({"root": Path("x"), "episodes": []}, r"--episodes=\[\]: name at least one"),
        ({"root": Path("x"), "max_episodes": 0}, "--max_episodes=0: give a whole number >= 1"),
        ({"root": Path("x"), "width": 8}, "--width=8: give a whole number >= 16"),
        ({"root": Path("x"), "output": Path("meta/info.json")}, "--output=meta/info.json: give"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        VizConfig(**options)


def test_wrong_input_is_one_line(filmed, tmp_path):
    with pytest.raises(DatasetError, match="no dataset at"):
        run(VizConfig(root=tmp_path / "absent"))
    with pytest.raises(DatasetError, match="no episode 7"):
        run(VizConfig(root=filmed, episodes=[7], output=tmp_path / "page.html"))
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(DatasetError, match=r"folder.html cannot be written: .*--output"):
        run(VizConfig(root=filmed, episodes=[1], output=tmp_path / "folder.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder.html"]
