"""The ranked trials as text."""

import re

import pytest

from leray.tune.report.table import LONGEST_VALUE, MOST_ERRORS, repeats_table, text_table
from tests.tune.report.sweeps import HOSTILE, METRIC, record, sweep


def trials():
    values = {"env.task": "Reach", "policy.actor_lr": 0.00031622776, "batch_size": 64}
    return [
        record("aa1", 0.25, values=values),
        record("bb2", 0.75, values={**values, "policy.actor_lr": 1e-5, "policy.clip": None}),
        record("cc3", None, values={**values, "batch_size": 256}, status="failed", error="a\nb"),
        record("dd4", None, values=values, status="running", step=123456),
    ]


def lines(text):
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip(" ─")]


def test_rows_cells_and_notes():
    text = text_table(trials(), metric=METRIC, mode="max", width=120)
    assert lines(text) == [
        ["rank", "trial", "status", "step", METRIC, "actor_lr", "batch_size", "clip"],
        ["1", "bb2", "finished", "1,000", "0.75", "1e-05", "64", "null"],
        ["2", "aa1", "finished", "1,000", "0.25", "0.0003162", "64", "-"],
        ["-", "cc3", "failed", "0", "-", "0.0003162", "256", "-"],
        ["-", "dd4", "running", "123,456", "-", "0.0003162", "64", "-"],
        ["the same in every trial: env.task=Reach"],
        ["cc3: a b"],
    ]
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_numbers_are_aligned_to_the_right():
    text = text_table(trials(), metric=METRIC, mode="max", width=120)
    head, *rows = (line for line in text.splitlines()[:6] if line.strip(" ─"))
    for name in ("step", METRIC, "actor_lr", "batch_size"):
        end = head.index(name) + len(name)
        assert all(row[end - 1] != " " and row[end : end + 1] in ("", " ") for row in rows), name


def test_smaller_is_better():
    text = text_table(trials(), metric="loss", mode="min", width=120)
    assert [cells[1] for cells in lines(text)[1:5]] == ["aa1", "bb2", "cc3", "dd4"]


def test_limit_says_what_it_leaves_out():
    assert ["and 2 more trials"] in lines(
        text_table(trials(), metric=METRIC, mode="max", limit=2, width=120)
    )


@pytest.mark.parametrize("width", [50, 60, 80, 120, 300])
def test_every_width_holds_everything(width):
    many = sweep(12)
    text = text_table(many, metric=METRIC, mode="max", width=width)
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        for one in many:
            assert f"{one.values['policy.actor_lr']:.4g}" in text
            assert one.trial_id in text


def test_without_a_width_the_terminal_says_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "64")
    text = text_table(sweep(12), metric=METRIC, mode="max")
    assert 50 < max(map(len, text.splitlines())) <= 64


def test_markup_and_escape_sequences_are_text():
    hostile = [
        record("a", 0.5, values={"x": "[bold]b[/bold]"}),
        record("b", 0.4, values={"x": "\x1b[31mred\x1b[0m"}),
        record("c", None, values={"x": HOSTILE}, error="[red]no[/red]\x1b[2J"),
    ]
    text = text_table(hostile, metric="[m]", mode="max", width=120)
    assert "[bold]b[/bold]" in text
    assert "c: [red]no[/red]" in text
    assert "[m]" in text
    assert HOSTILE in text
    assert "\x1b" not in text


def test_long_values_are_cut():
    values = [{"x": "y" * 100}, {"x": "z"}]
    text = text_table([record(str(i), 1.0, values=v) for i, v in enumerate(values)],
                      metric="m", mode="max", width=120)  # fmt: skip
    assert f"{'y' * (LONGEST_VALUE - 1)}… " in f"{text} ".replace("\n", " ")


def test_equal_errors_are_told_once():
    failed = [record(f"f{i}", status="failed", error="no space") for i in range(3)]
    other = [record(f"g{i}", status="failed", error=f"error {i}") for i in range(MOST_ERRORS + 1)]
    told = lines(text_table([*failed, *other], metric="m", mode="max", width=120))
    assert ["f0 and 2 more: no space"] in told
    assert ["g0: error 0"] in told
    assert told[-1] == ["and 2 more errors"]


@pytest.mark.parametrize("number", [0, 1])
def test_few_trials(number):
    text = text_table(trials()[:number], metric=METRIC, mode="max", width=120)
    assert len(lines(text)) == 1 + number
    assert ("env.task" in text) is False
    assert ("Reach" in text) is bool(number)


def test_repeats():
    runs = [
        record("a", 0.5, values={"lr": 0.1, "same": 1, "seed": 0}),
        record("b", 0.7, values={"lr": 0.1, "same": 1, "seed": 1}),
        record("c", 0.9, values={"lr": 0.2, "same": 1, "seed": 0}),
    ]
    assert lines(repeats_table(runs, metric="m", mode="max", width=120)) == [
        ["rank", "m", "std", "repeats", "lr"],
        ["1", "0.9", "-", "1", "0.2"],
        ["2", "0.6", "0.1414", "2", "0.1"],
    ]
    limited = repeats_table(runs, metric="m", mode="max", width=120, limit=1)
    assert lines(limited)[-1] == ["and 1 more configuration"]
