"""How the order is cut into chunks and batches for one or several learners."""

import pickle

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.mixture import Mixture
from leray.data.stream.plan import Plan, StreamConfig, _part
from leray.data.stream.samples import Samples, SampleSpec
from leray.errors import ConfigError


def mixture_of(made, **spec) -> Mixture:
    return Mixture([Samples(DatasetReader.open(made.root), SampleSpec(**spec))])


def test_numbers_come_in_chunks_of_about_4096_samples(numeric):
    mixture = mixture_of(numeric)
    for batch_size, batches in ((8, 512), (1000, 4), (4096, 1), (5000, 1)):
        plan = Plan(mixture, StreamConfig(batch_size=batch_size), gop=[1])
        assert (plan.chunk_batches, plan.chunk_size) == (batches, batches * batch_size)
        assert plan.chunk_bytes == plan.chunk_size * mixture.sample_bytes
        assert not plan.decodes


def test_pictures_come_in_chunks_that_fit(filmed):
    mixture = mixture_of(filmed)
    per_mb = 2**20 // mixture.sample_bytes  # two pictures of 32 x 48 and some numbers
    assert per_mb == 112
    for chunk_mb, batch_size, batches in ((1, 8, 14), (1, 112, 1), (1, 300, 1), (32, 8, 32)):
        config = StreamConfig(batch_size=batch_size, chunk_mb=chunk_mb)
        assert Plan(mixture, config, gop=[1]).chunk_batches == batches


@pytest.mark.parametrize("learners", [1, 2, 3, 6])
def test_learners_share_each_batch_whatever_their_number(filmed, learners):
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=6, chunk_mb=1), gop=[1])
    whole = [plan.chunk(0), plan.chunk(1), plan.chunk(2)]
    per_chunk = plan.chunk_batches
    for number in (0, 1, per_chunk - 1, per_chunk, 3 * per_chunk - 1):
        parts = [plan.batch(number, rank, learners) for rank in range(learners)]
        assert {len(part) for part in parts} == {6 // learners}
        assert np.array_equal(np.concatenate(parts), np.concatenate(whole).reshape(-1, 6)[number])
    for rank in range(learners):
        piece, within = plan.place(per_chunk + 2, rank, learners)
        assert (piece, within) == (learners + rank, 2)
        dealt = whole[1].reshape(per_chunk, learners, -1)[:, rank]
        assert np.array_equal(plan.piece(piece, learners), dealt.reshape(-1))


def test_a_batch_that_cannot_be_dealt_out_is_refused(filmed):
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=8, chunk_mb=1), gop=[1])
    with pytest.raises(ConfigError, match=r"batch_size=8 .* 3 learners: give a multiple of 3"):
        plan.batch(0, 1, 3)


def test_batches_in_any_order_and_in_a_copy(filmed):
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=4, seed=3), gop=[30])
    expected = [plan.batch(number, 1, 2).copy() for number in range(100)]
    copy = pickle.loads(pickle.dumps(plan))
    for number in (99, 0, 64, 63, 1):
        assert np.array_equal(copy.batch(number, 1, 2), expected[number])


def test_runs_start_with_each_episode(filmed):
    part = _part(np.array([40, 65, 95]), 1.0, 16, 2)
    assert part.runs.tolist() == [0, 16, 32, 40, 56, 65, 81]
    assert part.num_frames == 95
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=95), gop=[16])
    assert plan.describe().endswith("2 frames of a run within 190 samples")
    assert np.bincount(plan.chunk(0)).tolist() == [2] * 95


@pytest.mark.parametrize(
    ("gop", "given", "expected"),
    [
        (1, None, 1),
        (2, None, 1),
        (15, None, 1),
        (16, None, 2),
        (250, None, 31),
        (250, 1, 1),
        (250, 1000, 250),
        (10, 4, 4),
    ],
)
def test_samples_per_run_are_an_eighth_of_it(filmed, gop, given, expected):
    config = StreamConfig(batch_size=8, samples_per_run=given)
    plan = Plan(mixture_of(filmed), config, gop=[gop])
    assert plan.samples_per_run == [expected]
    uniform = plan.describe() == "uniform shuffle of all frames"
    assert uniform == (expected == 1)


def test_a_chunk_mixes_four_runs_at_least(filmed):
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=20, chunk_mb=1), gop=[1000])
    assert plan.chunk_size == 100
    assert plan.samples_per_run == [25]


def test_stored_order(filmed):
    plan = Plan(mixture_of(filmed), StreamConfig(batch_size=10, shuffle=False), gop=[250])
    assert plan.describe() == "stored order"
    shown = np.concatenate([plan.batch(number) for number in range(19)])
    assert np.array_equal(shown, np.arange(190) % 95)
    assert plan.epoch(19) == 2.0


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 0}, {"samples_per_run": 0}, {"chunk_mb": 0}, {"memory_limit_mb": -1}],
)
def test_values_out_of_range_are_refused(values):
    (name, value), *_ = values.items()
    with pytest.raises(ConfigError, match=f"{name}={value}: give a whole number >= 1"):
        StreamConfig(**{"batch_size": 8, **values})


def test_a_dataset_without_frames_is_refused(numeric):
    empty = Mixture([Samples(DatasetReader.open(numeric.root, episodes=[]))])
    with pytest.raises(ConfigError, match="has no frames"):
        Plan(empty, StreamConfig(batch_size=8), gop=[1])
