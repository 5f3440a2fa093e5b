"""The trials of a sweep as a CSV file, for a spreadsheet or a data frame."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leray.tune.records import TrialRecord
from leray.tune.report.output import write_report
from leray.tune.report.values import exact, one_line, swept_keys

CONFIG = "config/"
"""Begins the name of a swept key's column, so that none can be taken for a metric."""


def write_csv(records: Sequence[TrialRecord], path: Path, *, metric: str) -> None:
    """Write one row per trial, in the order given; an existing file is replaced as a whole.

    Columns: `trial_id`, `status`, `step`, `best <metric>`, `best_step`, `duration_s`, every swept
    key as `config/<key>`, every metric as last reported, `run`, `error`. Numbers keep all their
    digits; a cell is empty where a trial has no such value, and `null` where the value is null.

    Args:
        records: the trials.
        path: the file; its folder is made.
        metric: the sweep's (first) metric.

    Raises:
        ConfigError: the file cannot be written.
    """
    keys = swept_keys(records)
    metrics = sorted({name for record in records for name in record.metrics})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["trial_id", "status", "step", f"best {metric}", "best_step", "duration_s"]
        + [f"{CONFIG}{key}" for key in keys]
        + [*metrics, "run", "error"]
    )
    table.writerows(_row(record, keys, metrics) for record in records)
    write_report(path, text.getvalue().encode("utf-8", "replace"))


def _row(record: TrialRecord, keys: list[str], metrics: list[str]) -> list[str]:
    result: list[Any] = [record.status, record.step, record.best, record.best_step]
    return [
        record.trial_id,
        *("" if value is None else exact(value) for value in [*result, record.duration_s]),
        *(exact(record.values[key]) if key in record.values else "" for key in keys),
        *(exact(record.metrics[name]) if name in record.metrics else "" for name in metrics),
        "" if record.run is None else str(record.run),
        one_line(record.error or ""),
    ]
