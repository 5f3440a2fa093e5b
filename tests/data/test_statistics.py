"""Statistics: hand-computed numbers, stability, and combination over episodes."""

import json

import numpy as np
import pytest

from leray.data import statistics
from leray.errors import DatasetError


def test_hand_computed_vector():
    # column 0: 1, 2, 3, 6: mean 3, deviations -2 -1 0 3, variance 14 / 4
    entry = statistics.compute(np.array([[1, -5], [2, -5], [3, -5], [6, -5]], dtype=np.float32))
    np.testing.assert_array_equal(entry["min"], [1, -5])
    np.testing.assert_array_equal(entry["max"], [6, -5])
    np.testing.assert_array_equal(entry["mean"], [3, -5])
    np.testing.assert_allclose(entry["std"], [np.sqrt(3.5), 0])
    np.testing.assert_array_equal(entry["count"], [4])
    # linear interpolation: q50 lies half way between 2 and 3, q10 at 1 + 0.3 * (2 - 1)
    assert entry["q50"][0] == 2.5
    assert entry["q10"][0] == pytest.approx(1.3)


def test_scalars_have_shape_one_and_keep_their_kind():
    done = statistics.compute(np.array([False, False, True, False]))
    assert done["min"].dtype == np.bool_
    assert done["max"].tolist() == [True]
    assert done["mean"].tolist() == [0.25]
    index = statistics.compute(np.arange(5))
    assert index["max"].dtype == np.int64
    assert index["mean"].shape == index["count"].shape == (1,)


def test_large_offset_and_constant_columns_do_not_lose_digits():
    offset = 1e9 + np.array([0.0, 1.0, 2.0])
    assert statistics.compute(offset)["std"][0] == pytest.approx(np.sqrt(2 / 3), rel=1e-12)
    constant = np.full((1000, 1), np.float32(-1.7452), dtype=np.float32)
    entry = statistics.compute(constant)
    assert entry["std"].tolist() == [0.0]
    assert entry["mean"].tolist() == [float(np.float32(-1.7452))]


def test_higher_arrays_keep_their_shape():
    values = np.arange(24.0).reshape(4, 2, 3)
    entry = statistics.compute(values)
    assert entry["mean"].shape == entry["q99"].shape == (2, 3)
    np.testing.assert_allclose(entry["mean"], values.mean(axis=0))


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.array(["a"]), np.float64(1)])
def test_nothing_to_compute_is_an_error(bad):
    with pytest.raises(ValueError, match="statistics need frames"):
        statistics.compute(np.asarray(bad))


def test_aggregate_equals_the_whole_but_for_quantiles():
    rng = np.random.default_rng(0)
    episodes = [rng.normal(loc, 1.0, size=(n, 3)) for loc, n in ((0, 5), (10, 50), (-3, 17))]
    combined = statistics.aggregate({"a": statistics.compute(part)} for part in episodes)["a"]
    whole = statistics.compute(np.concatenate(episodes))
    for key in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(combined[key], whole[key], rtol=1e-12)
    assert (combined["q01"] <= whole["q01"]).all()
    assert (combined["q99"] >= whole["q99"]).all()


def test_aggregate_in_steps_equals_aggregate_at_once():
    rng = np.random.default_rng(1)
    parts = [{"a": statistics.compute(rng.normal(size=(n, 2)))} for n in (4, 9, 2)]
    at_once = statistics.aggregate(parts)["a"]
    stepwise = statistics.aggregate([statistics.aggregate(parts[:2]), parts[2]])["a"]
    for key in statistics.KEYS:
        np.testing.assert_allclose(stepwise[key], at_once[key], rtol=1e-12)


def test_aggregate_leaves_out_quantiles_that_an_episode_lacks():
    full = statistics.compute(np.arange(4.0))
    without = {key: full[key] for key in ("min", "max", "mean", "std", "count")}
    combined = statistics.aggregate([{"a": full}, {"a": without}])
    assert set(combined["a"]) == set(without)
    del without["std"]
    with pytest.raises(DatasetError, match="'a' lack 'std'"):
        statistics.aggregate([{"a": full}, {"a": without}])


def test_aggregate_of_different_shapes_is_an_error():
    parts = [{"a": statistics.compute(np.zeros((2, n)))} for n in (2, 3)]
    with pytest.raises(DatasetError, match="'a' differ in shape"):
        statistics.aggregate(parts)


def test_counts_that_no_integer_holds_are_an_error():
    entry = statistics.compute(np.zeros((2, 1)))
    huge = entry | {"count": np.array([2**63 - 1, 0], dtype=object)[:1]}
    with pytest.raises(DatasetError, match="counts of feature 'a' are too large"):
        statistics.aggregate([{"a": huge}, {"a": huge}])


def test_json_round_trip():
    stats = {
        "next.done": statistics.compute(np.array([True, False])),
        "action": statistics.compute(np.random.default_rng(0).normal(size=(7, 3))),
    }
    text = json.dumps(statistics.to_json(stats))
    restored = statistics.from_json(json.loads(text))
    assert json.loads(text)["next.done"]["min"] == [False]
    for name, entry in stats.items():
        assert set(restored[name]) == set(statistics.KEYS)
        for key, value in entry.items():
            np.testing.assert_array_equal(restored[name][key], value)
            assert restored[name][key].dtype == value.dtype


@pytest.mark.parametrize(
    "content", [[], {"a": 3}, {"a": {"min": ["x"]}}, {"a": {"min": [[1], [1, 2]]}}]
)
def test_malformed_json_is_one_error(content):
    with pytest.raises(DatasetError, match="statistics must be"):
        statistics.from_json(content)
