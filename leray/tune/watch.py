"""What a sweep's driver sees of its trials: their records, kept as Ray Tune tells of them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from leray.platform.run_directory import RunDirectory
from leray.tune.config import SweepConfig, trial_config
from leray.tune.folder import SweepFolder, history
from leray.tune.records import TrialRecord
from leray.tune.space import VALUES

REFRESH_S = 1.0
RUNNING = {Trial.RUNNING: "running", Trial.PENDING: "pending", Trial.PAUSED: "pending"}


class Watch(Callback):  # type: ignore[misc]
    """Turns Ray Tune's trials into records, and shows them when something changed.

    Args:
        sweep: the sweep.
        folder: its folder.
        show: called with all records, about once a second at most, and whenever a trial ended.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        folder: SweepFolder,
        show: Callable[[Sequence[TrialRecord]], None],
    ) -> None:
        self.records: dict[str, TrialRecord] = {}
        """By id, in the order of their start."""
        self._sweep, self._folder, self._show = sweep, folder, show
        self._histories: dict[str, list[tuple[int, float]]] = {}
        self._steps: dict[str, int] = {}
        self._shown_s = 0.0

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note a figure (Ray Tune's name)."""
        metric, past = self._sweep.metrics[0], self._history(trial)
        if metric in result and (not past or past[-1][0] != result["step"]):
            past.append((int(result["step"]), float(result[metric])))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at all trials (Ray Tune's name)."""
        now = time.monotonic()
        if now - self._shown_s >= REFRESH_S:
            self._shown_s = now
            self.refresh(trials)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Look once more (Ray Tune's name)."""
        self.refresh(trials)

    def refresh(self, trials: Sequence[Trial]) -> None:
        """Bring the records up to date and show them."""
        self.records = {trial.trial_id: self._record(trial) for trial in trials}
        self._show(list(self.records.values()))

    def _record(self, trial: Trial) -> TrialRecord:
        known, result = self.records.get(trial.trial_id), trial.last_result or {}
        past = self._history(trial)
        step = int(result.get("step", past[-1][0] if past else 0))
        status = self._status(trial, step)
        if known is not None and (known.status, known.step) == (status, step):
            return known
        pick = max if self._sweep.modes[0] == "max" else min
        best = pick(past, key=lambda point: point[1], default=None)
        return TrialRecord(
            trial_id=trial.trial_id,
            values=dict(trial.config.get(VALUES, {})),
            status=status,
            step=step,
            metrics=_figures(result),
            best=None if best is None else best[1],
            best_step=None if best is None else best[0],
            history=tuple(past),
            run=self._folder.trial(trial.trial_id),
            error=_reason(trial) if status == "failed" else None,
            duration_s=float(result.get("time_total_s", 0.0)),
        )

    def _status(self, trial: Trial, step: int) -> str:
        if trial.status == Trial.TERMINATED:
            return "finished" if step >= self._total_steps(trial) else "stopped"
        return "failed" if trial.status == Trial.ERROR else RUNNING[trial.status]

    def _total_steps(self, trial: Trial) -> int:
        if trial.trial_id not in self._steps:
            self._steps[trial.trial_id] = trial_config(self._sweep, trial.config[VALUES]).steps
        return self._steps[trial.trial_id]

    def _history(self, trial: Trial) -> list[tuple[int, float]]:
        """Return the metric over the trial's steps; of a trial that was resumed, from its run."""
        if trial.trial_id not in self._histories:
            run = RunDirectory(self._folder.trial(trial.trial_id))
            self._histories[trial.trial_id] = history(run, self._sweep.metrics[0])
        return self._histories[trial.trial_id]


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """Return what a trial reported, without what Ray Tune adds."""
    return {
        name: float(value)
        for name, value in result.items()
        if "/" in name and isinstance(value, int | float)
    }


def _reason(trial: Trial) -> str:
    """Return why a trial failed, on one line."""
    error = trial.get_error()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
