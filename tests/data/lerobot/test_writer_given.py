"""Episodes given whole: encoded pictures, videos that exist, own timestamps, tasks, statistics."""

import shutil

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.features import Feature, Features
from leray.data.image_statistics import ImageStatistics
from leray.data.lerobot import whole_episode
from leray.data.lerobot.pictures import encode_png
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.encoder import VideoEncoder
from leray.data.video.options import VideoOptions
from leray.errors import DatasetError, FeatureMismatchError

FEATURES = Features(
    {
        "action": Feature("float32", (1,)),
        "top": Feature("video", (32, 48, 3), ("height", "width", "channels")),
        "wrist": Feature("image", (4, 6, 3), ("height", "width", "channels")),
    }
)
H264 = VideoOptions(vcodec="h264", crf=18, preset="ultrafast")
FPS = 10


def make_video(path, length: int, seed: int, options=H264, fps=FPS):
    """Encode frames of one colour each; returns the colours."""
    colours = np.random.default_rng(seed).integers(20, 236, (length, 3), dtype=np.uint8)
    with VideoEncoder(path, fps=fps, options=options) as encoder:
        for colour in colours:
            encoder.add(np.broadcast_to(colour, (32, 48, 3)).copy())
    return colours


def make_columns(length: int, seed: int = 0) -> dict:
    pictures = np.random.default_rng(seed).integers(0, 256, (length, 4, 6, 3), dtype=np.uint8)
    return {"action": np.arange(length, dtype=np.float32), "wrist": pictures}


def create(root, **options) -> DatasetWriter:
    return DatasetWriter.create(
        root, **{"fps": FPS, "features": FEATURES, "video": H264, **options}
    )


def assert_shows(root, colours: np.ndarray) -> None:
    dataset = DatasetReader.open(root)
    assert dataset.findings == []
    shown = dataset.read_frames("top", np.arange(dataset.num_frames), tolerance_s=1e-4)
    assert len(shown) == len(colours)
    assert np.abs(shown.mean(axis=(1, 2)) - colours).max() < 6


