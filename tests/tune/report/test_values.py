"""Values as text, and the kind of axis they belong on."""

import math
import random

import pytest

from leray.tune.report.values import (
    exact,
    is_log,
    number,
    one_line,
    short,
    short_labels,
    swept_keys,
    varying_keys,
)
from tests.tune.report.sweeps import record


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00031622776, "0.0003162"),
        (1e-5, "1e-05"),
        (0.5, "0.5"),
        (12345678, "12345678"),
        (True, "true"),
        (None, "null"),
        ([256, 256], "[256, 256]"),
        ("adam", "adam"),
        ("two\nlines", "two lines"),
        (math.nan, "nan"),
    ],
)
def test_short_text(value, text):
    assert short(value) == text


def test_exact_text_loses_nothing():
    assert float(exact(0.1 + 0.2)) == 0.1 + 0.2
    assert exact(["ä", 1]) == '["ä", 1]'


def test_one_line_takes_out_what_a_terminal_would_obey():
    assert one_line("\x1b[31mred\x1b[0m\r\n  and\ttab\x07\x1b[2Jend") == "red and tab end"


def test_numbers_are_finite_and_not_booleans():
    assert [number(v) for v in (3, 0.5, True, None, "3", math.inf)] == [3.0, 0.5, *[None] * 4]


def test_scale_of_what_was_sampled():
    draw = random.Random(1)
    uniform = [[draw.uniform(0, 1) for _ in range(30)] for _ in range(20)]
    log = [[10 ** draw.uniform(-5, -2) for _ in range(30)] for _ in range(20)]
    assert sum(is_log("lr", numbers) for numbers in uniform) <= 1
    assert sum(is_log("lr", numbers) for numbers in log) >= 19


def test_scale_of_what_is_known():
    assert is_log("lr", [0.1, 0.11], ["lr"])
    assert not is_log("lr", [1, 10, 100], ["other"])
    assert not is_log("lr", [0, 10], ["lr"])
    assert not is_log("lr", [1, 1], ["lr"])


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([64, 128, 256], True),
        ([1e-5, 1e-3], True),
        ([1, 2, 3, 4, 5], False),
        ([0.9, 0.95, 0.99], False),
        ([0, 1, 10, 100], False),
        ([-10, -1], False),
        ([5], False),
        ([], False),
    ],
)
def test_scale_of_what_was_listed(numbers, expected):
    assert is_log("lr", numbers) is expected


def test_labels_are_the_shortest_endings_that_differ():
    keys = ["policy.actor_lr", "policy.critic.lr", "env.critic.lr", "batch_size", "a.batch_size"]
    assert short_labels(keys) == {
        "policy.actor_lr": "actor_lr",
        "policy.critic.lr": "policy.critic.lr",
        "env.critic.lr": "env.critic.lr",
        "batch_size": "batch_size",
        "a.batch_size": "a.batch_size",
    }


def test_keys_that_vary():
    one = record("1", values={"same": 1, "lr": 0.1, "sometimes": 2})
    other = record("2", values={"same": 1, "lr": 0.2})
    assert swept_keys([other, one]) == ["same", "lr", "sometimes"]
    assert varying_keys([one, other]) == ["lr", "sometimes"]
    assert varying_keys([one]) == ["same", "lr", "sometimes"]
    assert varying_keys([]) == []


def test_true_and_one_are_different_values():
    assert varying_keys([record("1", values={"a": 1}), record("2", values={"a": True})]) == ["a"]
