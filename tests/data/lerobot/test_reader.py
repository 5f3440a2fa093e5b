"""The reader on sound datasets: every version, every storage form, selections, real recordings."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leray.data import statistics
from leray.data.lerobot.reader import DatasetReader
from leray.errors import DatasetError

SAMPLES = Path(__file__).parents[4] / "shared" / "data"


def sample(name: str) -> DatasetReader:
    root = SAMPLES / name
    if not root.is_dir():
        pytest.skip(f"the recorded dataset {name} is not on this machine")
    return DatasetReader.open(root)


@pytest.fixture(params=["v2.0", "v2.1", "v3.0", "v3.0 one row group"])
def dataset(request, make_v21, make_v30):
    if request.param.startswith("v2"):
        return DatasetReader.open(make_v21(request.param))
    return DatasetReader.open(make_v30(row_groups=request.param == "v3.0"))


def test_all_versions_read_the_same(dataset, lengths):
    columns = dataset.read()
    rows = np.arange(10)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, 10, 10.0)
    assert dataset.robot_type == "so101"
    assert dataset.tasks == ["pick", "place"]
    assert dataset.findings == []
    assert dataset.features["observation.state"].names == ("a", "b")
    np.testing.assert_array_equal(columns["observation.state"], np.stack([rows, -rows], axis=1))
    np.testing.assert_array_equal(columns["action"], rows)
    np.testing.assert_array_equal(np.flatnonzero(columns["next.done"]), [2, 7, 9])
    np.testing.assert_array_equal(columns["grid"][:, 1, 2], rows * 10 + 5)
    assert columns["note"][9] == "row 9"
    np.testing.assert_array_equal(columns.episode_index, [0, 0, 0, 1, 1, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(columns.frame_index, [0, 1, 2, 0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(columns.task_index, [0, 0, 0, 1, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(columns.episode_ends, np.cumsum(lengths))
    np.testing.assert_allclose(columns.timestamp, columns.frame_index / 10, rtol=1e-6)


def test_arrays_are_contiguous_and_of_the_declared_dtype(dataset):
    columns = dataset.read()
    assert list(columns.arrays) == list(dataset.features)
    for name, array in columns.arrays.items():
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype == dataset.features.numpy_dtype(name)


@pytest.mark.parametrize("episodes", [[1], [2, 0], [0, 1, 2], []])
def test_selected_episodes_equal_their_part_of_the_whole(dataset, episodes):
    whole = dataset.read()
    part = DatasetReader.open(dataset.root, episodes=episodes)
    columns = part.read()
    rows = np.isin(whole.episode_index, episodes)
    assert part.episodes == sorted(episodes)
    assert part.num_frames == len(columns) == rows.sum()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(columns[name], array[rows])
    np.testing.assert_array_equal(columns.frame_index, whole.frame_index[rows])
    assert len(columns.episode_ends) == len(episodes)


def test_only_the_columns_asked_for_are_read(dataset):
    assert list(dataset.read(["grid", "action"]).arrays) == ["grid", "action"]
    assert dataset.read([]).arrays == {}
    with pytest.raises(
        DatasetError, match=r"no column 'nope'; there are: observation.state, action"
    ):
        dataset.read(["nope"])


def test_unknown_episode_is_an_error(dataset):
    with pytest.raises(DatasetError, match=r"no episode 7; there are: 0 to 2"):
        DatasetReader.open(dataset.root, episodes=[1, 7])


@pytest.mark.parametrize("column", ["task", "__index_level_0__"])
def test_both_spellings_of_the_task_column(make_v30, column):
    assert DatasetReader.open(make_v30(column)).tasks == ["pick", "place"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)]
)
def test_vectors_are_read_from_every_list_form(make_v30, kind):
    root = make_v30()
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    state = pa.array(table["observation.state"].to_pylist(), kind)
    pq.write_table(table.set_column(0, "observation.state", state), path)
    np.testing.assert_array_equal(DatasetReader.open(root).read()["observation.state"][-1], [9, -9])


def test_missing_float_values_become_nan(make_v30):
    root = make_v30()
    path = root / "data/chunk-000/file-001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "action", pa.array([None, 9.0], pa.float32())), path)
    action = DatasetReader.open(root).read()["action"]
    assert np.isnan(action[8])
    assert action[9] == 9


def test_absent_statistics_are_computed(make_v30):
    dataset = DatasetReader.open(make_v30(), episodes=[0])
    assert set(dataset.stats) == {"observation.state", "action", "next.done", "grid"}
    assert dataset.stats["action"]["max"].tolist() == [9]  # of the whole dataset
    assert dataset.stats["grid"]["mean"].shape == (2, 3)
    assert any("computed for" in finding for finding in dataset.findings)


def test_stored_statistics_are_kept_and_completed(make_v30):
    root = make_v30()
    stored = {"action": {"min": [-7.0], "max": [1.0], "mean": [0.0], "std": [1.0]}}
    (root / "meta/stats.json").write_text(json.dumps(stored))
    action = DatasetReader.open(root).stats["action"]
    assert action["min"].tolist() == [-7]
    assert action["q50"].tolist() == [4.5]


def test_statistics_of_v21_are_aggregated_from_its_episodes(make_v21):
    root = make_v21()
    rows = [
        {
            "episode_index": index,
            "stats": statistics.to_json({"action": statistics.compute(np.full(count, value))}),
        }
        for index, (value, count) in enumerate([(1.0, 3), (2.0, 5), (6.0, 2)])
    ]
    (root / "meta/episodes_stats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    action = DatasetReader.open(root).stats["action"]
    assert action["mean"][0] == pytest.approx(2.5)
    assert action["count"].tolist() == [10]


def test_recorded_v20_dataset_reports_its_quirks():
    dataset = sample("gr1_picknplace_v20")
    findings = "\n".join(dataset.findings)
    for quirk in (
        "camera 'observation.images.egoview' is declared but has no video",
        "no frame_index column",
        "total_videos 2, there are 5",
        "total_chunks 0, there are 1",
        "split 'train' is '0:100'",
        "timestamps are float64",
    ):
        assert quirk in findings
    assert "observation.images.egoview" not in dataset.features
    assert "observation.images.ego_view" in dataset.features
    columns = dataset.read()
    assert (dataset.version, dataset.num_episodes, len(columns)) == ("v2.0", 5, 2096)
    assert columns["observation.state"].shape == (2096, 44)
    assert columns["action"].dtype == np.float64
    np.testing.assert_array_equal(columns.episode_ends, [416, 886, 1356, 1768, 2096])
    np.testing.assert_array_equal(columns.frame_index[414:418], [414, 415, 0, 1])
    np.testing.assert_array_equal(columns["next.done"].sum(), 5)
    assert len(dataset.tasks) == 6
    stored = json.loads((dataset.root / "meta/stats.json").read_text())["action"]
    exact = statistics.compute(columns["action"])
    for key in ("min", "max", "mean"):  # its statistics were summed in float32
        np.testing.assert_allclose(exact[key], stored[key], atol=1e-5)


def test_recorded_v30_dataset():
    dataset = sample("so101_rosbag_v30")
    columns = dataset.read()
    assert dataset.findings == []
    assert (dataset.version, dataset.robot_type, dataset.fps) == ("v3.0", "so101_follower", 30.0)
    assert dataset.tasks == ["pick and place"]
    assert dataset.features["action"].names == tuple(f"j{joint}" for joint in range(6))
    assert columns["observation.state"].shape == (1782, 6)
    np.testing.assert_array_equal(columns.episode_ends, [383, 769, 1148, 1530, 1620, 1782])
    np.testing.assert_array_equal(
        dataset.stats["action"]["max"], statistics.compute(columns["action"])["max"]
    )
    camera = "observation.images.wrist"
    assert camera not in dataset.stats  # its recorder's deviations of pictures are near 0
    assert f"stored statistics of {camera} have a standard deviation" in dataset.findings[0]
    recomputed = dataset.image_stats(camera)
    assert recomputed["std"].shape == (3, 1, 1)
    assert recomputed["std"].min() > 0.05
    np.testing.assert_allclose(recomputed["mean"].ravel(), [0.871, 0.868, 0.843], atol=0.02)
    with pytest.raises(DatasetError, match=r"no column 'observation.images.wrist'"):
        dataset.read(["observation.images.wrist"])
