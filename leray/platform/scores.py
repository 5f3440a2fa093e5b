"""Which checkpoint of a run is the best so far, remembered in the run's folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leray.files import write_json
from leray.platform.run_directory import RunDirectory

SCORES = "best.json"
PREFERRED = ("eval/success_rate", "validation/loss")
"""Which figure decides where the user does not say: the first of these that there is."""


class Scores:
    """The best value of one figure, and up to which step the run was judged.

    Args:
        run: the run's folder; what earlier processes of the run found is in it.
        metric: name of the figure; None takes the first of `PREFERRED` that is measured.
        step: where training goes on from; what was found beyond it does not count.
    """

    def __init__(self, run: RunDirectory, metric: str | None, *, step: int) -> None:
        self._file = run.eval / SCORES
        self._wanted = metric
        stored = _read(self._file)
        self.judged = min(int(stored.get("judged", 0)), step)
        """The last step at which the policy was judged."""
        self.metric: str | None = None
        self.value = math.nan
        if run.best_checkpoint() is not None and "metric" in stored:
            self.metric, self.value = str(stored["metric"]), float(stored["value"])

    def metric_of(self, figures: Mapping[str, float]) -> str | None:
        """Return which of the figures decides; None if it is not among them."""
        names = PREFERRED if self._wanted is None else (self._wanted,)
        return next((name for name in names if name in figures), None)

    def is_best(self, figures: Mapping[str, float]) -> bool:
        """Tell whether the figures of a policy are better than all before; an equal is not."""
        name = self.metric_of(figures)
        if name is None or not math.isfinite(figures[name]):
            return False
        if name != self.metric:  # nothing to compare with
            return True
        better = figures[name] - self.value
        return (-better if "loss" in name else better) > 0

    def note(self, figures: Mapping[str, float], step: int, *, best: bool) -> None:
        """Remember that a step was judged, and whether its checkpoint is the best."""
        if best:
            name = self.metric_of(figures)
            assert name is not None
            self.metric, self.value = name, float(figures[name])
        self.judged = step
        content: dict[str, Any] = {"judged": step}
        if self.metric is not None:
            content |= {"metric": self.metric, "value": self.value}
        write_json(self._file, content)


def _read(file: Path) -> dict[str, Any]:
    """Return what was written; nothing where the file is missing or damaged."""
    try:
        stored = json.loads(file.read_text())
        if "metric" in stored:
            float(stored["value"])
        return {"judged": int(stored["judged"]), **stored}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
