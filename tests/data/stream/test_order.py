"""The endless order: every epoch complete, weights held, any chunk computed from its number."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from leray.data.stream.order import Order, Part
from leray.errors import ConfigError


def first(order: Order, samples: int) -> np.ndarray:
    """The first samples of an order, at least so many."""
    chunks = -(-samples // order.chunk_size)
    return np.concatenate([order.chunk(number) for number in range(chunks)])


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 10, 64, 250])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_epoch_shows_each_frame_once_wherever_chunks_end(chunk_size, shuffle):
    size = 23
    order = Order([Part(size)], chunk_size=chunk_size, seed=3, shuffle=shuffle)
    shown = first(order, 5 * size)
    for stop in range(chunk_size, len(shown) + 1, chunk_size):  # chunks are shuffled inside
        counts = np.bincount(shown[:stop], minlength=size)
        assert counts.min() == stop // size
        assert counts.max() == -(-stop // size)


def test_a_chunk_that_ends_with_an_epoch_completes_it_exactly():
    order = Order([Part(20)], chunk_size=10, seed=1)
    epochs = first(order, 100).reshape(5, 20)
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(20))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5


def test_an_epoch_may_be_many_times_smaller_than_a_chunk():
    order = Order([Part(3)], chunk_size=64)
    assert sorted(np.bincount(order.chunk(0)).tolist()) == [21, 21, 22]
    assert sorted(np.bincount(first(order, 192)).tolist()) == [64, 64, 64]


@pytest.mark.parametrize(
    "weights",
    [(1.0, 1.0), (3.0, 1.0), (0.1, 0.2, 0.7), (5.0, 1.0, 1.0, 0.01), (0.01, 1.0, 1.0, 1.0)],
)
def test_weights_are_held_to_within_rounding_at_every_chunk(weights):
    sizes = (100, 17, 60, 5)[: len(weights)]
    parts = [Part(size, weight) for size, weight in zip(sizes, weights, strict=True)]
    order = Order(parts, chunk_size=len(weights) ** 2 + 3, seed=2)
    edges = np.cumsum([0, *sizes])
    shares = np.array(weights) / sum(weights)
    shown = first(order, 400 * order.chunk_size)
    assert len(shown) == 400 * order.chunk_size
    assert shown.min() >= 0
    assert shown.max() < edges[-1]
    part = np.searchsorted(edges, shown, side="right") - 1
    for number in range(1, 401):
        total = number * order.chunk_size
        counts = np.bincount(part[:total], minlength=len(weights))
        off = counts - shares * total
        assert np.abs(off).max() <= len(weights), (number, counts)
    for number, size in enumerate(sizes):  # a dataset's own epochs are complete as well
        counts = np.bincount(shown[part == number] - edges[number], minlength=size)
        assert counts.max() - counts.min() <= 1


def test_without_shuffling_datasets_come_in_stored_order_and_in_turn():
    order = Order([Part(8, 3.0), Part(5, 1.0)], chunk_size=8, shuffle=False)
    shown = first(order, 16)
    assert shown[shown < 8].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert shown[shown >= 8].tolist() == [8, 9, 10, 11]
    for start in range(0, 16, 4):  # a batch of four holds one frame of the second dataset
        assert (shown[start : start + 4] >= 8).sum() == 1


def test_seeds_epochs_datasets_and_chunks_all_differ():
    def orders(seed):
        order = Order([Part(64), Part(64)], chunk_size=128, seed=seed)
        return [order.chunk(number) for number in range(6)]

    one, other = orders(0), orders(1)
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({tuple(chunk.tolist()) for chunk in one}) == 6
    epochs = [chunk[chunk < 64] for chunk in one]
    seconds = [chunk[chunk >= 64] - 64 for chunk in one]
    assert len({tuple(part.tolist()) for part in epochs + seconds}) == 12


@pytest.mark.parametrize("samples_per_run", [2, 3, 8, 100])
def test_groups_visit_each_frame_once_and_lie_within_one_run(samples_per_run):
    runs = np.array([0, 8, 16, 17, 30, 37])
    size = 41
    edges = np.append(runs, size)
    part = Part(size, runs=runs, samples_per_run=samples_per_run)
    order = Order([part], chunk_size=size, seed=9)
    for number in range(4):
        assert np.array_equal(np.sort(order.chunk(number)), np.arange(size))
    # Chunks of one sample are not shuffled inside: visits come one after the other.
    single = Order([part], chunk_size=1, seed=9)
    shown = first(single, size)
    run = np.searchsorted(edges, shown, side="right") - 1
    visits = np.split(shown, np.flatnonzero((np.diff(run) != 0) | (np.diff(shown) < 0)) + 1)
    lengths = np.diff(edges)
    steps = -(-lengths // samples_per_run)
    taken = Counter()
    for visit in visits:
        own = int(np.searchsorted(edges, visit[0], side="right") - 1)
        taken[own] += 1
        assert len(visit) <= samples_per_run
        assert (np.diff(visit) == steps[own]).all()  # spread over the run
        assert len(visit) >= lengths[own] // steps[own]
    assert sum(taken.values()) <= steps.sum()


def test_groups_straddle_epochs_and_chunks_without_loss():
    runs = np.arange(0, 50, 12)
    order = Order([Part(50, runs=runs, samples_per_run=4)], chunk_size=16, seed=1)
    counts = np.bincount(first(order, 400), minlength=50)
    assert counts.tolist() == [8] * 50


def test_any_chunk_computed_alone_in_another_process_is_the_same():
    numbers = [0, 1, 17, 4000, 10**9]
    code = """
