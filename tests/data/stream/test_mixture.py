"""Several datasets under one numbering: features, dtypes, tasks, statistics."""

import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.mixture import Mixture
from leray.data.stream.samples import Samples, SampleSpec
from leray.errors import ConfigError, DatasetError, FeatureMismatchError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, WRIST, Camera


def samples(made, **spec) -> Samples:
    return Samples(DatasetReader.open(made.root), SampleSpec(**spec))


@pytest.fixture
def pair(tmp_path):
    """Two datasets that fit after renaming; the second one has its tasks the other way round."""
    one = datasets.make(
        tmp_path / "one",
        cameras={FRONT: Camera(options=dict(datasets.LONG))},
        tasks=("pick", "place"),
    )
    two = datasets.make(
        tmp_path / "two",
        version="v2.1",
        lengths=(5, 6),
        seed=1,
        cameras={WRIST: Camera("png", first=True)},
        tasks=("place", "push"),
        base=1000,
    )
    return one, two


def test_dropped_frames_are_no_samples_of_a_mix(pair):
    one, two = pair  # episodes of 7, 12 and 4 frames, and of 5 and 6
    spec = {"keys": ["action"], "delta_timestamps": {"action": [0.0, 0.1, 0.2, 0.3]}}
    mixture = Mixture([samples(one, **spec, drop_n_last_frames=3), samples(two, **spec)])
    assert [len(part) for part in mixture.parts] == [4 + 9 + 1, 11]
    assert mixture.weights == [14.0, 11.0]
    batch = mixture.gather(np.array([3, 4, 13, 14, 24]))
    assert batch["dataset_index"].tolist() == [0, 0, 0, 1, 1]
    assert batch["frame_index"].tolist() == [3, 0, 0, 0, 5]
    assert batch["index"].tolist() == [3, 7, 19, 23, 33]  # frames, of both
    assert batch["action_is_pad"].any(axis=1).tolist() == [False, False, False, False, True]
    np.testing.assert_array_equal(batch["action"][0], one.columns["action"][3:7])
    np.testing.assert_array_equal(batch["action"][2], one.columns["action"][19:23])
    np.testing.assert_array_equal(batch["action"][3], two.columns["action"][:4])


def test_samples_come_from_the_datasets_they_are_numbered_in(pair):
    one, two = pair
    windows = {"action": [-0.1, 0.0, 0.1]}
    mixture = Mixture(
        [
            samples(one, delta_timestamps=windows),
            samples(two, rename={WRIST: FRONT}, delta_timestamps=windows),
        ]
    )
    assert len(mixture) == 23 + 11
    assert mixture.weights == [23.0, 11.0]
    asked = np.array([0, 33, 22, 23, 5, 5, 28])
    batch = mixture.gather(asked)
    assert batch["dataset_index"].tolist() == [0, 1, 0, 1, 0, 0, 1]
    assert batch["index"].tolist() == asked.tolist()
    shown = [
        (two if number >= 23 else one).columns[WRIST if number >= 23 else FRONT][number % 23]
        for number in asked
    ]
    assert datasets.numbers(batch[FRONT]).tolist() == shown
    for row, number in enumerate(asked.tolist()):
        made, frame = (one, number) if number < 23 else (two, number - 23)
        np.testing.assert_array_equal(batch["grid"][row], made.columns["grid"][frame])
        start, end = made.bounds(frame)
        inside = [min(max(frame + step, start), end - 1) for step in (-1, 0, 1)]
        np.testing.assert_array_equal(batch["action"][row], made.columns["action"][inside])
        task = made.tasks[made.columns["task_index"][frame]]
        assert mixture.tasks[batch["task_index"][row]] == task
    assert mixture.tasks == ["pick", "place", "push"]


def test_a_batch_of_one_dataset_is_shaped_as_one_of_both(pair):
    one, two = pair
    mixture = Mixture([samples(one), samples(two, rename={WRIST: FRONT})])
    batches = [mixture.gather(np.array(numbers)) for numbers in ([1, 2], [30, 31], [2, 30])]
    for batch in batches[1:]:
        assert batch.keys() == batches[0].keys()
        for key, value in batch.items():
            assert (value.dtype, value.shape) == (batches[0][key].dtype, batches[0][key].shape)


def redeclared(made, name: str, dtype: str) -> None:
    path = made.root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][name]["dtype"] = dtype
    path.write_text(json.dumps(info))


