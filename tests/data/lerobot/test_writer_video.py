"""Videos: recorded while encoded, one series per camera, grown by stream copy, exact in time."""

import json
import threading

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.features import Feature, Features
from leray.data.image_statistics import ImageStatistics
from leray.data.lerobot import video_files
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.options import VideoOptions
from leray.errors import ConfigError, DatasetError, FeatureMismatchError

TOP, SIDE = "observation.images.top", "observation.images.side"
FEATURES = Features(
    {
        "action": Feature("float32", (2,)),
        TOP: Feature("video", (32, 48, 3), ("height", "width", "channels")),
        SIDE: Feature("video", (3, 32, 32), ("channels", "height", "width")),
    }
)
H264 = VideoOptions(vcodec="h264", crf=18, preset="ultrafast")
FPS = 10


def make_pictures(length: int, seed: int, width: int = 48) -> np.ndarray:
    """Smooth pictures that differ from each other far more than encoding changes them."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (length, 2, 2, 3))
    y, x = np.linspace(0, 1, 32)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    (a, b), (c, d) = np.moveaxis(corners[:, :, :, None, None], 0, 2)
    return ((a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y).astype(np.uint8)


def make_episode(length: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        TOP: make_pictures(length, seed),
        SIDE: np.moveaxis(make_pictures(length, 1000 + seed, width=32), -1, 1),
    }


def create(root, **overrides) -> DatasetWriter:
    options = {"fps": FPS, "features": FEATURES, "video": H264, **overrides}
    return DatasetWriter.create(root, **options)


def record(writer: DatasetWriter, episode: dict, task: str = "t") -> int:
    for frame in range(len(episode["action"])):
        writer.add_frame({name: values[frame] for name, values in episode.items()}, task)
    return writer.save_episode()


def read_rows(root) -> list[dict]:
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def read_video(path) -> tuple[list[float], np.ndarray]:
    """Decode a whole file with PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.time for frame in frames], np.stack(
        [f.to_ndarray(format="rgb24") for f in frames]
    )


def mp4s(root, camera: str) -> list[str]:
    folder = root / "videos" / camera
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def check(root, episodes: list[dict]) -> None:
    """Assert that every episode's frames are where the metadata say, at their exact times."""
    rows = read_rows(root)
    assert [row["length"] for row in rows] == [len(episode["action"]) for episode in episodes]
    shown = {path: read_video(path) for path in (root / "videos").rglob("*.mp4")}
    listed = dict.fromkeys(shown, 0)
    for row, episode in zip(rows, episodes, strict=True):
        for camera in (TOP, SIDE):
            chunk, file = (row[f"videos/{camera}/{part}_index"] for part in ("chunk", "file"))
            path = root / f"videos/{camera}/chunk-{chunk:03d}/file-{file:03d}.mp4"
            times, pictures = shown[path]
            listed[path] += row["length"]
            start, end = (row[f"videos/{camera}/{side}_timestamp"] for side in ("from", "to"))
            first = round(start * FPS)
            assert (start, end) == (first / FPS, (first + row["length"]) / FPS)
            exact = [start + k / FPS for k in range(row["length"])]
            np.testing.assert_allclose(times[first:][: row["length"]], exact, atol=1e-9)
            wanted = np.moveaxis(episode[camera], 1, -1) if camera == SIDE else episode[camera]
            error = np.abs(pictures[first:][: row["length"]].astype(int) - wanted).mean()
            assert error < 3
    assert listed == {path: len(pictures) for path, (_, pictures) in shown.items()}
    dataset = DatasetReader.open(root)
    assert dataset.findings == []
    everything = np.arange(dataset.num_frames)
    whole = np.concatenate([episode[TOP] for episode in episodes])
    error = dataset.read_frames(TOP, everything, tolerance_s=1e-4).astype(int) - whole
    assert np.abs(error).mean() < 3
    assert not list(root.rglob("*.tmp"))


@pytest.mark.parametrize("streaming", [True, False])
def test_recorded_episodes_become_one_file_per_camera(tmp_path, streaming):
    root, episodes = tmp_path / "d", [make_episode(n, seed) for seed, n in enumerate((7, 1, 4))]
    with create(root, streaming_encoding=streaming) as writer:
        assert [record(writer, episode) for episode in episodes] == [0, 1, 2]
        for camera in (TOP, SIDE):
            assert mp4s(root, camera) == [f"chunk-000/file-{n:03d}.mp4" for n in range(3)]
        check(root, episodes)
    for camera in (TOP, SIDE):
        assert mp4s(root, camera) == ["chunk-000/file-000.mp4"]
    check(root, episodes)
    columns = pq.read_schema(root / "data/chunk-000/file-000.parquet")
    assert columns.names[:2] == ["action", "timestamp"]
    assert TOP not in json.loads(columns.metadata[b"huggingface"])["info"]["features"]


