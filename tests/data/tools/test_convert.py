"""Converting to v3.0: what every part becomes, and that nothing is encoded anew or lost."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.tools.convert import convert
from leray.data.tools.rewriting.target import RewriteOptions
from leray.data.video.options import VideoOptions
from leray.data.video.reader import VideoReader
from leray.errors import DatasetError

_SPEC = importlib.util.spec_from_file_location("v21", Path(__file__).with_name("v21.py"))
v21 = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(v21)

SAMPLES = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A v2.1 dataset with an h264 camera that has B-frames, an AV1 camera, and stored images."""
    return v21.make(tmp_path_factory.mktemp("source") / "v21")


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    return convert(source, tmp_path_factory.mktemp("converted") / "v30")


def sample(name: str) -> Path:
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"the recorded dataset {name} is not on this machine")
    return SAMPLES / name


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def episodes_of(root: Path) -> list[dict]:
    files = sorted((root / "meta/episodes").glob("*/*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def info_of(root: Path) -> dict:
    return json.loads((root / "meta/info.json").read_text())


def assert_same_frames(left: DatasetReader, right: DatasetReader) -> None:
    for camera in left.cameras:
        for frames in np.array_split(np.arange(left.num_frames), -(-left.num_frames // 100)):
            np.testing.assert_array_equal(
                left.read_frames(camera, frames), right.read_frames(camera, frames)
            )


def assert_same_columns(left: DatasetReader, right: DatasetReader) -> None:
    one, other = left.read(), right.read()
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert array.dtype == other[name].dtype
        np.testing.assert_array_equal(array, other[name])
    for name in ("frame_index", "episode_index", "task_index", "episode_ends"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.timestamp.astype(np.float32), other.timestamp)


def test_a_recorded_v20_dataset_keeps_every_value_and_every_pixel(tmp_path):
    root = sample("gr1_picknplace_v20")
    before = digest(root)
    made = convert(root, tmp_path / "new")
    old, new = DatasetReader.open(root), DatasetReader.open(tmp_path / "new")
    assert (made.num_episodes, made.num_frames) == (5, 2096)
    assert (new.version, new.fps, new.robot_type) == ("v3.0", 20.0, "GR1ArmsOnly")
    assert new.findings == []
    assert new.tasks == old.tasks
    assert new.cameras == ["observation.images.ego_view"]
    assert [note for note in made.notes if "'observation.images.egoview' is declared" in note]
    assert [note for note in made.notes if "--retime=true" in note]
    assert type(info_of(new.root)["fps"]) is int
    assert info_of(new.root)["splits"] == {"train": "0:5"}
    assert (new.root / "meta/modality.json").read_bytes() == (
        root / "meta/modality.json"
    ).read_bytes()
    assert_same_columns(old, new)
    assert_same_frames(old, new)
    rows = pq.read_table(new.root / "data/chunk-000/file-000.parquet", columns=["index"])
    np.testing.assert_array_equal(rows["index"], np.arange(2096))
    assert digest(root) == before


def test_columns_frames_and_pictures_are_the_same(source, converted):
    old, new = DatasetReader.open(source), DatasetReader.open(converted.folder)
    assert converted.notes == []
    assert new.findings == []
    assert new.tasks == v21.TASKS  # also the one that no frame has
    assert_same_columns(old, new)
    assert_same_frames(old, new)
    before = pq.read_table(source / "data/chunk-000/episode_000001.parquet")[v21.WRIST]
    after = pq.read_table(converted.folder / "data/chunk-000/file-000.parquet")[v21.WRIST]
    assert after.slice(14, 9).to_pylist() == before.to_pylist()


def test_one_file_per_camera_with_the_packets_of_all_episodes(source, converted):
    for camera, codec in ((v21.FRONT, "h264"), (v21.SIDE, "av1")):
        (path,) = (converted.folder / "videos" / camera).rglob("*.mp4")
        old = [VideoReader(file) for file in sorted(source.rglob(f"{camera}/*.mp4"))]
        with VideoReader(path) as video:
            assert video.codec == codec
            assert video.num_frames == sum(v21.LENGTHS)
            np.testing.assert_allclose(video.timestamps, np.arange(44) / v21.FPS, atol=1e-6)
            starts = np.cumsum([0, *v21.LENGTHS[:-1]])
            keys = np.concatenate([s + v.keyframes for s, v in zip(starts, old, strict=True)])
            np.testing.assert_array_equal(video.keyframes, keys)
        for video in old:
            video.close()


def test_episodes_metadata(converted):
    rows = episodes_of(converted.folder)
    ends = np.cumsum(v21.LENGTHS)
    assert [row["episode_index"] for row in rows] == [0, 1, 2]
    assert [row["length"] for row in rows] == list(v21.LENGTHS)
    assert [row["tasks"] for row in rows] == [["pick"], ["place"], ["pick"]]
    assert [row["dataset_to_index"] for row in rows] == ends.tolist()
    assert [row["dataset_from_index"] for row in rows] == [0, 14, 23]
    for camera in (v21.FRONT, v21.SIDE):
        prefix = f"videos/{camera}"
        assert [row[f"{prefix}/from_timestamp"] for row in rows] == [0.0, 1.4, 2.3]
        assert [row[f"{prefix}/to_timestamp"] for row in rows] == [1.4, 2.3, 4.4]
        assert [row[f"{prefix}/file_index"] for row in rows] == [0, 0, 0]
    assert {row["data/file_index"] for row in rows} == {0}
    assert {row["meta/episodes/chunk_index"] for row in rows} == {0}
    with pq.ParquetFile(converted.folder / "data/chunk-000/file-000.parquet") as file:
        groups = [file.metadata.row_group(group).num_rows for group in range(3)]
    assert groups == list(v21.LENGTHS)


def test_numbers_get_exact_statistics_with_quantiles(converted):
    state = np.concatenate([v21.numbers(episode)["observation.state"] for episode in range(3)])
    stored = json.loads((converted.folder / "meta/stats.json").read_text())["observation.state"]
    for key, fraction in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(stored[key], np.quantile(state.astype(float), fraction, axis=0))
    np.testing.assert_allclose(stored["std"], state.astype(float).std(axis=0))
    assert stored["count"] == [44]
    row = episodes_of(converted.folder)[1]
    part = v21.numbers(1)["observation.state"].astype(float)
    np.testing.assert_allclose(row["stats/observation.state/q90"], np.quantile(part, 0.9, axis=0))
    assert row["stats/next.done/max"] == [True]


def test_sound_statistics_of_pictures_are_taken_over(converted):
    rows = episodes_of(converted.folder)
    stored = json.loads((converted.folder / "meta/stats.json").read_text())
    for camera in (v21.FRONT, v21.SIDE, v21.WRIST):
        for episode, row in enumerate(rows):
            assert row[f"stats/{camera}/mean"] == [[[0.1 + 0.1 * episode]]] * 3
        np.testing.assert_allclose(stored[camera]["mean"], [[[0.2]]] * 3)
        assert f"stats/{camera}/q50" not in rows[0]  # the source has none


@pytest.mark.parametrize("unsound", ["absent", "levels up to 255", "no deviation"])
def test_other_statistics_of_pictures_are_computed(tmp_path, unsound):
    root = v21.make(tmp_path / "old", cameras=[v21.WRIST], stats=unsound != "absent")
    if unsound != "absent":
        path = root / "meta/episodes_stats.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        entry = rows[1]["stats"][v21.WRIST]
        if unsound == "levels up to 255":
            entry["mean"] = [[[127.0]]] * 3
        else:
            entry |= {"std": [[[0.001]]] * 3, "q10": [[[0.0]]] * 3, "q90": [[[0.9]]] * 3}
        path.write_text("\n".join(map(json.dumps, rows)))
    convert(root, tmp_path / "new")
    frames = np.stack([v21.picture(1, k, 2) for k in range(v21.LENGTHS[1])]) / 255
    row = episodes_of(tmp_path / "new")[1]
    mean = np.array(row[f"stats/{v21.WRIST}/mean"]).reshape(-1)
    np.testing.assert_allclose(mean, frames.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(
        np.array(row[f"stats/{v21.WRIST}/std"]).reshape(-1), frames.std(axis=(0, 1, 2))
    )
    assert (f"stats/{v21.WRIST}/q50" in row) == (unsound == "absent")


def test_info_keeps_what_the_source_says(tmp_path):
    root = v21.make(
        tmp_path / "old",
        cameras=[v21.FRONT],
        fps=10.0,
        splits={"train": "0:2", "val": "2:3"},
        tools=[{"name": "gripper"}],
    )
    (root / "README.md").write_text("a card")
    convert(root, tmp_path / "new", RewriteOptions(video_files_size_in_mb=77))
    info, before = info_of(tmp_path / "new"), info_of(root)
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], type(info["fps"])) == (10, int)
    assert info["splits"] == {"train": "0:2", "val": "2:3"}
    assert info["tools"] == [{"name": "gripper"}]
    assert (info["robot_type"], info["video_files_size_in_mb"]) == ("so101", 77)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 44, 3)
    assert not {"total_chunks", "total_videos"} & set(info)
    assert info["features"]["observation.state"] == before["features"]["observation.state"]
    front = info["features"][v21.FRONT]
    assert front["names"] == ["height", "width", "channels"]
    assert "video_info" not in front
    assert front["info"]["video.codec"] == "h264"
    assert front["info"]["video.height"] == v21.HEIGHT
    assert front["info"]["video.fps"] == 10
    assert (tmp_path / "new/README.md").read_text() == "a card"
    assert not (tmp_path / "new/meta/episodes.jsonl").exists()


def test_further_files_are_copied_but_never_through_links_that_leave_the_dataset(tmp_path):
    root = v21.make(tmp_path / "datasets--lab--demo/snapshots/1a2b", cameras=[])
    (tmp_path / "secret").write_text("not yours")
    blob = tmp_path / "datasets--lab--demo/blobs/3c4d"
    blob.parent.mkdir()
    blob.write_text("a part of the Hub's cache")
    (root / "notes.txt").symlink_to(tmp_path / "secret")
    (root / "meta/modality.json").symlink_to(blob)
    convert(root, tmp_path / "new")
    assert (tmp_path / "new/meta/modality.json").read_text() == blob.read_text()
    assert not (tmp_path / "new/meta/modality.json").is_symlink()
    assert not (tmp_path / "new/notes.txt").exists()


def test_pictures_in_files_of_their_own_are_embedded(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.WRIST])
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    contents = [entry["bytes"] for entry in table[v21.WRIST].to_pylist()]
    for number, content in enumerate(contents):
        (root / f"images/{number}.png").parent.mkdir(exist_ok=True)
        (root / f"images/{number}.png").write_bytes(content)
    entries = [{"bytes": None, "path": f"images/{number}.png"} for number in range(14)]
    column = pa.array(entries, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    place = table.column_names.index(v21.WRIST)
    pq.write_table(table.set_column(place, v21.WRIST, column), path)
    convert(root, tmp_path / "new")
    stored = pq.read_table(tmp_path / "new/data/chunk-000/file-000.parquet")[v21.WRIST]
    assert [entry["bytes"] for entry in stored.to_pylist()[:14]] == contents


def test_timestamps_are_kept_or_counted_anew(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.FRONT])
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    times = np.arange(14) / 10 + 0.003 * np.arange(14)
    place = table.column_names.index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", pa.array(times)), path)
    kept = convert(root, tmp_path / "kept")
    anew = convert(root, tmp_path / "anew", RewriteOptions(retime=True))
    assert [note for note in kept.notes if note.startswith("1 episodes have timestamps other")]
    assert anew.notes == []
    stored = DatasetReader.open(kept.folder).read([]).timestamp
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored[:14], times.astype(np.float32))
    counted = DatasetReader.open(anew.folder).read([]).timestamp
    np.testing.assert_array_equal(counted[:14], (np.arange(14) / 10).astype(np.float32))


