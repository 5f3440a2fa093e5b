"""The table-free shuffle: a bijection of any size whose items show no pattern."""

import numpy as np
import pytest

from leray.data.stream.permutation import Permutation


def whole(size: int, *key: int) -> np.ndarray:
    return Permutation(size, *key)(np.arange(size))


def test_every_size_is_a_bijection():
    for size in [*range(1, 300), 1000, 4095, 4096, 4097, 65_537]:
        assert np.array_equal(np.sort(whole(size, 1, 2, size)), np.arange(size)), size


def test_huge_sizes_need_no_table():
    size = 2**62 - 57
    places = np.random.default_rng(0).integers(0, size, 2000)
    items = Permutation(size, 3)(places)
    assert items.min() >= 0
    assert items.max() < size
    assert len(np.unique(items)) == len(np.unique(places))
    assert np.histogram(items, bins=4, range=(0, size))[0].min() > 400


def test_any_subset_in_any_order_gives_the_same_items():
    shuffled = whole(1000, 5, 6)
    places = np.random.default_rng(1).integers(0, 1000, 300)
    assert np.array_equal(Permutation(1000, 5, 6)(places), shuffled[places])
    assert Permutation(1000, 5, 6)(np.zeros(0, np.int64)).shape == (0,)


def test_every_part_of_the_key_counts_also_negative_and_wide_ones():
    keys = [(), (0,), (0, 0), (0, 1), (0, 1, 0), (1, 0), (-1, 0), (2**40, 0), (2**40, 1), (7, 1)]
    shuffles = [whole(500, *key) for key in keys]
    for number, left in enumerate(shuffles):
        for right in shuffles[number + 1 :]:
            assert (left == right).sum() < 10  # about one place in 500 agrees by chance


def test_the_order_is_this_one_on_every_machine_and_in_every_release():
    """Resuming a run relies on it: a change of these numbers makes old cursors wrong."""
    assert whole(12, 0, 7, 0, 3).tolist() == [7, 3, 9, 5, 10, 8, 0, 1, 2, 6, 4, 11]


@pytest.mark.parametrize("size", [10, 17, 64, 100])
def test_each_item_comes_to_each_place_equally_often(size):
    keys = 3000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), whole(size, key, 0, 1)] += 1
    expected = keys / size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_part():
    size = 20_000
    shuffled = whole(size, 0, 1)
    assert abs(np.corrcoef(np.arange(size), shuffled)[0, 1]) < 0.03
    assert abs(np.corrcoef(shuffled[:-1], shuffled[1:])[0, 1]) < 0.03
    steps = np.abs(np.diff(shuffled))
    assert abs(steps.mean() / size - 1 / 3) < 0.01  # of two independent uniform numbers
    assert (steps == 1).sum() < 15  # two are expected
    ordered = whole(size, 0, 2)
    assert abs(np.corrcoef(shuffled, ordered)[0, 1]) < 0.03
