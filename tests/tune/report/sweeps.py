"""Trials of sweeps that never ran, for tests of what is told about them."""

import math
import random
from pathlib import Path
from typing import Any

from leray.tune.records import TrialRecord

METRIC = "eval/success_rate"
HOSTILE = "<script>alert(1)</script>"


def record(trial_id: str, best: float | None = None, **fields: Any) -> TrialRecord:
    """Return a finished trial; without a best value it has reported nothing."""
    steps = 1000 if best is not None else 0
    given = {
        "values": {},
        "status": "finished",
        "step": steps,
        "metrics": {} if best is None else {METRIC: best},
        "best": best,
        "best_step": None if best is None else steps,
    }
    return TrialRecord(trial_id=trial_id, **{**given, **fields})


def sweep(number: int) -> list[TrialRecord]:
    """Return trials with every kind of value and status, and curves; the same ones every time."""
    draw = random.Random(0)
    return [_trial(index, draw) for index in range(number)]


def _trial(index: int, draw: random.Random) -> TrialRecord:
    lr = 10 ** draw.uniform(-5, -2)
    values: dict[str, Any] = {
        "policy.actor_lr": lr,
        "batch_size": draw.choice([64, 128, 256, 512]),
        "policy.optimizer": draw.choice(["adam", "sgd", HOSTILE]),
        "policy.layer_norm": draw.choice([True, False]),
        "policy.clip": draw.choice([None, 1.0, 10.0]),
        "policy.hidden_dims": draw.choice([[64, 64], [256, 256]]),
        "steps": 20000,
        "seed": index % 3,
    }
    if values["policy.optimizer"] == "sgd":
        values["policy.momentum"] = draw.uniform(0.8, 0.99)
    goal = math.exp(-((math.log10(lr) + 3.5) ** 2)) * (1.0 if values["policy.layer_norm"] else 0.8)
    status = {3: "failed", 5: "stopped", 7: "running", 9: "pending"}.get(index % 12, "finished")
    steps = {"finished": 20000, "pending": 0}.get(status, 6000)
    reports = range(1000, steps + 1, 1000)
    history = [(step, goal * (1 - math.exp(-step / 6000))) for step in reports]
    if index == 1:
        history[4] = (history[4][0], math.nan)
    finite = [(value, step) for step, value in history if math.isfinite(value)]
    best, best_step = max(finite) if finite else (None, None)
    return TrialRecord(
        trial_id=f"t{index:05d}",
        values=values,
        status=status,
        step=steps,
        metrics={METRIC: history[-1][1], "loss/critic": 0.1} if history else {},
        best=best,
        best_step=best_step,
        history=history,
        run=Path("trials") / f"t{index:05d}",
        error=f"LearnerError: {HOSTILE}\n  out of memory" if status == "failed" else None,
        duration_s=61.5 * index,
    )
