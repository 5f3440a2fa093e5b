"""Which trial is best, and which configuration is best over its repeats."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leray.tune.records import TrialRecord
from leray.tune.report.values import exact, number

SEED = "seed"
"""Trials that differ in this key only are repeats of one configuration."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """A configuration and the trials that ran it, each with another seed."""

    values: Mapping[str, Any]
    """The configuration, without the seed."""
    records: Sequence[TrialRecord]
    """Its trials, best first."""
    mean: float | None
    """Mean of the trials' best values, or None when none has one."""
    std: float | None
    """Their sample standard deviation, or None for fewer than two."""
    number: int
    """How many trials have a value."""


def score(record: TrialRecord) -> float | None:
    """Return the trial's best value, or None when it has none that is finite."""
    return None if record.best is None else number(float(record.best))


def ranked(records: Iterable[TrialRecord], *, mode: str) -> list[TrialRecord]:
    """Return trials best first; those without a value come last, ties are ordered by trial id.

    Args:
        records: the trials.
        mode: `max` where larger values are better, `min` where smaller ones are.
    """
    return sorted(records, key=lambda record: (*_place(score(record), mode), record.trial_id))


def grouped(records: Iterable[TrialRecord], *, mode: str) -> list[Repeats]:
    """Return configurations by the mean over their repeats, best first, those without one last.

    Args:
        records: the trials.
        mode: `max` where larger values are better, `min` where smaller ones are.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in ranked(records, mode=mode):
        groups.setdefault(exact(sorted(_without_seed(record).items())), []).append(record)
    repeats = [_summary(group) for group in groups.values()]
    return sorted(repeats, key=lambda row: (*_place(row.mean, mode), row.records[0].trial_id))


def has_repeats(records: Iterable[TrialRecord]) -> bool:
    """Tell whether any configuration ran more than once."""
    return any(len(row.records) > 1 for row in grouped(records, mode="max"))


def _place(value: float | None, mode: str) -> tuple[bool, float]:
    if value is None:
        return True, 0.0
    return False, -value if mode == "max" else value


def _without_seed(record: TrialRecord) -> dict[str, Any]:
    return {key: value for key, value in record.values.items() if key != SEED}


def _summary(group: Sequence[TrialRecord]) -> Repeats:
    scores = [value for record in group if (value := score(record)) is not None]
    return Repeats(
        values=_without_seed(group[0]),
        records=group,
        mean=statistics.fmean(scores) if scores else None,
        std=statistics.stdev(scores) if len(scores) > 1 else None,
        number=len(scores),
    )
