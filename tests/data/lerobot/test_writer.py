"""The writer: round trips, exact layout, exact checks, growth over several files, resuming."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data import statistics
from leray.data.features import Feature, Features
from leray.data.lerobot import layout, series
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import DatasetError, FeatureMismatchError

FEATURES = Features(
    {
        "observation.state": Feature("float32", (3,), ("x", "y", "z"), low=(-9.0,) * 3),
        "action": Feature("float64", (2,)),
        "next.reward": Feature("float32", (1,)),
        "next.done": Feature("bool", (1,)),
        "grid": Feature("int16", (2, 3)),
        "cube": Feature("uint8", (2, 2, 2)),
        "note": Feature("string", (1,)),
    }
)
DATA = "data/chunk-000/file-{:03d}.parquet"
EPISODES = "meta/episodes/chunk-000/file-{:03d}.parquet"


def make_episode(length: int, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 2)),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
        "grid": rng.integers(-99, 99, size=(length, 2, 3), dtype=np.int16),
        "cube": rng.integers(0, 255, size=(length, 2, 2, 2), dtype=np.uint8),
        "note": [f"frame {frame}" for frame in range(length)],
    }


def make_frame(**overrides) -> dict:
    return {name: values[0] for name, values in make_episode(1).items()} | overrides


def create(root, **overrides) -> DatasetWriter:
    return DatasetWriter.create(root, **{"fps": 10, "features": FEATURES, **overrides})


def check_layout(root) -> None:
    """Assert what other readers rely on: rows in file order, agreeing counters, row groups."""
    info = json.loads((root / "meta/info.json").read_text())
    data = [pq.ParquetFile(path) for path in sorted((root / "data").glob("*/*.parquet"))]
    rows = pa.concat_tables([file.read() for file in data])
    episodes = pa.concat_tables(
        [pq.read_table(path) for path in sorted((root / "meta/episodes").glob("*/*.parquet"))]
    )
    lengths = episodes["length"].to_pylist()
    assert info["total_episodes"] == len(episodes)
    assert info["total_frames"] == len(rows) == sum(lengths)
    assert info["total_tasks"] == pq.read_metadata(root / "meta/tasks.parquet").num_rows
    assert info["splits"] == {"train": f"0:{len(episodes)}"}
    assert rows.column_names == list(info["features"])
    assert episodes["episode_index"].to_pylist() == list(range(len(episodes)))
    np.testing.assert_array_equal(rows["index"], np.arange(len(rows)))
    np.testing.assert_array_equal(
        rows["episode_index"], np.repeat(np.arange(len(lengths)), lengths)
    )
    np.testing.assert_array_equal(episodes["dataset_to_index"], np.cumsum(lengths))
    np.testing.assert_array_equal(episodes["dataset_from_index"], np.cumsum(lengths) - lengths)
    groups = [file.metadata.row_group(g) for file in data for g in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == lengths
    assert {group.column(0).compression for group in groups} == {"SNAPPY"}
    stats = json.loads((root / "meta/stats.json").read_text())
    assert {entry["count"][0] for entry in stats.values()} == {len(rows)}


def test_round_trip_of_whole_episodes(tmp_path):
    episodes = [make_episode(length, seed) for seed, length in enumerate((4, 1, 7))]
    with create(tmp_path / "d", robot_type="virtual") as writer:
        indices = [writer.add_episode(e, f"task {i % 2}") for i, e in enumerate(episodes)]
    dataset = DatasetReader.open(tmp_path / "d")
    columns = dataset.read()
    assert indices == dataset.episodes == [0, 1, 2]
    assert dataset.findings == []
    assert dataset.features == FEATURES
    assert (dataset.robot_type, dataset.fps) == ("virtual", 10.0)
    assert dataset.tasks == ["task 0", "task 1"]
    for name in FEATURES:
        whole = np.concatenate([np.asarray(e[name]) for e in episodes])
        np.testing.assert_array_equal(columns[name], whole)
    np.testing.assert_array_equal(columns.episode_ends, [4, 5, 12])
    np.testing.assert_array_equal(columns.task_index, [0] * 4 + [1] + [0] * 7)
    np.testing.assert_array_equal(columns.timestamp[5:8], np.float32([0.0, 0.1, 0.2]))
    check_layout(tmp_path / "d")


def test_frame_by_frame_equals_whole_episodes(tmp_path):
    episode = make_episode(5)
    with create(tmp_path / "frames") as writer:
        for frame in range(5):
            writer.add_frame({name: values[frame] for name, values in episode.items()}, "t")
        assert writer.save_episode() == 0
    with create(tmp_path / "whole") as writer:
        writer.add_episode(episode, "t")
    for path in (DATA.format(0), EPISODES.format(0), "meta/info.json", "meta/stats.json"):
        assert (tmp_path / "frames" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_added_values_are_copied(tmp_path):
    with create(tmp_path / "d", features=FEATURES.select(["action"])) as writer:
        reused = np.zeros(2)
        for step in range(3):
            reused[:] = step
            writer.add_frame({"action": reused}, "t")
        writer.save_episode()
    action = DatasetReader.open(tmp_path / "d").read()["action"]
    np.testing.assert_array_equal(action[:, 0], [0, 1, 2])


def test_storage_types_are_those_of_the_format(tmp_path):
    with create(tmp_path / "d") as writer:
        writer.add_episode(make_episode(2), "t")
    schema = pq.read_schema(tmp_path / "d" / DATA.format(0))
    assert schema.field("observation.state").type == pa.list_(pa.field("element", pa.float32()), 3)
    assert schema.field("next.reward").type == pa.float32()
    assert schema.field("next.done").type == pa.bool_()
    assert schema.field("note").type == pa.string()
    described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert described["observation.state"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 3,
        "_type": "List",
    }
    assert described["grid"] == {"shape": [2, 3], "dtype": "int16", "_type": "Array2D"}
    assert described["timestamp"] == {"dtype": "float32", "_type": "Value"}


def test_tasks_are_the_index_of_the_pandas_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    with create(tmp_path / "d") as writer:
        for task in ("pick", "place", "pick"):
            writer.add_episode(make_episode(2), task)
    frame = pandas.read_parquet(tmp_path / "d/meta/tasks.parquet")
    assert frame.index.name == "task"
    assert list(frame.index) == ["pick", "place"]
    assert frame["task_index"].tolist() == [0, 1]


def test_statistics_of_episodes_and_of_the_whole(tmp_path):
    episodes = [make_episode(length, seed) for seed, length in enumerate((40, 10))]
    with create(tmp_path / "d") as writer:
        for episode in episodes:
            writer.add_episode(episode, "t")
    row = pq.read_table(tmp_path / "d" / EPISODES.format(0)).to_pylist()[1]
    exact = statistics.compute(episodes[1]["action"])
    assert row["stats/action/q99"] == exact["q99"].tolist()
    assert row["stats/next.done/max"] == [True]
    assert np.shape(row["stats/grid/mean"]) == (2, 3)
    assert not any(name.startswith("stats/note") for name in row)
    whole = statistics.compute(np.concatenate([episode["action"] for episode in episodes]))
    stored = DatasetReader.open(tmp_path / "d").stats["action"]
    for key in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(stored[key], whole[key], rtol=1e-12)


def test_frames_of_one_episode_may_have_several_tasks(tmp_path):
    with create(tmp_path / "d") as writer:
        for task in ("a", "b", "b"):
            writer.add_frame(make_frame(), task)
        writer.save_episode()
    dataset = DatasetReader.open(tmp_path / "d")
    assert dataset.read([]).task_index.tolist() == [0, 1, 1]
    assert dataset.metadata.episodes.tasks == (("a", "b"),)


def test_what_does_not_fit_is_refused_and_leaves_nothing_behind(tmp_path):
    writer = create(tmp_path / "d")
    with pytest.raises(FeatureMismatchError, match="the frame does not fit"):
        writer.add_frame(make_frame(action=np.zeros(3)), "t")
    with pytest.raises(FeatureMismatchError, match="the episode does not fit"):
        writer.add_episode(make_episode(4) | {"action": np.zeros((3, 2))}, "t")
    assert (writer.num_episodes, writer.num_frames) == (0, 0)
    writer.add_frame(make_frame(), "t")
    assert writer.save_episode() == 0
    assert writer.num_frames == 1


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"top": Feature("video", (32, 32))}, r"'top' has shape \[32, 32\]; pictures need"),
        ({"top": Feature("video", (32, 32, 4))}, "'top' has 4 channels; video features have 3:"),
        ({"top": Feature("image", (8, 8, 2))}, "'top' has 2 channels; image features have 1 or 3"),
        ({"..": Feature("video", (32, 32, 3))}, "'..' cannot be the name of a folder"),
        ({"timestamp": Feature("float32", (1,))}, "timestamp.*leave it out"),
        ({"a": Feature("float32", (1,) * 6)}, "6 axes"),
        ({"a": Feature("string", (2,))}, "needs shape"),
        ({}, "no feature"),
    ],
)
def test_features_that_cannot_be_written_are_named(tmp_path, features, reason):
    with pytest.raises(DatasetError, match=reason):
        create(tmp_path / "d", features=Features(features))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "option",
    [
        {"fps": 0},
        {"fps": 29.97},
        {"data_files_size_in_mb": 0},
        {"video_files_size_in_mb": 0},
        {"episodes_per_commit": 0},
    ],
)
def test_bad_options_are_named(tmp_path, option):
    with pytest.raises(DatasetError, match=f"{next(iter(option))} must be a positive integer"):
        create(tmp_path / "d", **option)


def test_create_needs_a_new_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="exists and is not empty"):
        create(tmp_path)
    with pytest.raises(DatasetError, match="exists and is not empty"):
        create(tmp_path / "file")
    with pytest.raises(DatasetError, match="s3://bucket/d is no local folder"):
        create("s3://bucket/d")


def test_unsaved_frames_are_not_lost_silently(tmp_path):
    writer = create(tmp_path / "d")
    with pytest.raises(DatasetError, match="no frame to save"):
        writer.save_episode()
    writer.add_frame(make_frame(), "t")
    with pytest.raises(DatasetError, match="1 frames are not saved"):
        writer.finalize()
    with pytest.raises(DatasetError, match="1 frames are not saved"):
        writer.add_episode(make_episode(2), "t")
    writer.clear_episode_buffer()
    writer.add_episode(make_episode(2), "t")
    writer.finalize()
    writer.finalize()
    with pytest.raises(DatasetError, match="finalized"):
        writer.add_frame(make_frame(), "t")
    assert DatasetReader.open(tmp_path / "d").num_frames == 2


def test_error_in_the_with_block_keeps_saved_episodes(tmp_path):
    def record():
        with create(tmp_path / "d") as writer:
            writer.add_episode(make_episode(2), "t")
            writer.add_frame(make_frame(), "t")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record()
    assert DatasetReader.open(tmp_path / "d").num_frames == 2
    check_layout(tmp_path / "d")


def test_an_empty_dataset_opens(tmp_path):
    create(tmp_path / "d").finalize()
    dataset = DatasetReader.open(tmp_path / "d")
    columns = dataset.read()
    assert (dataset.num_episodes, len(columns)) == (0, 0)
    assert columns["grid"].shape == (0, 2, 3)
    assert dataset.stats == {}


def test_a_flipped_bit_in_written_data_is_found(tmp_path):
    with create(tmp_path / "d") as writer:
        writer.add_episode(make_episode(200), "t")
    path = tmp_path / "d" / DATA.format(0)
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset - 40] ^= 1  # the last values of the dictionary page
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"file-000.parquet is damaged"):
        DatasetReader.open(tmp_path / "d").read()


@pytest.fixture
def small_files(monkeypatch):
    """Seal every segment at once and fill a data file with about three episodes of five frames."""
    monkeypatch.setattr(series, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(series, "SEGMENT_EPISODES", 2)
    original = series.DataFiles.__init__

    def limited(self, path_of, first, limit_bytes):
        original(self, path_of, first, 24_000)

    monkeypatch.setattr(series.DataFiles, "__init__", limited)


@pytest.mark.parametrize("episodes_per_commit", [1, 4, 100])
def test_files_roll_over_and_segments_are_merged(tmp_path, small_files, episodes_per_commit):
    episodes = [make_episode(5, seed) for seed in range(10)]
    with create(tmp_path / "d", episodes_per_commit=episodes_per_commit) as writer:
        for episode in episodes:
            writer.add_episode(episode, "t")
    files = sorted(path.name for path in (tmp_path / "d/data").glob("*/*"))
    assert len(files) > 1 or episodes_per_commit == 100
    assert files == [f"file-{number:03d}.parquet" for number in range(len(files))]
    assert [path.name for path in (tmp_path / "d/meta/episodes").glob("*/*")] == [
        "file-000.parquet"
    ]
    check_layout(tmp_path / "d")
    dataset = DatasetReader.open(tmp_path / "d")
    whole = np.concatenate([episode["action"] for episode in episodes])
    assert dataset.findings == []
    np.testing.assert_array_equal(dataset.read(["action"])["action"], whole)


def test_an_unfinished_session_is_a_complete_dataset(tmp_path, small_files):
    writer = create(tmp_path / "d")
    for seed in range(8):
        writer.add_episode(make_episode(5, seed), "t")
        check_layout(tmp_path / "d")
        assert DatasetReader.open(tmp_path / "d").read().episode_ends[-1] == 5 * (seed + 1)


def test_resume_starts_new_files_and_goes_on_counting(tmp_path):
    root = tmp_path / "d"
    for session in range(3):
        opened = DatasetWriter.resume(root) if session else create(root)
        with opened as writer:
            for seed in (2 * session, 2 * session + 1):
                assert writer.add_episode(make_episode(5, seed), f"task {seed % 3}") == seed
    assert len(list((root / "data").glob("*/*"))) == 3
    assert len(list((root / "meta/episodes").glob("*/*"))) == 3
    check_layout(root)
    dataset = DatasetReader.open(root)
    assert dataset.findings == []
    assert dataset.tasks == ["task 0", "task 1", "task 2"]
    whole = np.concatenate([make_episode(5, seed)["action"] for seed in range(6)])
    np.testing.assert_array_equal(dataset.read()["action"], whole)
    np.testing.assert_allclose(dataset.stats["action"]["std"], whole.std(axis=0), rtol=1e-12)


def test_resume_of_a_foreign_dataset(make_v30):
    root = make_v30("__index_level_0__")
    episode = {
        "observation.state": np.ones((4, 2), np.float32),
        "action": np.full(4, 20, np.float32),
        "next.done": np.zeros(4, bool),
        "grid": np.zeros((4, 2, 3), np.int64),
        "note": ["x"] * 4,
    }
    with DatasetWriter.resume(root) as writer:
        assert (writer.num_episodes, writer.num_frames) == (3, 10)
        assert writer.add_episode(episode, "place") == 3
    dataset = DatasetReader.open(root)
    columns = dataset.read()
    assert dataset.findings == []
    np.testing.assert_array_equal(columns["action"], [*range(10), 20, 20, 20, 20])
    assert columns.task_index[-1] == 1
    assert dataset.stats["index"]["max"].tolist() == [13]
    assert dataset.stats["action"]["count"].tolist() == [14]


def test_resume_keeps_the_dtype_of_timestamps(tmp_path):
    root, features = tmp_path / "d", FEATURES.select(["action"])
    create(root, features=features).finalize()
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["timestamp"]["dtype"] = "float64"
    (root / "meta/info.json").write_text(json.dumps(info))
    with DatasetWriter.resume(root) as writer:
        writer.add_episode({"action": np.zeros((3, 2))}, "t")
    column = pq.read_table(root / DATA.format(0))["timestamp"]
    assert column.to_pylist() == [0.0, 0.1, 0.2]


def test_a_resumed_session_corrects_what_a_kill_left_behind(tmp_path):
    root = tmp_path / "d"
    with create(root) as writer:
        writer.add_episode(make_episode(4), "t")
    stale = json.loads((root / "meta/info.json").read_text()) | {"total_episodes": 0, "splits": {}}
    (root / "meta/info.json").write_text(json.dumps(stale))
    (root / "meta/stats.json").unlink()
    DatasetWriter.resume(root).finalize()
    check_layout(root)


def test_resume_refuses_what_it_cannot_extend(make_v21, make_v30, tmp_path):
    with pytest.raises(DatasetError, match=r"v2.1 dataset; only v3.0 can be extended"):
        DatasetWriter.resume(make_v21())
    root = make_v30()
    info = json.loads((root / "meta/info.json").read_text())
    camera = {"top": {"dtype": "video", "shape": [4, 32, 32]}}
    changed = info | {"features": info["features"] | camera}
    (root / "meta/info.json").write_text(json.dumps(changed))
    with pytest.raises(DatasetError, match="has video_path None, not 'videos/"):
        DatasetWriter.resume(root)
    changed["video_path"] = layout.VIDEO_PATH
    (root / "meta/info.json").write_text(json.dumps(changed))
    with pytest.raises(DatasetError, match="'top' has 4 channels"):
        DatasetWriter.resume(root)
    changed["features"]["top"]["shape"] = [3, 32, 32]
    (root / "meta/info.json").write_text(json.dumps(changed))
    with pytest.raises(DatasetError, match="does not say where the videos of 'top' are"):
        DatasetWriter.resume(root)
    with pytest.raises(DatasetError, match="does not exist"):
        DatasetWriter.resume(tmp_path / "nowhere")
