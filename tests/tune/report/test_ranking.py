"""Who is best, alone and over repeats."""

import math
import statistics

import pytest

from leray.tune.report.ranking import grouped, has_repeats, ranked
from tests.tune.report.sweeps import record


def ids(records):
    return [one.trial_id for one in records]


@pytest.mark.parametrize(("mode", "order"), [("max", "cabef"), ("min", "abcef")])
def test_best_first_without_a_value_last_ties_by_id(mode, order):
    trials = [
        record("f", None, status="running"),
        record("c", 0.9),
        record("e", math.nan),
        record("b", 0.5),
        record("a", 0.5, status="failed"),
    ]
    assert "".join(ids(ranked(trials, mode=mode))) == order


def test_repeats_are_grouped_over_the_seed_alone():
    trials = [
        record("a0", 0.2, values={"lr": 1.0, "seed": 0}),
        record("a1", 0.6, values={"seed": 1, "lr": 1.0}),
        record("a2", None, values={"lr": 1.0, "seed": 2}),
        record("b0", 0.5, values={"lr": 2.0, "seed": 0}),
        record("c0", None, values={"lr": 3.0, "seed": 0}),
    ]
    best, second, last = grouped(trials, mode="max")
    assert (best.values, ids(best.records)) == ({"lr": 2.0}, ["b0"])
    assert (best.mean, best.std, best.number) == (0.5, None, 1)
    assert (second.values, ids(second.records)) == ({"lr": 1.0}, ["a1", "a0", "a2"])
    assert second.mean == pytest.approx(0.4)
    assert second.std == pytest.approx(statistics.stdev([0.2, 0.6]))
    assert second.number == 2
    assert (last.mean, last.std, last.number) == (None, None, 0)
    assert grouped(trials, mode="min")[0].values == {"lr": 1.0}


def test_what_counts_as_a_repeat():
    assert not has_repeats([])
    assert not has_repeats([record("a", 1.0, values={"x": 1}), record("b", 1.0, values={"x": "1"})])
    assert has_repeats([record("a", 1.0, values={"seed": 1}), record("b", values={"seed": 2})])
