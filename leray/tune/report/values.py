"""Values of trials as a reader sees them: as text, as numbers, and on which kind of axis."""

import json
import math
import numbers
import re
import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from leray.tune.records import TrialRecord

MISSING = "-"
"""Stands where a trial has no value: a key whose condition does not hold, a metric not reported."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LEAST_LOG_RATIO = 3
"""Numbers closer together than this look the same on both kinds of axis."""
_ROUNDING = 1e-9


def one_line(text: str) -> str:
    """Return a text on one line, without a terminal's escape sequences and control characters."""
    plain = _ESCAPES.sub("", text)
    return " ".join("".join(c if c.isprintable() else " " for c in plain).split())


def exact(value: Any) -> str:
    """Return a value as text that loses nothing; texts stay as they are, others are JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def short(value: Any) -> str:
    """Return a value as short text on one line: floats with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(exact(value))


def number(value: Any) -> float | None:
    """Return a finite number as a float, and None for anything else (also for booleans)."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    return float(value) if math.isfinite(value) else None


def is_log(key: str, values: Iterable[float], log_keys: Collection[str] | None = None) -> bool:
    """Tell whether the values of a key are on a logarithmic scale.

    Args:
        key: the swept key.
        values: its values, all of them numbers.
        log_keys: the keys that are; None infers it: all values are positive, the largest is at
            least three times the smallest, and their mean is nearer to the middle of the
            logarithms' range than to that of their own. Few values say little about it.
    """
    ordered = sorted(values)
    if not ordered or ordered[0] <= 0 or ordered[-1] == ordered[0]:
        return False
    if log_keys is not None:
        return key in log_keys
    if ordered[-1] < _LEAST_LOG_RATIO * ordered[0]:
        return False
    off_log, off = _off_centre([math.log(value) for value in ordered]), _off_centre(ordered)
    return off_log <= off + _ROUNDING


def _off_centre(ordered: Sequence[float]) -> float:
    low, high = ordered[0], ordered[-1]
    return abs((statistics.fmean(ordered) - low) / (high - low) - 0.5)


def swept_keys(records: Iterable[TrialRecord]) -> list[str]:
    """Return every key that any trial has a value for, in the order of the search space."""
    return list(dict.fromkeys(key for record in records for key in record.values))


def varying_keys(records: Sequence[TrialRecord]) -> list[str]:
    """Return the keys that differ between trials, or that some lack; of a single trial, all."""
    keys = swept_keys(records)
    if len(records) < 2:
        return keys
    return [key for key in keys if len({_identity(record, key) for record in records}) > 1]


def short_labels(keys: Sequence[str]) -> dict[str, str]:
    """Return for every dotted key the shortest ending that no other key has."""
    labels = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[first:]) for first in range(len(parts) - 1, -1, -1)]
        others = [other for other in keys if other != key]
        labels[key] = next((e for e in endings if not any(_ends(o, e) for o in others)), key)
    return labels


def _ends(key: str, ending: str) -> bool:
    return key == ending or key.endswith(f".{ending}")


def _identity(record: TrialRecord, key: str) -> str | None:
    return exact(record.values[key]) if key in record.values else None
