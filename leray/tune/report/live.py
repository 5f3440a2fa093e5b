"""What a person sees while a sweep runs: a table that is drawn anew, or a line per ended trial."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from leray.tune.records import TrialRecord
from leray.tune.report.ranking import ranked, score
from leray.tune.report.table import trial_sheet, values_text
from leray.tune.report.values import one_line, short

if TYPE_CHECKING:
    from rich.console import RenderableType

ENDED = ("finished", "stopped", "failed")
ROOM_BELOW = 12
"""Lines of the terminal that are left for what stands above and below the rows."""


class LiveTable:
    """Shows how far a sweep is.

    On a terminal the best trials stand in a table that each update draws anew; elsewhere every
    trial that ends is one line, so that a log stays readable.

    Args:
        metric: The sweep's (first) metric.
        mode: `max` or `min`.
        total: Trials the sweep will have, or None when that is not known.
        stream: Where to write; None takes standard output.
        is_tty: Draw live; None does so when the stream is a terminal and `CI` is not set.
    """

    def __init__(
        self,
        *,
        metric: str,
        mode: str,
        total: int | None = None,
        stream: IO[str] | None = None,
        is_tty: bool | None = None,
    ) -> None:
        self._metric = metric
        self._mode = mode
        self._total = total
        self._stream = stream or sys.stdout
        self._told: dict[str, str] = {}
        self._live: Any = None
        if is_tty is None:
            is_tty = self._stream.isatty() and not os.environ.get("CI")
        if is_tty:
            self._live = self._open_live()

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Show the state of all trials, the running and the waiting ones too."""
        if self._live is not None:
            self._live.update(self._drawn(records), refresh=True)
            return
        for record in records:
            if record.status in ENDED and self._told.get(record.trial_id) != record.status:
                self.message(self._ended(record, records))
            self._told[record.trial_id] = record.status

    def message(self, text: str) -> None:
        """Show one line that stays."""
        if self._live is None:
            print(text, file=self._stream, flush=True)
        else:
            self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the display; the last state stays visible. Calling it again does nothing."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the display, however the body ended."""
        self.close()

    def _open_live(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, force_terminal=True)
        live = Live(self._drawn([]), console=console, auto_refresh=False)
        live.start()
        return live

    def _drawn(self, records: Sequence[TrialRecord]) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        if not records:
            return Text("waiting for the first trial")
        columns, lines = shutil.get_terminal_size()
        headline = Text(self._headline(records), "bold", overflow="ellipsis", no_wrap=True)
        limit = max(lines - ROOM_BELOW, 3)
        sheet = trial_sheet(records, metric=self._metric, mode=self._mode, limit=limit)
        return Group(headline, sheet.fitted(columns, wrap=False))

    def _headline(self, records: Sequence[TrialRecord]) -> str:
        counts = Counter(record.status for record in records)
        states = ("running", "pending", *ENDED)
        parts = [f"{counts[state]} {state}" for state in states if counts[state]]
        if self._total is not None:
            parts.append(f"of {self._total} trials")
        return "  ".join([*parts, self._best(records)]).rstrip()

    def _best(self, records: Sequence[TrialRecord]) -> str:
        best = next(iter(ranked(records, mode=self._mode)), None)
        value = None if best is None else score(best)
        if best is None or value is None:
            return ""
        return f"best {self._metric} {short(value)} ({best.trial_id})"

    def _ended(self, record: TrialRecord, records: Sequence[TrialRecord]) -> str:
        """Return the line of a trial that ended."""
        ended = sum(other.status in ENDED for other in records)
        value = score(record)
        parts = [f"trial {record.trial_id} {record.status} at step {record.step:,}"]
        if value is not None:
            parts.append(f"{self._metric} {short(value)}")
        parts.append(values_text(record))
        if record.error:
            parts.append(one_line(record.error))
        of_all = f" of {self._total}" if self._total is not None else ""
        parts.append(f"({ended}{of_all} ended)")
        return "  ".join(part for part in parts if part)