import json, sys
import numpy as np
from leray.data.stream.order import Order, Part
parts = [Part(101, 2.0), Part(37, 1.0, np.arange(0, 37, 8), 3)]
order = Order(parts, chunk_size=32, seed=5)
print(json.dumps([order.chunk(int(number)).tolist() for number in sys.argv[1:]]))
"""
    called = [sys.executable, "-c", code, *map(str, reversed(numbers))]
    alone = json.loads(subprocess.run(called, capture_output=True, check=True, text=True).stdout)
    parts = [Part(101, 2.0), Part(37, 1.0, np.arange(0, 37, 8), 3)]
    order = Order(parts, chunk_size=32, seed=5)
    for number in range(30):  # what was computed before must not matter
        order.chunk(number)
    assert [order.chunk(number).tolist() for number in reversed(numbers)] == alone


def test_neighbouring_samples_are_no_neighbours_in_time():
    size = 20_000
    order = Order([Part(size)], chunk_size=256)
    shown = first(order, size)[:size]
    assert abs(np.corrcoef(shown[:-1], shown[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(np.arange(size), shown)[0, 1]) < 0.03


def test_epoch_counts_the_first_dataset():
    order = Order([Part(100, 3.0), Part(10, 1.0)], chunk_size=8)
    assert order.epoch(0) == 0
    assert order.epoch(400) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("parts", "chunk_size", "fragment"),
    [
        ([], 8, "has no frames"),
        ([Part(0)], 8, "has no frames"),
        ([Part(5), Part(0)], 8, "has no frames"),
        ([Part(5, 0.0)], 8, "must be positive"),
        ([Part(5, -1.0)], 8, "must be positive"),
        ([Part(5, float("nan"))], 8, "must be positive"),
        ([Part(5, float("inf"))], 8, "must be positive"),
        ([Part(5), Part(5), Part(5)], 8, "at least 9 are needed"),
    ],
)
def test_what_cannot_be_ordered_is_refused_in_one_line(parts, chunk_size, fragment):
    with pytest.raises(ConfigError, match=fragment) as caught:
        Order(parts, chunk_size=chunk_size)
    assert "\n" not in str(caught.value)
