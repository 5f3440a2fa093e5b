"""Videos and embedded pictures: files, declarations, frames and the spans of episodes."""

import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.tools.check.dataset import check

_PATH = Path(__file__).parent / "fuzz" / "sample_datasets.py"
_SPEC = importlib.util.spec_from_file_location("sample_datasets", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

VIDEO, PICTURE = samples.VIDEO, samples.PICTURE
MP4, EPISODES = samples.VIDEO_V3, samples.EPISODES_PARQUET


@pytest.fixture
def v30(tmp_path):
    return samples.build(tmp_path / "v30", "v3.0")


@pytest.fixture
def v21(tmp_path):
    return samples.build(tmp_path / "v21", "v2.1")


def edit_video(root, **changes) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][VIDEO].update(changes)
    path.write_text(json.dumps(info))


def set_spans(root, part, values) -> None:
    table = pq.read_table(root / EPISODES)
    name = f"videos/{VIDEO}/{part}"
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, pa.array(values)), root / EPISODES)


def found(root, **options) -> list:
    report = check(root, **options)
    return [(f.severity, f.code, f.episode, f.message) for f in report.findings]


def test_a_missing_file_is_named_with_what_it_should_hold(v30, v21):
    (v30 / MP4).rename(v30 / "videos" / VIDEO / "chunk-000/file-007.mp4")
    report = check(v30, videos="none")
    (missing,) = [f for f in report.findings if f.code == "video"]
    assert (missing.file, missing.message) == (MP4, "is missing, it should hold 3 episodes, 0 to 2")
    path = f"videos/chunk-000/{VIDEO}/episode_000001.mp4"
    (v21 / path).unlink()
    (missing,) = [f for f in check(v21).findings if f.code == "video"]
    assert (missing.file, missing.message) == (path, "is missing, it should hold episode 1")


@pytest.mark.parametrize("keep", [0, 20, 0.4, 0.98])
def test_cut_off_files(v30, keep):
    content = (v30 / MP4).read_bytes()
    (v30 / MP4).write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    (finding,) = [f for f in check(v30).findings if f.code == "video"]
    assert finding.severity == "error"
    assert finding.file == MP4
    if keep == 0.98:
        assert finding.message.startswith("is cut off: it lists 40 frames and holds 3")


def test_a_file_that_is_no_video(v30):
    (v30 / MP4).write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    (finding,) = [f for f in check(v30).findings if f.code == "video"]
    assert "is not an mp4 video" in finding.message


def test_sizes_and_info_that_lie(v30):
    info = {"video.codec": "av1", "video.fps": 30, "video.channels": 1, "has_audio": False}
    edit_video(v30, shape=[64, 48, 3], info=info)
    messages = {(f.severity, f.code): [] for f in check(v30).findings}
    for finding in check(v30).findings:
        messages[finding.severity, finding.code].append(finding.message)
    assert messages["error", "video-shape"] == [
        "shows 32x48x3 (height, width, channels), declared is 64x48x3"
    ]
    assert messages["warning", "video-info"] == [
        "video.codec is h264, declared is 'av1'",
        "video.channels is 3, declared is 1",
        "video.fps is 10.0, declared is 30",
    ]


def test_missing_info_is_noted_and_old_info_is_understood(v30, v21):
    edit_video(v30, info=None)
    assert [f[:2] for f in found(v30)] == [("note", "video-info")]
    edit_video(v21, info=None, video_info={"video.codec": "av1", "video.fps": 10.0})
    assert {f[3] for f in found(v21)} == {"video.codec is h264, declared is 'av1'"}


def test_depth_maps_are_not_called_damaged(v30):
    with av.open(str(v30 / MP4), "w") as container:
        quiet = {"x265-params": "log-level=none"}
        stream = container.add_stream("libx265", rate=10, options=quiet)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "gray12le"
        for _ in range(40):
            picture = np.zeros((64, 64), np.uint16)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray12le")))
        container.mux(stream.encode())
    assert [f[:2] for f in found(v30) if f[0] == "error"] == [("error", "video")]
    edit_video(v30, info={"is_depth_map": True})
    (note,) = [f for f in found(v30) if f[1] == "video"]
    assert (note[0], "was not looked at: " in note[3]) == ("note", True)


def test_too_few_and_too_many_frames(v30):
    (v30 / MP4).write_bytes(samples.film((0, 1)))
    messages = [f[3] for f in found(v30) if f[0] == "error"]
    assert "has 32 frames, its episodes need 40" in messages
    assert any("needs frames 31 to 38 of 32" in message for message in messages)
    (v30 / MP4).write_bytes(samples.film((0, 1, 2, 2)))
    assert found(v30) == [
        ("note", "video-frames", None, "has 48 frames, its episodes need only 40")
    ]