def test_dtypes_of_a_kind_become_one_that_holds_both(tmp_path):
    """Whatever a batch is made of, it has the same dtypes, and no value is cut."""
    one, two = (datasets.make(tmp_path / name, seed=seed) for seed, name in enumerate("ab"))
    redeclared(two, "action", "float64")
    redeclared(one, "grid", "int16")
    mixture = Mixture([samples(one), samples(two)])
    assert mixture.features["action"].dtype == "float64"
    assert mixture.features["grid"].dtype == "int64"
    for numbers in ([0, 1], [30, 40], [1, 30]):
        batch = mixture.gather(np.array(numbers))
        assert batch["action"].dtype == np.float64
        assert batch["grid"].dtype == np.int64
        assert batch["observation.state"].dtype == np.float32


def test_the_numbers_of_a_batch_are_its_own(numeric):
    mixture = Mixture([samples(numeric)])
    asked = np.arange(5)
    batch = mixture.gather(asked)
    batch["index"] += 100
    assert asked.tolist() == [0, 1, 2, 3, 4]


def test_a_dataset_without_tasks_is_given_none_of_anothers(tmp_path):
    one, two = (datasets.make(tmp_path / name) for name in "ab")
    (two.root / "meta/tasks.parquet").unlink()
    mixture = Mixture([samples(one), samples(two)])
    assert mixture.tasks == ["pick", "place", ""]
    batch = mixture.gather(np.array([0, 8, 23, 31]))
    assert [mixture.tasks[index] for index in batch["task_index"]] == ["pick", "place", "", ""]
    assert Mixture([samples(two)]).gather(np.array([8]))["task_index"].tolist() == [0]


@pytest.mark.parametrize("wrong", [2, -1])
def test_a_task_that_does_not_exist_is_an_error(tmp_path, wrong):
    made = datasets.make(tmp_path / "dataset")
    path = made.root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("task_index")
    tasks = made.columns["task_index"].copy()
    tasks[9] = wrong
    pq.write_table(table.set_column(place, "task_index", [tasks]), path)
    mixture = Mixture([samples(made)])
    assert mixture.gather(np.array([8]))["task_index"].tolist() == [1]
    with pytest.raises(DatasetError, match=r"there are 0 to 1; see `leray dataset check`"):
        mixture.gather(np.array([8, 9]))


def test_statistics_count_each_frame_once(tmp_path):
    one = datasets.make(tmp_path / "a", lengths=(30,), seed=1)
    two = datasets.make(tmp_path / "b", lengths=(5, 5), seed=2)
    found = Mixture([samples(one), samples(two)], weights=[1, 9]).stats["action"]
    both = np.concatenate([one.columns["action"], two.columns["action"]]).astype(np.float64)
    np.testing.assert_allclose(found["mean"], both.mean(axis=0))
    np.testing.assert_allclose(found["std"], both.std(axis=0))
    assert found["count"].tolist() == [40]


def test_a_mixture_travels_between_processes(pair, same):
    one, two = pair
    mixture = Mixture([samples(one), samples(two, rename={WRIST: FRONT})], weights=[1, 2])
    copy = pickle.loads(pickle.dumps(mixture))
    asked = np.array([33, 1, 24])
    same(copy.gather(asked), mixture.gather(asked))
    assert (copy.tasks, copy.weights) == (mixture.tasks, mixture.weights)


def test_what_does_not_fit_together_is_one_error_naming_both(pair, tmp_path):
    one, two = pair
    with pytest.raises(FeatureMismatchError, match=r"front \(missing in dataset .*two\)") as caught:
        Mixture([samples(one), samples(two)])
    assert "\n" not in str(caught.value)
    wide = datasets.make(tmp_path / "wide", shapes={"action": (3,)})
    narrow = datasets.make(tmp_path / "narrow", shapes={"action": (2,)})
    with pytest.raises(FeatureMismatchError, match=r"shape \[3\] against \[2\]"):
        Mixture([samples(wide), samples(narrow)])
    with pytest.raises(ConfigError, match=r"action has a window of 2 frames in .*None in"):
        Mixture([samples(wide, delta_timestamps={"action": [0.0, 0.1]}), samples(wide)])
    with pytest.raises(ConfigError, match="1 weights were given for 2 datasets"):
        Mixture([samples(wide), samples(wide)], weights=[1.0])
    with pytest.raises(ConfigError, match="at least one dataset"):
        Mixture([])
