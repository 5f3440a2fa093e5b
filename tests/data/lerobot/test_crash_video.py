"""Killing the writer of videos at any moment: saved episodes open, a resumed session is whole."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot import series, video_files
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.encoder import VideoEncoder
from leray.data.video.options import VideoOptions
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

LARGE, SMALL = "observation.images.large", "observation.images.small"
FEATURES = Features(
    {
        "action": Feature("float32", (1,)),
        LARGE: Feature("video", (32, 48, 3), ("height", "width", "channels")),
        SMALL: Feature("video", (32, 32, 3), ("height", "width", "channels")),
    }
)
H264 = VideoOptions(vcodec="h264", preset="ultrafast")
STATS = {
    camera: {
        **{key: np.full((3, 1, 1), 0.5) for key in ("min", "max", "mean", "std")},
        "count": np.array([2]),
    }
    for camera in (LARGE, SMALL)
}
LENGTHS = (3, 2, 4, 1, 3)


class KilledError(BaseException):
    """Stands for a kill: nothing after it reaches the disk."""


def before_each_change(monkeypatch, hook) -> None:
    """Call a function before every file that is renamed or deleted."""

    def hooked(original):
        def changing(path, *args, **kwargs):
            if path.exists():
                hook()
            return original(path, *args, **kwargs)

        return changing

    for name in ("replace", "rename", "unlink"):
        monkeypatch.setattr(Path, name, hooked(getattr(Path, name)))


def make_pictures(episode: int, width: int) -> np.ndarray:
    """Frames of one colour each, which tells episode and frame."""
    length = LENGTHS[episode]
    colours = 20 + 30 * episode + 5 * np.arange(length)
    return np.broadcast_to(colours[:, None, None, None], (length, 32, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Encode every episode's videos once; saving them is then a matter of milliseconds."""
    folder = tmp_path_factory.mktemp("clips")
    for episode in range(len(LENGTHS)):
        for camera, width in ((LARGE, 48), (SMALL, 32)):
            path = folder / f"{camera}-{episode}.mp4"
            with VideoEncoder(path, fps=10, options=H264) as encoder:
                for picture in make_pictures(episode, width):
                    encoder.add(picture)
    return folder


def save(writer: DatasetWriter, episode: int, clips: Path | None) -> None:
    action = np.full(LENGTHS[episode], episode, np.float32)
    if clips is not None:
        videos = {camera: clips / f"{camera}-{episode}.mp4" for camera in (LARGE, SMALL)}
        writer.add_episode({"action": action}, "t", videos=videos, stats=STATS)
        return
    pictures = {LARGE: make_pictures(episode, 48), SMALL: make_pictures(episode, 32)}
    for frame in range(LENGTHS[episode]):
        values = {camera: p[frame] for camera, p in pictures.items()}
        writer.add_frame({"action": action[frame], **values}, "t")
    writer.save_episode()


def record(root: Path, saved: list[int], clips: Path | None) -> None:
    with DatasetWriter.create(
        root, fps=10, features=FEATURES, video=H264, streaming_encoding=False
    ) as writer:
        for episode in range(len(LENGTHS)):
            save(writer, episode, clips)
            saved.append(episode)


def assert_holds(root: Path, episodes: int) -> None:
    """Assert that every frame of the first episodes is read, by number and by time."""
    dataset = DatasetReader.open(root)
    assert dataset.num_episodes == episodes
    wanted = np.repeat(np.arange(episodes), LENGTHS[:episodes])
    np.testing.assert_array_equal(dataset.read(["action"])["action"], wanted)
    for camera, width in ((LARGE, 48), (SMALL, 32)) if episodes else ():
        whole = np.concatenate([make_pictures(episode, width) for episode in range(episodes)])
        shown = dataset.read_frames(camera, np.arange(len(wanted)), tolerance_s=1e-4)
        assert np.abs(shown.astype(int) - whole).max() <= 4
    dataset.close()


def assert_tidy(root: Path) -> None:
    """Assert that nothing is there twice: every frame of every video belongs to one episode."""
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    for camera in (LARGE, SMALL):
        listed: dict[int, int] = {}
        for row in rows:
            file = row[f"videos/{camera}/file_index"]
            listed[file] = listed.get(file, 0) + row["length"]
        found = {}
        for path in (root / "videos" / camera).glob("*/*.mp4"):
            with VideoReader(path) as video:
                found[int(path.stem[-3:])] = video.num_frames
        assert found == listed
        unsaved = list((root / "videos" / camera).glob("*/*.orphan"))
        assert len(unsaved) <= 1  # the episode that was being saved
    assert not list(root.rglob(".*"))
    assert DatasetReader.open(root).findings == []


