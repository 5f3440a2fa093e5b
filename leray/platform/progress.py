"""What a person sees while training: a live panel on a terminal, a line per report elsewhere."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

RATE = "rate"
"""Stands for the format of rates: small ones get two digits behind the point."""
LABELS = {
    "time/env_steps_per_s": ("steps/s", RATE),
    "time/updates_per_s": ("updates/s", RATE),
    "time/samples_per_s": ("samples/s", RATE),
    "loss/total": ("loss", "{:.4f}"),
    "train/lr": ("lr", "{:.1e}"),
    "train/episode_return": ("return", "{:.2f}"),
    "train/success_rate": ("success", "{:.0%}"),
    "train/entropy": ("entropy", "{:.2f}"),
    "buffer/online": ("online", "{:,.0f}"),
    "buffer/offline": ("offline", "{:,.0f}"),
    "validation/loss": ("validation loss", "{:.4f}"),
    "eval/success_rate": ("eval success", "{:.0%}"),
    "eval/return_mean": ("eval return", "{:.2f}"),
}
"""Metric name to label and format; metrics not named here are not shown."""
SMALL_RATE = 10
BAR_CELLS = 40


class Progress:
    """Shows how far a run is and how well it goes.

    Args:
        total_steps: Step at which the run ends.
        start_step: Step at which this process began, above 0 for a resumed run.
        stream: Where to write; None takes standard output.
        unit: What a step is called.
        is_tty: Draw live; None does so when the stream is a terminal and `CI` is not set.
        clock: Seconds that only grow; another clock serves tests.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        stream: IO[str] | None = None,
        *,
        unit: str = "step",
        is_tty: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total_steps
        self._unit = unit
        self._start = start_step
        self._step = start_step
        self._clock = clock
        self._began = clock()
        self._stream = stream or sys.stdout
        self._shown: dict[str, float] = {}
        self._live: Any = None
        if is_tty is None:
            is_tty = self._stream.isatty() and not os.environ.get("CI")
        if is_tty:
            self._live = self._open_live()

    @property
    def is_live(self) -> bool:
        """Whether updates are drawn in place, so that many of them do no harm."""
        return self._live is not None

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a report.

        Args:
            step: Steps done in the whole run.
            metrics: The newest metrics by name; a live display keeps the value of those not given.
        """
        self._step = step
        now = {name: float(metrics[name]) for name in LABELS if name in metrics}
        self._shown.update(now)
        if self._live is None:
            self._write(f"{self._headline()}{self._values(now)}")
        else:
            self._live.update(self._panel(), refresh=True)

    def message(self, text: str) -> None:
        """Show one line that stays, for example `checkpoint saved`."""
        if self._live is None:
            self._write(text)
        else:
            self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the display; the last state stays visible. Calling it again does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def eta_s(self) -> float | None:
        """Return the seconds left at this process's mean speed, or None before the first step."""
        done = self._step - self._start
        if done <= 0:
            return None
        return (self._clock() - self._began) / done * max(self._total - self._step, 0)

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _headline(self) -> str:
        share = self._step / self._total if self._total else 1.0
        eta = self.eta_s()
        left = "" if eta is None else f"  left {_duration(eta)}"
        return f"{self._unit} {self._step:,}/{self._total:,} ({share:.0%}){left}"

    def _values(self, values: Mapping[str, float]) -> str:
        return "".join(
            f"  {LABELS[name][0]} {_formatted(name, values[name])}"
            for name in LABELS
            if name in values
        )

    def _open_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, force_terminal=True)
        live = Live(self._panel(), console=console, auto_refresh=False)
        live.start()
        return live

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for _ in range(3):
            grid.add_column()
        names = [name for name in LABELS if name in self._shown]
        cells = [
            Text.assemble((f"{LABELS[name][0]} ", "dim"), _formatted(name, self._shown[name]))
            for name in names
        ]
        for start in range(0, len(cells), 3):
            grid.add_row(*cells[start : start + 3])
        bar = ProgressBar(total=max(self._total, 1), completed=self._step, width=BAR_CELLS)
        return Group(Text(self._headline()), bar, grid)


def _formatted(name: str, value: float) -> str:
    form = LABELS[name][1]
    if form == RATE:
        form = "{:.2f}" if abs(value) < SMALL_RATE else "{:,.0f}"
    return form.format(value) if math.isfinite(value) else "-"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