def test_another_frame_rate(v30):
    (v30 / MP4).write_bytes(samples.film((0, 1, 2), 30))
    messages = [f[3] for f in found(v30) if f[1] == "video-rate"]
    assert messages[0] == "has 30 frames per second, not 10"


def test_long_groups_of_pictures_are_noted(v30):
    (v30 / MP4).write_bytes(samples.film((0, 1, 2), 10, 100))
    (finding,) = check(v30).findings
    assert (finding.severity, finding.code) == ("note", "key-frames")
    assert finding.message.startswith("has up to 40 frames from one key frame to the next")


@pytest.mark.parametrize(
    ("part", "values", "messages"),
    [
        ("from_timestamp", [0.0, 1.23, 3.2], ["begins at 1.23 s, the nearest frame is shown at"]),
        ("from_timestamp", [0.0, 1.0, 3.2], ["before episode 0 ends at frame 12", "22 frames; it"]),
        ("to_timestamp", [1.2, 3.3, 4.0], ["lasts from 1.2 s to 3.3 s, 21 frames; it has 20"]),
        ("from_timestamp", [0.0, 1.2, 9.9], ["needs frames 39 to 46 of 40", "begins at 9.9 s"]),
    ],
)
def test_spans_of_episodes(v30, part, values, messages):
    set_spans(v30, part, values)
    there = [f for f in check(v30).findings if f.code == "video-span"]
    for message in messages:
        assert any(message in f.message for f in there), [f.message for f in there]
    assert all(f.repairable for f in there)  # the episodes fill the file exactly


def test_ends_taken_from_the_duration_may_be_off_by_a_part_of_a_frame(v30):
    set_spans(v30, "to_timestamp", [1.21, 3.19, 4.04])
    assert found(v30) == []


def film_at(path: Path, ticks: list[int]) -> None:
    """Write frames at times given in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"g": "2", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = samples.WIDTH, samples.HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(samples.picture(0, number), format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_jitter_is_reported_with_its_size(v21):
    path = v21 / f"videos/chunk-000/{VIDEO}/episode_000002.mp4"
    film_at(path, [0, 100, 207, 300, 400, 500, 600, 700])
    (finding,) = [f for f in check(v21).findings if f.code == "video-rate"]
    assert finding.message == "frames are up to 0.007 s off a steady 10 per second"
    assert finding.episode == 2
    assert "video-rate" not in {f.code for f in check(v21, tolerance_s=0.008).findings}


def test_frames_that_do_not_decode_are_found_in_full(v30):
    from leray.data.video.track import read_track

    index = read_track(v30 / MP4).index
    content = bytearray((v30 / MP4).read_bytes())
    first = int(index.position[20])
    content[first : first + int(index.size[20])] = b"\xff" * int(index.size[20])
    (v30 / MP4).write_bytes(content)
    assert found(v30) == []
    there = found(v30, videos="full")
    assert {f[:2] for f in there} == {("error", "video-frame")}
    assert "frame 20" in there[0][3]


def set_picture(root, row, value) -> None:
    path = root / samples.DATA_PARQUET
    table = pq.read_table(path)
    values = table[PICTURE].to_pylist()
    values[row] = value
    place = table.column_names.index(PICTURE)
    table = table.set_column(place, PICTURE, pa.array(values, table[PICTURE].type))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table[:12])
        writer.write_table(table[12:])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"bytes": b"no picture", "path": None}, "is damaged"),
        ({"bytes": None, "path": None}, "holds no picture"),
        ({"bytes": None, "path": "../x.png"}, "leaves the dataset's folder"),
        ({"bytes": samples.png(np.zeros((8, 8, 3), np.uint8)), "path": None}, "is 8x8, declared"),
        (None, "holds no picture"),
    ],
)
def test_pictures(v30, value, message):
    set_picture(v30, 5, value)
    assert [f for f in check(v30).findings if f.code == "picture"] == []  # 5 is not sampled
    (finding,) = [f for f in check(v30, videos="full").findings if f.code == "picture"]
    assert message in finding.message
    assert finding.message.startswith("frame 5: ")
    assert (finding.episode, finding.column) == (0, PICTURE)
    set_picture(v30, 12, value)
    (finding,) = [f for f in check(v30).findings if f.code == "picture"]
    assert finding.message.startswith("frame 0: ")
    assert finding.episode == 1


def test_columns_that_hold_no_pictures(v30):
    table = pq.read_table(v30 / samples.DATA_PARQUET)
    place = table.column_names.index(PICTURE)
    table = table.set_column(place, PICTURE, pa.array([1.0] * len(table)))
    pq.write_table(table, v30 / samples.DATA_PARQUET)
    codes = {f.code for f in check(v30).findings}
    assert {"picture", "schema"} <= codes