def make_files_small(monkeypatch) -> None:
    """Make every save a segment of its own, and files full after two or three episodes."""
    monkeypatch.setattr(series, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(series, "SEGMENT_EPISODES", 2)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    original = video_files.VideoFiles.__init__

    def limited(self, names, first, limit_bytes, fps):
        original(self, names, first, 4_000 if names.video_key == LARGE else 6_000, fps)

    monkeypatch.setattr(video_files.VideoFiles, "__init__", limited)


def snapshots(root: Path, copies: Path, clips: Path | None) -> list[tuple[Path, int]]:
    """Record a dataset; return it as a kill would leave it before each change on disk.

    Each state comes with the number of episodes that had been saved.
    """
    states, saved = [], []
    with pytest.MonkeyPatch.context() as patch:
        make_files_small(patch)

        def keep() -> None:
            copy = copies / str(len(states))
            shutil.copytree(root, copy)
            states.append((copy, len(saved)))

        before_each_change(patch, keep)
        root.mkdir()
        record(root, saved, clips)
    assert_holds(root, len(LENGTHS))
    assert_tidy(root)
    return [state for state in states if (state[0] / "meta/info.json").exists()]


def resume_and_finish(root: Path, clips: Path | None, episodes: int = len(LENGTHS)) -> None:
    with DatasetWriter.resume(root, video=H264) as writer:
        for episode in range(writer.num_episodes, episodes):
            save(writer, episode, clips)


@pytest.fixture(scope="module")
def states(tmp_path_factory, clips):
    """Every state that a kill may leave."""
    folder = tmp_path_factory.mktemp("states")
    return snapshots(folder / "d", folder, clips)


def test_a_kill_at_any_moment(tmp_path, monkeypatch, states, clips):
    make_files_small(monkeypatch)
    assert len(states) > 60
    for number, (state, saved) in enumerate(states):
        root = tmp_path / str(number)
        shutil.copytree(state, root)
        there = DatasetReader.open(root).num_episodes
        assert there in (saved, saved + 1)
        assert_holds(root, there)
        whole = min(there + 1, len(LENGTHS))
        resume_and_finish(root, clips, whole)
        assert_holds(root, whole)
        assert_tidy(root)


def test_a_kill_while_a_killed_session_is_resumed(tmp_path, monkeypatch, states, clips):
    make_files_small(monkeypatch)
    allowed = [0]

    def limit() -> None:
        allowed[0] -= 1
        if allowed[0] < 0:
            raise KilledError

    for number, (state, _) in enumerate(states[::3]):
        root, killed = tmp_path / str(number), 0
        shutil.copytree(state, root)
        there = DatasetReader.open(root).num_episodes
        with monkeypatch.context() as patch:
            before_each_change(patch, limit)
            for allowed[0] in range(1, 4):
                try:
                    DatasetWriter.resume(root, video=H264)
                except KilledError:
                    killed += 1
        assert_holds(root, there)
        resume_and_finish(root, clips)
        assert_holds(root, len(LENGTHS))
        assert_tidy(root)


def test_a_kill_while_frames_are_encoded(tmp_path, monkeypatch):
    states = snapshots(tmp_path / "d", tmp_path, None)
    make_files_small(monkeypatch)
    for root, saved in np.random.default_rng(0).permutation(np.array(states, object))[:5]:
        there = DatasetReader.open(root).num_episodes
        assert there in (saved, saved + 1)
        resume_and_finish(root, None)
        assert_holds(root, len(LENGTHS))
        assert_tidy(root)


@pytest.fixture
def disk_limit():
    """Lets files grow up to a size (bytes), as on a full disk; returns what sets it."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def create(root: Path) -> DatasetWriter:
    return DatasetWriter.create(root, fps=10, features=FEATURES, video=H264)


def record_noise(writer: DatasetWriter) -> None:
    rng, dark = np.random.default_rng(0), np.zeros((32, 32, 3), np.uint8)
    for _ in range(1000):
        noise = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        writer.add_frame({"action": np.float32(0), LARGE: noise, SMALL: dark}, "t")


def test_a_full_disk_while_frames_are_recorded_costs_that_episode_only(tmp_path, disk_limit):
    root = tmp_path / "d"
    with create(root) as writer:
        save(writer, 0, None)
        disk_limit(40_000)
        with pytest.raises(OSError, match="too large"):
            record_noise(writer)
        disk_limit(None)
        with pytest.raises(DatasetError, match=r"cannot be saved: .*too large.*; call clear_ep"):
            record_noise(writer)
        with pytest.raises(DatasetError, match="too large"):
            writer.save_episode()
        writer.clear_episode_buffer()
        assert_holds(root, 1)
        save(writer, 1, None)
    assert_holds(root, 2)
    assert_tidy(root)


def test_a_full_disk_when_a_video_is_completed_costs_that_episode_only(tmp_path, disk_limit):
    root = tmp_path / "d"
    with create(root) as writer:
        save(writer, 0, None)
        disk_limit(500)
        with pytest.raises(OSError, match="too large"):
            save(writer, 1, None)
        disk_limit(None)
        assert_holds(root, 1)
        save(writer, 1, None)
    assert_holds(root, 2)
    assert_tidy(root)


def test_a_full_disk_when_an_episode_is_written_leaves_a_dataset_to_resume(tmp_path, disk_limit):
    root = tmp_path / "d"
    writer = create(root)
    save(writer, 0, None)
    disk_limit(10_000)  # room for the videos
    with pytest.raises(OSError, match="too large"):
        save(writer, 1, None)
    disk_limit(None)
    with pytest.raises(DatasetError, match=r"half way; use DatasetWriter.resume"):
        save(writer, 1, None)
    assert_holds(root, 1)
    resume_and_finish(root, None)
    assert_holds(root, len(LENGTHS))
    assert_tidy(root)


def test_a_full_disk_when_files_are_merged_leaves_all_episodes(tmp_path, disk_limit):
    root = tmp_path / "d"
    writer = create(root)
    for episode in range(3):
        save(writer, episode, None)
    disk_limit(1_500)
    with pytest.raises(OSError, match=r"too large.*file-000.mp4"):
        writer.finalize()
    disk_limit(None)
    assert_holds(root, 3)
    resume_and_finish(root, None)
    assert_holds(root, len(LENGTHS))
    assert_tidy(root)


def test_a_video_of_no_known_episode_is_set_aside_not_deleted(tmp_path, clips):
    root = tmp_path / "d"
    record(root, [], clips)
    folder = root / "videos" / LARGE / "chunk-000"
    whole = (folder / "file-000.mp4").read_bytes()
    strangers = {"file-001.mp4": (clips / f"{SMALL}-0.mp4").read_bytes(), "file-007.mp4": b"no mp4"}
    for name, content in strangers.items():
        (folder / name).write_bytes(content)
    (folder / "file-003.mp4").write_bytes((clips / f"{LARGE}-2.mp4").read_bytes())
    DatasetWriter.resume(root, video=H264).finalize()
    assert {path.name for path in folder.iterdir()} == {
        "file-000.mp4",
        "file-001.mp4.orphan",
        "file-007.mp4.orphan",
    }
    for name, content in strangers.items():
        assert (folder / f"{name}.orphan").read_bytes() == content
    assert (folder / "file-000.mp4").read_bytes() == whole
    assert_holds(root, len(LENGTHS))


def test_further_frames_of_a_foreign_video_stay(tmp_path, clips):
    root = tmp_path / "d"
    with DatasetWriter.create(root, fps=10, features=FEATURES, video=H264) as writer:
        save(writer, 0, clips)
    path = root / "videos" / LARGE / "chunk-000/file-000.mp4"
    longer = [clips / f"{LARGE}-{episode}.mp4" for episode in (0, 2)]
    video_files.concatenate(longer, path)
    content = path.read_bytes()
    with DatasetWriter.resume(root, video=H264) as writer:
        save(writer, 1, clips)
    DatasetWriter.resume(root, video=H264).finalize()
    assert path.read_bytes() == content
    assert_holds(root, 2)


def test_metadata_that_do_not_tell_where_videos_are_are_not_recovered(tmp_path, clips):
    root = tmp_path / "d"
    record(root, [], clips)
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([f"videos/{LARGE}/file_index"]), path)
    with pytest.raises(DatasetError, match=r"does not say where the videos of .*large' are"):
        DatasetWriter.resume(root)
    assert (root / "videos" / LARGE / "chunk-000/file-000.mp4").exists()


CHILD = """
import sys
import numpy as np
from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter
from leray.data.video.options import VideoOptions
features = Features({"top": Feature("video", (32, 32, 3), ("height", "width", "channels"))})
video = VideoOptions(vcodec="h264", preset="ultrafast")
with DatasetWriter.create(sys.argv[1], fps=10, features=features, video=video) as writer:
    for episode in range(100000):
        for frame in range(5):
            colour = (7 * episode + 40 * frame) % 256
            writer.add_frame({"top": np.full((32, 32, 3), colour, np.uint8)}, "t")
        print(writer.save_episode(), flush=True)
"""


def test_a_killed_process_loses_no_saved_episode(tmp_path):
    root = tmp_path / "d"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(12):
            printed = child.stdout.readline()
        child.kill()
        rest = child.stdout.read().split()
    saved = int(rest[-1] if rest else printed) + 1
    with DatasetWriter.resume(root, video=H264) as writer:
        there = writer.num_episodes
        assert there in (saved, saved + 1)
    episode, frame = np.divmod(np.arange(5 * there), 5)
    shown = DatasetReader.open(root).read_frames("top", np.arange(5 * there), tolerance_s=1e-4)
    error = shown.mean(axis=(1, 2, 3)) - (7 * episode + 40 * frame) % 256
    assert np.abs(error).max() < 4
    assert not list(root.rglob(".*"))
