"""A sweep's folder: its config, its trials' runs, Ray Tune's own state, and the results."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leray.platform.run_directory import RunDirectory
from leray.platform.tracking import METRICS, RUN_ID_FILE
from leray.tune.config import SweepConfig

JUDGED = ("eval/", "validation/")
"""Beginnings of the names of figures that a policy was judged by."""


class SweepFolder:
    """Where everything of a sweep is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_file = root / SweepConfig.record
        self.mlflow_run_id = root / RUN_ID_FILE
        self.tune = root / "tune"
        self.best = root / "best"
        self.csv = root / "results.csv"
        self.page = root / "results.html"

    def trial(self, trial_id: str) -> Path:
        """Return the run folder of a trial."""
        return self.root / "trials" / trial_id


def records(run: RunDirectory) -> Iterator[dict[str, Any]]:
    """Yield what a run has recorded: `step`, `time` in seconds, and figures by name."""
    path = run.logs / METRICS
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # cut short by a power loss
            continue
        if isinstance(record, dict) and "step" in record:
            yield record


def last_figures(run: RunDirectory, step: int) -> dict[str, float]:
    """Return the newest figures that a run was judged by, up to a step."""
    figures: dict[str, float] = {}
    for record in records(run):
        if record["step"] <= step:
            figures |= {name: v for name, v in record.items() if name.startswith(JUDGED)}
    return figures


def history(run: RunDirectory, metric: str) -> list[tuple[int, float]]:
    """Return a figure of a run over its steps, in the order of recording."""
    return [(int(r["step"]), float(r[metric])) for r in records(run) if metric in r]
