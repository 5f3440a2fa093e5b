"""The sweep as one HTML file that a browser opens from disk: table, plots and importance.

Texts of the sweep are data in a block that browsers do not execute; the page's script shows them
as text, never as markup.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from leray.data.tools.viz.document import data_block, page_parts
from leray.tune.records import TrialRecord
from leray.tune.report.output import write_report
from leray.tune.report.ranking import Repeats, grouped, has_repeats, ranked, score
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

SCRIPTS = ("table.js", "parallel.js", "curves.js", "page.js")


def write_page(
    records: Sequence[TrialRecord],
    path: Path,
    *,
    metric: str,
    mode: str,
    title: str,
    importance: Mapping[str, float],
    log_keys: Collection[str] | None = None,
) -> None:
    """Write the page of a sweep, while it runs or at its end; an existing file is replaced.

    Args:
        records: the trials.
        path: the HTML file; its folder is made.
        metric: the sweep's (first) metric.
        mode: `max` or `min`.
        title: what the page calls the sweep.
        importance: share of the metric's variance by swept key, as `importance` returns it.
        log_keys: keys to draw on a logarithmic axis; None infers them from the values.

    Raises:
        ConfigError: the file cannot be written.
    """
    space = _space(records, log_keys)
    words = {key["name"] for key in space["keys"] if key["kind"] == "category"}
    content = {
        "title": title,
        "metric": metric,
        "mode": mode,
        **space,
        "trials": [_trial(record, words) for record in ranked(records, mode=mode)],
        "repeats": _repeats(records, mode, words),
        "importance": [[key, share] for key, share in importance.items()],
    }
    head, tail = page_parts(__package__, title=title, scripts=SCRIPTS)
    write_report(path, head + data_block("sweep", content) + tail)


def _space(records: Sequence[TrialRecord], log_keys: Collection[str] | None) -> dict[str, Any]:
    """Return the keys that vary, each with its kind of axis, and those that are the same."""
    keys, varying = swept_keys(records), varying_keys(records)
    labels = short_labels(keys)
    return {
        "keys": [
            {"name": key, "label": labels[key], **_axis(records, key, log_keys)} for key in varying
        ],
        "labels": labels,
        "fixed": [[key, short(records[0].values[key])] for key in keys if key not in varying],
    }


def _axis(
    records: Sequence[TrialRecord], key: str, log_keys: Collection[str] | None
) -> dict[str, Any]:
    """Return `numbers` and whether they are logarithmic, or the `categories` in their order."""
    values = [record.values[key] for record in records if key in record.values]
    numbers = [number(value) for value in values]
    finite = [value for value in numbers if value is not None]
    if len(finite) == len(values):
        return {"kind": "number", "log": is_log(key, set(finite), log_keys)}
    texts = {exact(value): (_order(value), exact(value)) for value in values}
    return {"kind": "category", "categories": sorted(texts, key=lambda text: texts[text])}


def _order(value: Any) -> tuple[int, float]:
    """Return where a value stands among categories: null, no and yes, numbers, then texts."""
    if value is None:
        return 0, 0.0
    if isinstance(value, bool):
        return 1, float(value)
    numeric = number(value)
    return (3, 0.0) if numeric is None else (2, numeric)


def _trial(record: TrialRecord, words: Collection[str]) -> dict[str, Any]:
    return {
        "id": record.trial_id,
        "status": record.status,
        "step": int(record.step),
        "best": score(record),
        "bestStep": None if record.best_step is None else int(record.best_step),
        "values": _values(record.values, words),
        "history": [[int(step), number(value)] for step, value in record.history],
        "metrics": {name: short(value) for name, value in sorted(record.metrics.items())},
        "duration": number(record.duration_s),
        "run": None if record.run is None else str(record.run),
        "error": one_line(record.error or ""),
    }


def _repeats(
    records: Sequence[TrialRecord], mode: str, words: Collection[str]
) -> list[dict[str, Any]]:
    if not has_repeats(records):
        return []
    return [_configuration(row, words) for row in grouped(records, mode=mode)]


def _configuration(row: Repeats, words: Collection[str]) -> dict[str, Any]:
    return {
        "ids": [record.trial_id for record in row.records],
        "mean": row.mean,
        "std": row.std,
        "number": row.number,
        "values": _values(row.values, words),
    }


def _values(values: Mapping[str, Any], words: Collection[str]) -> dict[str, Any]:
    """Return values for the page: numbers as such, texts for anything else and for `words`."""
    return {
        key: exact(value) if key in words or number(value) is None else value
        for key, value in values.items()
    }
