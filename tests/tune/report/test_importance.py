"""Shares of the variance, for metrics whose dependence is known."""

import logging
import random

import optuna
import pytest

from leray.tune.report.importance import importance
from tests.tune.report.sweeps import record


def trials(number, draw, value, *, seed=0):
    """Return finished trials with drawn values and the metric computed from them."""
    source = random.Random(seed)
    drawn = [draw(source) for _ in range(number)]
    return [record(f"{i:04d}", value(v), values=v) for i, v in enumerate(drawn)]


def three(source):
    return {name: source.random() for name in ("big", "small", "idle")}


def test_shares_follow_the_variances():
    found = importance(trials(120, three, lambda v: 3 * v["big"] + v["small"]), mode="max")
    assert list(found) == ["big", "small", "idle"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["big"] == pytest.approx(0.9, abs=0.05)
    assert found["small"] == pytest.approx(0.1, abs=0.05)
    assert found["idle"] < 0.03


def test_the_same_trials_give_the_same_shares_in_any_order():
    records = trials(30, three, lambda v: v["big"])
    assert importance(records, mode="max") == importance(records[::-1], mode="max")
    assert importance(records, mode="min") == pytest.approx(importance(records, mode="max"))


def test_a_logarithmic_key_counts_by_its_logarithm():
    def draw(source):
        return {"lr": 10 ** source.uniform(-6, -1), "linear": source.random()}

    records = trials(120, draw, lambda v: v["linear"] + float(v["lr"] > 10**-3.5))
    found = importance(records, mode="max")
    assert found["lr"] == pytest.approx(0.75, abs=0.06)  # variances 1/4 and 1/12


def test_whole_numbers_texts_booleans_lists_and_null():
    def draw(source):
        return {
            "batch": source.choice([64, 128, 256]),
            "kind": source.choice(["adam", "sgd", None]),
            "on": source.choice([True, False]),
            "dims": source.choice([[1], [2]]),
            "fixed": "always",
        }

    records = trials(120, draw, lambda v: 2.0 * v["on"] + (v["kind"] is None))
    found = importance(records, mode="max")
    assert list(found)[:2] == ["on", "kind"]
    assert found["on"] == pytest.approx(1 / (1 + 2 / 9), abs=0.05)
    assert found["fixed"] == 0
    assert found["batch"] + found["dims"] < 0.05
    assert sum(found.values()) == pytest.approx(1)


def test_a_conditional_key_is_not_credited_with_its_condition():
    def draw(source):
        values = {"kind": source.choice(["adam", "sgd"]), "idle": source.random()}
        if values["kind"] == "sgd":
            values["momentum"] = source.uniform(0.5, 0.99)
        return values

    found = importance(trials(120, draw, lambda v: float(v["kind"] == "sgd")), mode="max")
    assert found["kind"] > 0.95
    assert found["momentum"] < 0.03


def test_a_conditional_key_that_matters_is_seen():
    def draw(source):
        values = {"kind": source.choice(["adam", "sgd"]), "idle": source.random()}
        if values["kind"] == "sgd":
            values["momentum"] = source.uniform(0, 1)
        return values

    found = importance(trials(120, draw, lambda v: v.get("momentum", 0.5)), mode="max")
    assert found["momentum"] > 0.8


def test_only_trials_that_ended_with_a_value_count():
    records = trials(30, three, lambda v: v["big"])
    waiting = [record(f"r{i}", 100.0 * i, values={"big": 0.5}, status="running") for i in range(9)]
    failed = [record("f", None, values={"big": 0.1, "new": 1}, status="failed")]
    found = importance([*records, *waiting, *failed], mode="max")
    expected = importance(records, mode="max")
    assert found == {**expected, "new": 0.0}


@pytest.mark.parametrize("mode", ["max", "min"])
def test_too_little_to_tell(mode):
    few = trials(3, three, lambda v: v["big"])
    assert importance([], mode=mode) == {}
    assert importance(few, mode=mode) == {}
    assert importance(trials(20, three, lambda v: 0.5), mode=mode) == {}
    same = [record(str(i), float(i), values={"lr": 1}) for i in range(5)]
    assert importance(same, mode=mode) == {}
    assert importance(trials(4, three, lambda v: v["big"]), mode=mode) != {}


def test_it_says_nothing_and_leaves_the_log_level(caplog, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with caplog.at_level(logging.INFO):
        importance(trials(10, three, lambda v: v["big"]), mode="max")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "")