def test_info_describes_the_videos(tmp_path):
    root = tmp_path / "d"
    create(root).finalize()
    info = json.loads((root / "meta/info.json").read_text())
    assert (
        info["video_path"] == "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    )
    assert info["video_files_size_in_mb"] == 200
    assert "info" not in info["features"][TOP]
    with DatasetWriter.resume(root, video=H264) as writer:
        writer.add_episode(make_episode(3), "t")
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"][SIDE]["shape"] == [3, 32, 32]
    assert info["features"][TOP] == {
        "dtype": "video",
        "shape": [32, 48, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": 32,
            "video.width": 48,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": FPS,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def test_unknown_keys_of_info_survive_resuming(tmp_path):
    root = tmp_path / "d"
    with create(root) as writer:
        writer.add_episode(make_episode(2), "t")
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][TOP]["info"]["video.crf"] = 18
    info["tools"] = ["a"]
    path.write_text(json.dumps(info))
    with DatasetWriter.resume(root, video=H264) as writer:
        writer.add_episode(make_episode(2, 1), "t")
    info = json.loads(path.read_text())
    assert info["tools"] == ["a"]
    assert info["features"][TOP]["info"]["video.crf"] == 18
    check(root, [make_episode(2), make_episode(2, 1)])


def test_axis_names_are_added(tmp_path):
    features = {"top": Feature("video", (3, 32, 48)), "side": Feature("image", (32, 48, 3))}
    create(tmp_path / "d", features=Features(features)).finalize()
    info = json.loads((tmp_path / "d/meta/info.json").read_text())
    assert info["features"]["top"]["names"] == ["channels", "height", "width"]
    assert info["features"]["side"]["names"] == ["height", "width", "channels"]


def test_whole_episodes_equal_recorded_ones(tmp_path):
    episode = make_episode(5)
    with create(tmp_path / "recorded") as writer:
        record(writer, episode)
    with create(tmp_path / "whole") as writer:
        writer.add_episode(episode, "t")
    files = [path for path in (tmp_path / "recorded").rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:
        other = tmp_path / "whole" / path.relative_to(tmp_path / "recorded")
        assert path.read_bytes() == other.read_bytes()


def test_statistics_are_those_of_the_pictures(tmp_path):
    episodes = [make_episode(n, seed) for seed, n in enumerate((3, 6))]
    with create(tmp_path / "d") as writer:
        for episode in episodes:
            writer.add_episode(episode, "t")
    row = read_rows(tmp_path / "d")[1]
    exact = ImageStatistics(3)
    for picture in episodes[1][TOP]:
        exact.add(picture)
    for key, value in exact.result().items():
        assert row[f"stats/{TOP}/{key}"] == value.tolist()
    stored = json.loads((tmp_path / "d/meta/stats.json").read_text())
    assert np.shape(stored[SIDE]["std"]) == (3, 1, 1)
    assert stored[SIDE]["count"] == [9]
    whole = np.concatenate([episode[TOP] for episode in episodes]) / 255
    np.testing.assert_allclose(np.ravel(stored[TOP]["mean"]), whole.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(np.ravel(stored[TOP]["std"]), whole.std(axis=(0, 1, 2)))


@pytest.fixture
def small_videos(monkeypatch):
    """Fill a file of the first camera with about two episodes, of the second with three."""
    original = video_files.VideoFiles.__init__

    def limited(self, names, first, limit_bytes, fps):
        original(self, names, first, 5_500 if names.video_key == TOP else 6_500, fps)

    monkeypatch.setattr(video_files.VideoFiles, "__init__", limited)


@pytest.mark.parametrize("episodes_per_commit", [1, 3, 100])
def test_each_camera_rolls_over_on_its_own(tmp_path, small_videos, episodes_per_commit):
    root, episodes = tmp_path / "d", [make_episode(5, seed) for seed in range(8)]
    with create(root, episodes_per_commit=episodes_per_commit) as writer:
        for episode in episodes:
            writer.add_episode(episode, "t")
            if episodes_per_commit == 1:
                check(root, episodes[: writer.num_episodes])
    counts = [len(mp4s(root, camera)) for camera in (TOP, SIDE)]
    assert 2 <= min(counts) < max(counts) < 8
    for camera, count in zip((TOP, SIDE), counts, strict=True):
        assert mp4s(root, camera) == [f"chunk-000/file-{n:03d}.mp4" for n in range(count)]
    assert len(list((root / "data").glob("*/*"))) == 1
    check(root, episodes)


def test_an_episode_larger_than_the_limit_gets_a_file_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    features = Features({"top": Feature("video", (128, 128, 3))})
    options = VideoOptions(vcodec="h264", crf=0, preset="ultrafast")
    root = tmp_path / "d"
    with create(root, features=features, video_files_size_in_mb=1, video=options) as writer:
        for _ in range(3):
            writer.add_episode({"top": noise}, "t")
    assert len(mp4s(root, "top")) == 3
    assert min(path.stat().st_size for path in root.rglob("*.mp4")) > 2**20
    assert [row["videos/top/file_index"] for row in read_rows(root)] == [0, 1, 2]


def test_numbers_go_on_in_the_next_chunk(tmp_path):
    root = tmp_path / "d"
    create(root).finalize()
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"chunks_size": 2}))
    episodes = [make_episode(2, seed) for seed in range(4)]
    for episode in episodes[:3]:
        with DatasetWriter.resume(root, video=H264) as writer:
            writer.add_episode(episode, "t")
    with DatasetWriter.resume(root, video=H264) as writer:
        writer.add_episode(episodes[3], "t")
        writer.add_episode(episodes[0], "t")
        assert mp4s(root, TOP)[-3:] == [f"chunk-00{n // 2}/file-00{n % 2}.mp4" for n in (2, 3, 4)]
    assert mp4s(root, TOP)[-1] == "chunk-001/file-001.mp4"
    check(root, [*episodes, episodes[0]])


def test_resume_starts_new_files_even_with_another_codec(tmp_path):
    root, episodes = tmp_path / "d", [make_episode(3, seed) for seed in range(4)]
    with create(root) as writer:
        for episode in episodes[:2]:
            record(writer, episode, "a")
    with DatasetWriter.resume(root) as writer:
        assert writer.num_episodes == 2
        for episode in episodes[2:]:
            record(writer, episode, "b")
    assert mp4s(root, TOP) == ["chunk-000/file-000.mp4", "chunk-000/file-001.mp4"]
    codecs = []
    for name in mp4s(root, TOP):
        with av.open(str(root / "videos" / TOP / name)) as container:
            codecs.append(container.streams.video[0].codec_context.codec.canonical_name)
    assert codecs == ["h264", "av1"]
    check(root, episodes)
    stats = DatasetReader.open(root).stats[TOP]
    assert stats["count"].tolist() == [12]
    whole = np.concatenate([episode[TOP] for episode in episodes]) / 255
    np.testing.assert_allclose(stats["mean"].ravel(), whole.mean(axis=(0, 1, 2)))


def test_cleared_frames_leave_nothing(tmp_path):
    root = tmp_path / "d"
    with create(root) as writer:
        record(writer, make_episode(3))
        for frame in range(5):
            writer.add_frame({name: v[frame] for name, v in make_episode(5, 9).items()}, "t")
        writer.clear_episode_buffer()
        assert not list(root.rglob("*.tmp"))
        record(writer, make_episode(2, 1))
    check(root, [make_episode(3), make_episode(2, 1)])


def test_an_error_in_the_with_block_drops_the_open_episode(tmp_path):
    root, threads = tmp_path / "d", threading.active_count()

    def interrupted():
        with create(root) as writer:
            record(writer, make_episode(3))
            writer.add_frame({name: v[0] for name, v in make_episode(1, 9).items()}, "t")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    check(root, [make_episode(3)])
    assert threading.active_count() == threads


def test_a_frame_that_does_not_fit_leaves_the_episode_as_it_was(tmp_path):
    root, episode = tmp_path / "d", make_episode(3)
    with create(root) as writer:
        for frame in range(3):
            values = {name: v[frame] for name, v in episode.items()}
            with pytest.raises(FeatureMismatchError, match=r"side \(shape \[32, 32, 3\]"):
                writer.add_frame(values | {SIDE: np.zeros((32, 32, 3), np.uint8)}, "t")
            with pytest.raises(FeatureMismatchError, match=r"top \(dtype float64, pictures are"):
                writer.add_frame(values | {TOP: values[TOP] / 255}, "t")
            writer.add_frame(values, "t")
        writer.save_episode()
    check(root, [episode])


def test_videos_that_cannot_be_joined_stay_files_of_their_own(tmp_path, monkeypatch):
    root, episodes = tmp_path / "d", [make_episode(2, seed) for seed in range(3)]

    def refuse(paths, *_, **__):
        raise DatasetError(f"{paths[1]} cannot follow {paths[0]}")

    monkeypatch.setattr(video_files, "concatenate", refuse)
    with create(root) as writer:
        for episode in episodes:
            record(writer, episode)
    assert len(mp4s(root, TOP)) == 3
    check(root, episodes)


def test_what_cannot_be_encoded_is_refused_before_anything_is_written(tmp_path):
    odd = Features({"top": Feature("video", (33, 48, 3))})
    with pytest.raises(ConfigError, match="even sizes"):
        create(tmp_path / "d", features=odd)
    assert not (tmp_path / "d").exists()


def test_the_default_is_av1_and_takes_odd_sizes(tmp_path):
    root, features = tmp_path / "d", Features({"top": Feature("video", (65, 71, 3))})
    pictures = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full(
        (65, 71, 3), 60, np.uint8
    )
    with DatasetWriter.create(root, fps=30, features=features) as writer:
        for _ in range(2):
            writer.add_episode({"top": pictures}, "t")
    info = json.loads((root / "meta/info.json").read_text())["features"]["top"]["info"]
    assert (info["video.codec"], info["video.height"], info["video.width"]) == ("av1", 65, 71)
    dataset = DatasetReader.open(root)
    shown = dataset.read_frames("top", np.arange(8), tolerance_s=1e-4)
    assert np.abs(shown.astype(int) - np.concatenate([pictures, pictures])).max() < 8
