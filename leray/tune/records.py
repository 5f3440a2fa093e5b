"""What became of a trial: the line it has in a sweep's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial, as far as it has come."""

    trial_id: str
    """Short name, as in `trials/<trial_id>`."""
    values: Mapping[str, Any]
    """What the search chose, by dotted key of the training config."""
    status: str
    """`finished`, `stopped` (by the scheduler, before the end), `failed`, `running`, `pending`."""
    step: int
    """Environment steps, or updates where training is offline."""
    metrics: Mapping[str, float]
    """Figures by name, as last reported."""
    best: float | None
    """Best value of the sweep's first metric; None before the first."""
    best_step: int | None
    """Step of that value."""
    history: Sequence[tuple[int, float]] = ()
    """Step and value of the sweep's first metric, in the order of the reports."""
    run: Path | None = None
    """The run's folder."""
    error: str | None = None
    """Why the trial failed, on one line."""
    duration_s: float = 0.0
    """Time that was trained for."""