def packets(path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_videos_are_copied_and_joined_without_encoding(tmp_path):
    paths = [tmp_path / f"{seed}.mp4" for seed in range(3)]
    colours = [make_video(path, (5, 1, 4)[seed], seed) for seed, path in enumerate(paths)]
    contents = [path.read_bytes() for path in paths]
    with create(tmp_path / "d") as writer:
        for path, colour in zip(paths, colours, strict=True):
            columns = make_columns(len(colour))
            writer.add_episode(columns, "t", videos={"top": path})
        assert len(list((tmp_path / "d").rglob("*.mp4"))) == 3
    assert [path.read_bytes() for path in paths] == contents
    assert_shows(tmp_path / "d", np.concatenate(colours))
    (whole,) = (tmp_path / "d").rglob("*.mp4")
    assert packets(whole) == [packet for path in paths for packet in packets(path)]


def test_parts_of_a_video(tmp_path):
    source = tmp_path / "long.mp4"
    colours = make_video(source, 20, 0)
    with create(tmp_path / "d") as writer:
        for first, count in ((4, 6), (11, 3), (0, 20)):  # key frames are even
            writer.add_episode(make_columns(count), "t", videos={"top": (source, first, count)})
    wanted = [colours[4:10], colours[11:14], colours]
    assert_shows(tmp_path / "d", np.concatenate(wanted))


def test_videos_that_cannot_share_a_file_get_their_own(tmp_path):
    kinds = [H264, VideoOptions(), H264, H264, VideoOptions(vcodec="h264", pix_fmt="yuv444p")]
    colours = [make_video(tmp_path / f"{n}.mp4", 4, n, kind) for n, kind in enumerate(kinds)]
    with create(tmp_path / "d", episodes_per_commit=3) as writer:
        for n in range(len(kinds)):
            writer.add_episode(make_columns(4), "t", videos={"top": tmp_path / f"{n}.mp4"})
    assert_shows(tmp_path / "d", np.concatenate(colours))
    rows = pq.read_table(tmp_path / "d/meta/episodes/chunk-000/file-000.parquet")
    assert rows["videos/top/file_index"].to_pylist() == [0, 1, 2, 2, 3]


def test_a_merge_takes_videos_of_several_settings(tmp_path):
    kinds = [VideoOptions(vcodec="h264", crf=crf, g=g) for crf, g in ((10, 2), (30, 4), (20, 1))]
    colours = [make_video(tmp_path / f"{n}.mp4", 6, n, kind) for n, kind in enumerate(kinds)]
    with create(tmp_path / "d") as writer:
        for n in range(3):
            writer.add_episode(make_columns(6), "t", videos={"top": tmp_path / f"{n}.mp4"})
    assert len(list((tmp_path / "d").rglob("*.mp4"))) == 1
    assert_shows(tmp_path / "d", np.concatenate(colours))


def test_encoded_images_are_taken_over(tmp_path):
    make_video(tmp_path / "v.mp4", 3, 0)
    pictures = make_columns(3)["wrist"]
    contents = [encode_png(picture) for picture in pictures]
    forms = [
        contents,
        pa.array(contents),
        pa.chunked_array([[{"bytes": c, "path": f"x{n}.png"}] for n, c in enumerate(contents)]),
        pictures,
    ]
    with create(tmp_path / "d") as writer:
        for form in forms:
            columns = make_columns(3) | {"wrist": form}
            writer.add_episode(columns, "t", videos={"top": tmp_path / "v.mp4"})
    rows = pq.read_table(tmp_path / "d/data/chunk-000/file-000.parquet")["wrist"].to_pylist()
    assert [row["bytes"] for row in rows] == contents * 4
    assert [row["path"] for row in rows[6:9]] == ["x0.png", "x1.png", "x2.png"]
    shown = DatasetReader.open(tmp_path / "d").read_frames("wrist", np.arange(12))
    np.testing.assert_array_equal(shown, np.concatenate([pictures] * 4))


def test_statistics_are_computed_from_some_frames_or_taken_over(tmp_path, monkeypatch):
    make_video(tmp_path / "v.mp4", 150, 0)
    columns = make_columns(150)
    columns["wrist"] = [encode_png(picture) for picture in columns["wrist"]]
    with create(tmp_path / "d") as writer:
        writer.add_episode(columns, "t", videos={"top": tmp_path / "v.mp4"})
    stats = DatasetReader.open(tmp_path / "d").stats
    exact = ImageStatistics(3)
    for picture in make_columns(150)["wrist"]:
        exact.add(picture)
    for name in ("top", "wrist"):
        assert stats[name]["count"].tolist() == [100]
        assert stats[name]["std"].shape == (3, 1, 1)
    np.testing.assert_allclose(stats["wrist"]["mean"], exact.result()["mean"], atol=0.02)

    def never(*_):
        raise AssertionError("nothing needs decoding")

    monkeypatch.setattr(whole_episode, "VideoReader", never)
    monkeypatch.setattr(whole_episode, "decode_image", never)
    given = {name: {**stats[name], "count": np.array([7])} for name in ("top", "wrist")}
    del given["top"]["q50"]
    with create(tmp_path / "e") as writer:
        writer.add_episode(columns, "t", videos={"top": tmp_path / "v.mp4"}, stats=given)
    copied = DatasetReader.open(tmp_path / "e").stats
    assert "q50" not in copied["top"]
    for name, entry in given.items():
        for key, value in entry.items():
            np.testing.assert_array_equal(copied[name][key], value)


def test_own_timestamps_and_a_task_per_frame(tmp_path):
    make_video(tmp_path / "v.mp4", 3, 0)
    columns = make_columns(3) | {"timestamp": np.array([0.0, 0.11, 0.19])}
    with create(tmp_path / "d") as writer:
        writer.add_episode(columns, ["a", "b", "a"], videos={"top": tmp_path / "v.mp4"})
    dataset = DatasetReader.open(tmp_path / "d")
    read = dataset.read(["action"])
    np.testing.assert_array_equal(read.timestamp, np.float32([0.0, 0.11, 0.19]))
    assert read.task_index.tolist() == [0, 1, 0]
    assert dataset.metadata.episodes.tasks == (("a", "b"),)
    assert dataset.stats["timestamp"]["max"][0] == np.float32(0.19)


def test_a_dataset_of_one_camera_alone(tmp_path):
    colours = make_video(tmp_path / "v.mp4", 4, 0)
    with create(tmp_path / "d", features=FEATURES.select(["top"])) as writer:
        writer.add_episode({}, "t", videos={"top": tmp_path / "v.mp4"})
        writer.add_episode({}, "t", videos={"top": (str(tmp_path / "v.mp4"), 2, 2)})
    assert_shows(tmp_path / "d", np.concatenate([colours, colours[2:]]))


def test_sources_at_other_times_are_put_right(tmp_path):
    colours = make_video(tmp_path / "v.mp4", 4, 0, fps=FPS)
    moved = tmp_path / "moved.mp4"
    with av.open(str(tmp_path / "v.mp4")) as source, av.open(str(moved), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts += packet.duration * 5
                packet.dts += packet.duration * 5
                packet.stream = stream
                target.mux(packet)
    with create(tmp_path / "d") as writer:
        writer.add_episode(make_columns(4), "t", videos={"top": moved})
    assert_shows(tmp_path / "d", colours)


@pytest.mark.parametrize(
    ("columns", "videos", "reason"),
    [
        ({}, {"top": 5}, "lengths differ: top 5, action 4, wrist 4"),
        ({"top": np.zeros((4, 32, 48, 3), np.uint8)}, {"top": 4}, "'top' is given as a column and"),
        ({}, {"wrist": 4}, "'wrist', no video feature"),
        ({}, {"side": 4}, "'side', no video feature"),
        ({}, {}, r"top \(missing\)"),
        ({"timestamp": np.arange(3.0)}, {"top": 4}, "lengths differ: .*timestamp 3"),
        ({"timestamp": np.arange(4)}, {"top": 4}, r"timestamp is int64\[4\]"),
        ({"timestamp": [0.0, 0.1, np.nan, 0.3]}, {"top": 4}, "finite seconds"),
        ({"wrist": [b"x"] * 3}, {"top": 4}, "wrist 3"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, columns, videos, reason):
    for length in (4, 5):
        make_video(tmp_path / f"{length}.mp4", length, 0)
    with create(tmp_path / "d") as writer:
        given = {name: tmp_path / f"{length}.mp4" for name, length in videos.items()}
        with pytest.raises(FeatureMismatchError, match=reason):
            writer.add_episode(make_columns(4) | columns, "t", videos=given)
        assert writer.num_episodes == 0
    assert not list((tmp_path / "d").rglob("*.mp4*"))


@pytest.mark.parametrize("per_commit", [1, 2])
def test_damaged_pictures_are_refused_and_leave_nothing(tmp_path, per_commit):
    colours = make_video(tmp_path / "v.mp4", 4, 0)
    cut_off = tmp_path / "cut.mp4"
    shutil.copy(tmp_path / "v.mp4", cut_off)
    with cut_off.open("r+b") as file:
        file.truncate(cut_off.stat().st_size - 200)
    with create(tmp_path / "d", episodes_per_commit=per_commit) as writer:
        writer.add_episode(make_columns(4), "t", videos={"top": tmp_path / "v.mp4"})
        for video in (cut_off, tmp_path / "nowhere.mp4", (tmp_path / "v.mp4", 2, 3)):
            count = 3 if isinstance(video, tuple) else 4
            with pytest.raises(DatasetError):
                writer.add_episode(make_columns(count), "t", videos={"top": video})
        damaged = make_columns(4) | {"wrist": [b"\x89PNG\r\n\x1a\n broken"] * 4}
        with pytest.raises(DatasetError, match="frame 0 of wrist is damaged"):
            writer.add_episode(damaged, "t", videos={"top": tmp_path / "v.mp4"})
        wide = dict(FEATURES) | {"top": Feature("video", (32, 64, 3))}
        with (
            create(tmp_path / "wide", features=Features(wide)) as other,
            pytest.raises(FeatureMismatchError, match="shows 32x48 pixels, top declares 32x64"),
        ):
            other.add_episode(make_columns(4), "t", videos={"top": tmp_path / "v.mp4"})
    assert_shows(tmp_path / "d", colours)
    assert not list((tmp_path / "d").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ({"action": {}}, "'action', which is no image or video"),
        ({"wrist": {"min": np.zeros((3, 1, 1))}}, "max is missing"),
        ({"wrist": {"min": np.zeros(3)}}, r"min is of shape \[3\]"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, stats, reason):
    make_video(tmp_path / "v.mp4", 4, 0)
    with create(tmp_path / "d") as writer, pytest.raises(FeatureMismatchError, match=reason):
        writer.add_episode(make_columns(4), "t", videos={"top": tmp_path / "v.mp4"}, stats=stats)
