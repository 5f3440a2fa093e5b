"""The front: datasets and settings in, batches out; the same order wherever the work is done."""

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream
from leray.errors import ConfigError, DatasetError, FeatureMismatchError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, WRIST, Camera

MB = 2**20


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two datasets with different names, tasks and columns."""
    folder = tmp_path_factory.mktemp("pair")
    one = datasets.make(folder / "one", lengths=(20, 10), cameras={FRONT: Camera()})
    two = datasets.make(
        folder / "two",
        version="v2.0",
        lengths=(15,),
        seed=1,
        shapes={"state": (3,), "action": (2,), "force": (1,)},
        cameras={WRIST: Camera()},
        tasks=("place",),
        base=2000,
    )
    return one, two


def readers(*made) -> list[DatasetReader]:
    return [DatasetReader.open(one.root) for one in made]


def test_datasets_are_mixed_by_weight_with_features_renamed(pair):
    one, two = pair
    specs = [
        SampleSpec(delta_timestamps={"action": [0.0, 0.1]}),
        SampleSpec(
            delta_timestamps={"action": [0.0, 0.1]},
            rename={"state": "observation.state", WRIST: FRONT},
        ),
    ]
    config = StreamConfig(batch_size=8, seed=1)
    stream = DatasetStream(readers(one, two), specs, config, weights=[3, 1])
    assert list(stream.mixture.features) == ["observation.state", "action", FRONT]
    assert stream.mixture.tasks == ["pick", "place"]
    batches = stream.batches()
    seen = [next(batches) for _ in range(2 * stream.plan.chunk_batches)]
    batches.close()
    batch = {key: np.concatenate([part[key] for part in seen]) for key in seen[0]}
    second = batch["dataset_index"] == 1
    assert second.sum() == len(second) // 4
    frames = np.where(second, batch["index"] - 30, batch["index"])
    for made, rows, camera in ((one, ~second, FRONT), (two, second, WRIST)):
        shown = datasets.numbers(batch[FRONT][rows])
        assert shown.tolist() == made.columns[camera][frames[rows]].tolist()
        tasks = [stream.mixture.tasks[task] for task in batch["task_index"][rows]]
        assert tasks == [made.tasks[task] for task in made.columns["task_index"][frames[rows]]]
        np.testing.assert_array_equal(
            batch["action"][rows][:, 0], made.columns["action"][frames[rows]]
        )
    counts = np.bincount(frames[second], minlength=15)  # its own epochs are complete
    assert counts.max() - counts.min() <= 1


def test_the_order_depends_neither_on_workers_nor_on_memory(filmed):
    """A run that goes on elsewhere, with other means, goes on with the same samples."""

    def batches(workers=0, **values):
        config = StreamConfig(batch_size=8, **values)
        plan = DatasetStream(readers(filmed), SampleSpec(), config, workers=workers).plan
        return [plan.batch(number).tolist() for number in range(200)]

    expected = batches()
    assert batches(1, memory_limit_mb=1700) == expected
    assert batches(8) == expected
    assert batches(2, memory_limit_mb=10**6) == expected
    assert batches(seed=1) != expected
    assert batches(chunk_mb=1) != expected


def test_memory_grows_with_batches_that_need_it(filmed):
    spec = SampleSpec(delta_timestamps={FRONT: [step / 10 for step in range(-200, 200)]})
    config = StreamConfig(batch_size=64)
    stream = DatasetStream(readers(filmed), spec, config, workers=2)
    assert stream.plan.chunk_batches == 1
    assert 110 * MB < stream.plan.chunk_bytes < 120 * MB
    assert stream.memory.store >= 6 * stream.plan.chunk_bytes
    limited = StreamConfig(batch_size=64, memory_limit_mb=2500)
    with pytest.raises(
        ConfigError, match=r"memory_limit_mb=2500: 2 workers with chunks of 11. MiB"
    ):
        DatasetStream(readers(filmed), spec, limited, workers=2)


def test_keys_asked_for_once_count_for_all(pair):
    one, two = pair
    specs = [SampleSpec(keys=["action"]), SampleSpec()]
    stream = DatasetStream(readers(one, two), specs, StreamConfig(batch_size=8))
    assert list(stream.mixture.features) == ["action"]
    different = [SampleSpec(keys=["action"]), SampleSpec(keys=["force"])]
    with pytest.raises(ConfigError, match="ask for different keys"):
        DatasetStream(readers(one, two), different, StreamConfig(batch_size=8))


def test_what_makes_no_stream_is_refused(pair, numeric):
    one, two = pair
    config = StreamConfig(batch_size=8)
    with pytest.raises(ConfigError, match="0 datasets were given with 0 SampleSpecs"):
        DatasetStream([], SampleSpec(), config)
    with pytest.raises(ConfigError, match="2 datasets were given with 1 SampleSpecs"):
        DatasetStream(readers(one, two), [SampleSpec()], config)
    with pytest.raises(ConfigError, match="workers=-1"):
        DatasetStream(readers(one), SampleSpec(), config, workers=-1)
    with pytest.raises(ConfigError, match="1 weights were given for 2 datasets"):
        DatasetStream(readers(one, two), SampleSpec(), config, weights=[1])
    with pytest.raises(ConfigError, match="weights of datasets must be positive"):
        DatasetStream(readers(one, two), SampleSpec(), config, weights=[1, 0])
    empty = DatasetReader.open(numeric.root, episodes=[])
    with pytest.raises(ConfigError, match="has no frames"):
        DatasetStream([empty], SampleSpec(), config)
    renamed = [SampleSpec(rename={"action": name}) for name in "ab"]
    with pytest.raises(FeatureMismatchError, match="no feature in common") as caught:
        DatasetStream(readers(one, two), renamed, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "place", [{"start": -1}, {"rank": 1}, {"rank": -1, "learners": 2}, {"learners": 0}]
)
def test_a_place_that_does_not_exist_is_refused_at_once(numeric, place):
    stream = DatasetStream(readers(numeric), SampleSpec(), StreamConfig(batch_size=8))
    with pytest.raises(ConfigError, match="rank one of 0 to learners - 1"):
        stream.batches(**place)


def test_learners_that_cannot_share_a_batch_are_refused_at_once(numeric):
    stream = DatasetStream(readers(numeric), SampleSpec(), StreamConfig(batch_size=8))
    with pytest.raises(ConfigError, match="give a multiple of 3"):
        stream.batches(rank=2, learners=3)


def test_without_workers_there_is_no_ray(numeric):
    stream = DatasetStream(readers(numeric), SampleSpec(), StreamConfig(batch_size=8))
    with pytest.raises(ConfigError, match="workers=0"):
        stream.ray()


def test_damage_is_found_when_the_stream_is_made(tmp_path):
    made = datasets.make(tmp_path / "dataset", cameras={FRONT: Camera()})
    (made.root / f"videos/{FRONT}/chunk-000/file-000.mp4").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"file-000.mp4 is not an mp4 video"):
        DatasetStream(readers(made), SampleSpec(), StreamConfig(batch_size=8))