def test_what_follows_an_episode_in_its_video_is_left_out(tmp_path):
    root = v21.make(tmp_path / "old", cameras=[v21.SIDE])
    path = root / f"videos/chunk-000/{v21.SIDE}/episode_000000.mp4"
    frames = [v21.picture(0, k, 1) for k in range(16)]
    v21.film(path, frames, "libsvtav1", {"g": "2", "crf": "40", "preset": "13"})
    made = convert(root, tmp_path / "new")
    assert made.notes == []
    assert_same_frames(DatasetReader.open(root), DatasetReader.open(made.folder))
    with VideoReader(tmp_path / f"new/videos/{v21.SIDE}/chunk-000/file-000.mp4") as video:
        assert video.num_frames == 44


def test_encoding_anew_brings_key_frames_closer(source, tmp_path):
    options = RewriteOptions(encode=VideoOptions(vcodec="h264", g=2, crf=18))
    made = convert(source, tmp_path / "new", options)
    old, new = DatasetReader.open(source), DatasetReader.open(made.folder)
    assert_same_columns(old, new)
    for camera in (v21.FRONT, v21.SIDE):
        with VideoReader(tmp_path / f"new/videos/{camera}/chunk-000/file-000.mp4") as video:
            assert (video.codec, video.num_frames) == ("h264", 44)
            assert np.diff(video.keyframes).max() == 2
        frames = np.arange(44)
        before, after = old.read_frames(camera, frames), new.read_frames(camera, frames)
        error = np.abs(before.astype(int) - after).mean(axis=(1, 2, 3))
        shifted = np.abs(before[1:].astype(int) - after[:-1]).mean(axis=(1, 2, 3))
        assert error.max() < 6
        assert (error[1:] <= shifted).all()  # no frame took another's place
    assert info_of(made.folder)["features"][v21.SIDE]["info"]["video.codec"] == "h264"


