"""How much of a metric's variance each swept key explains, by fANOVA on a forest of trees.

Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance",
ICML 2014. The forest and the decomposition are Optuna's.
"""

import math
import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from leray.tune.records import TrialRecord
from leray.tune.report.ranking import score
from leray.tune.report.values import exact, is_log, number, swept_keys, varying_keys

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST_TRIALS = 4
"""Fewer trials than this say nothing about several keys."""
ENDED = ("finished", "stopped")
SEED = 0


def importance(
    records: Sequence[TrialRecord], *, mode: str, log_keys: Collection[str] | None = None
) -> dict[str, float]:
    """Return the share of the metric's variance that each swept key explains by itself.

    A trial counts with its best value once it has finished or the scheduler has stopped it: what
    made a trial bad enough to be stopped is part of the answer. Values on a logarithmic scale are
    treated so. A key that only some trials have (its condition does not hold in the others) is
    filled in there with values drawn from those that do have it: where it is not in force it
    varies without effect, so the condition's own key is credited with the difference between
    having it and not. Drawing is seeded: the same trials give the same shares.

    Args:
        records: the trials.
        mode: `max` or `min`.
        log_keys: keys searched on a logarithmic scale; None infers them from the values.

    Returns:
        Every swept key with its share, largest first; the shares add up to 1, and a key with one
        value throughout has 0. Empty with fewer than four such trials, or when all have the same
        value: there is then no variance to explain.
    """
    counted = sorted(
        (record for record in records if record.status in ENDED and score(record) is not None),
        key=lambda record: record.trial_id,
    )
    keys = varying_keys(counted)
    if len(counted) < FEWEST_TRIALS or len({score(record) for record in counted}) < 2 or not keys:
        return {}
    columns = {key: _column(counted, key, log_keys) for key in keys}
    varying = {key: values for key, values in columns.items() if len(set(values)) > 1}
    shares = _shares(varying, [score(record) or 0.0 for record in counted], mode)
    total = sum(shares.values())
    if total <= 0:
        return {}
    found = {key: float(shares.get(key, 0.0) / total) for key in swept_keys(records)}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _column(
    records: Sequence[TrialRecord], key: str, log_keys: Collection[str] | None
) -> list[Any]:
    """Return a key's value in every trial: numbers, or the texts of what is not all numbers.

    Of a logarithmic key these are the logarithms: Optuna's fANOVA weighs values evenly on the
    scale it is given, also where a distribution says `log`.
    """
    present = [record.values[key] for record in records if key in record.values]
    numbers = [value for value in present if number(value) is not None]
    values = present if len(numbers) == len(present) else [exact(value) for value in present]
    if values is present and is_log(key, set(numbers), log_keys):
        values = [math.log(value) for value in numbers]
    draw = random.Random(f"{SEED} {key}")
    given = iter(values)
    return [next(given) if key in record.values else draw.choice(values) for record in records]


def _shares(columns: dict[str, list[Any]], scores: list[float], mode: str) -> dict[str, float]:
    """Return the share of the variance that each key explains by itself."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    if not columns:
        return {}
    distributions = {key: _distribution(values) for key, values in columns.items()}
    with _quiet():
        study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        for index, value in enumerate(scores):
            params = {key: values[index] for key, values in columns.items()}
            trial = optuna.trial.create_trial(
                params=params, distributions=distributions, value=value
            )
            study.add_trial(trial)
        return FanovaImportanceEvaluator(seed=SEED).evaluate(study)


def _distribution(values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if any(isinstance(value, str) for value in values):
        return CategoricalDistribution(sorted(set(values)))
    if all(isinstance(value, int) for value in values):
        return IntDistribution(min(values), max(values))
    return FloatDistribution(min(values), max(values))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing the study it makes; its verbosity is restored."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