def test_a_v30_dataset_is_written_anew_only_on_demand(source, converted, tmp_path):
    with pytest.raises(DatasetError, match=r"is v3.0 already; give --repack=true"):
        convert(converted.folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    table = pq.read_table(converted.folder / "data/chunk-000/file-000.parquet")
    loose = tmp_path / "loose"
    convert(converted.folder, loose, repack=True)
    pq.write_table(table, loose / "data/chunk-000/file-000.parquet", row_group_size=10)
    made = convert(loose, tmp_path / "new", repack=True)
    assert_same_columns(DatasetReader.open(source), DatasetReader.open(made.folder))
    assert_same_frames(DatasetReader.open(source), DatasetReader.open(made.folder))
    with pq.ParquetFile(tmp_path / "new/data/chunk-000/file-000.parquet") as file:
        assert file.num_row_groups == 3
        assert file.schema_arrow.equals(table.schema, check_metadata=True)
    assert episodes_of(made.folder) == episodes_of(converted.folder)
    assert (made.folder / "meta/stats.json").read_bytes() == (
        converted.folder / "meta/stats.json"
    ).read_bytes()


def test_file_sizes_are_those_of_the_source(converted, tmp_path):
    convert(converted.folder, tmp_path / "a", RewriteOptions(data_files_size_in_mb=7), repack=True)
    convert(tmp_path / "a", tmp_path / "b", repack=True)
    info = info_of(tmp_path / "b")
    assert (info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (7, 200)
    with pytest.raises(DatasetError, match=r"video_files_size_in_mb must be a positive integer"):
        RewriteOptions(video_files_size_in_mb=0)


def test_source_is_untouched(source, converted, tmp_path):
    before = digest(source)
    convert(source, tmp_path / "new")
    assert digest(source) == before


def test_an_output_inside_the_source_is_refused(source):
    before = digest(source)
    with pytest.raises(DatasetError, match=r"lies inside the dataset"):
        convert(source, source / "v30")
    assert digest(source) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no video", r"episode_000001.mp4 is missing"),
        ("short video", r"has 5 frames; episode 1 needs 9 from frame 0 on"),
        ("no data", r"episode_000001.parquet is missing"),
        ("no rows", r"episode_000001.parquet has 4 rows, the episodes metadata asks for row 8"),
        ("no column", r"episode_000001.parquet lacks the column 'action'"),
        ("unknown task", r"episode 1: task_index 7 has no text, there are 3 tasks"),
        ("other episode", r"the rows of episode 1 disagree with the episodes metadata"),
        ("rate", r"has 29.97 frames per second; LeRobot v3.0 stores whole"),
        ("version", r"codebase_version 'v1.6'; readable are"),
    ],
)
def test_damage_is_one_clear_error_and_leaves_no_output(tmp_path, damage, message):
    root = v21.make(tmp_path / "old", cameras=[v21.FRONT])
    video = root / f"videos/chunk-000/{v21.FRONT}/episode_000001.mp4"
    path = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    info = info_of(root)
    if damage == "no video":
        video.unlink()
    elif damage == "short video":
        v21.film(video, [v21.picture(1, k) for k in range(5)])
    elif damage == "no data":
        path.unlink()
    elif damage == "no rows":
        pq.write_table(table[:4], path)
    elif damage == "no column":
        pq.write_table(table.drop_columns(["action"]), path)
    elif damage in ("unknown task", "other episode"):
        name = "task_index" if damage == "unknown task" else "episode_index"
        place = table.column_names.index(name)
        pq.write_table(table.set_column(place, name, pa.array([7] * 9)), path)
    else:
        info |= {"fps": 29.97} if damage == "rate" else {"codebase_version": "v1.6"}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(DatasetError, match=message):
        convert(root, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
