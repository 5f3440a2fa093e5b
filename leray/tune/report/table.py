"""The trials of a sweep as a table for the terminal, best first."""

import io
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leray.tune.records import TrialRecord
from leray.tune.report.ranking import Repeats, grouped, ranked, score
from leray.tune.report.values import (
    MISSING,
    one_line,
    short,
    short_labels,
    swept_keys,
    varying_keys,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST_VALUE = 32
"""Characters of a swept value in its own column; longer ones are cut."""
MOST_ERRORS = 5
"""Different errors that are shown under a table."""
STYLES = {"running": "cyan", "pending": "dim", "stopped": "dim", "failed": "red"}
"""Status of a trial to the colour of its row."""
_UNLIMITED = 100_000


@dataclass(frozen=True)
class _Row:
    """A line of a table: its fixed cells, its swept values by key, and its colour."""

    cells: list[str]
    values: dict[str, str]
    style: str = ""


@dataclass(frozen=True)
class _Sheet:
    """A table before it is known how much room there is for it."""

    headers: list[str]
    numeric: set[str]
    """Headers and keys whose column is aligned to the right."""
    keys: list[str]
    rows: list[_Row]
    notes: list[str] = field(default_factory=list)

    def fitted(self, width: int, *, wrap: bool) -> "RenderableType":
        """Return the table with a column per key, or, where that is too wide, one for all.

        Args:
            width: characters in a line.
            wrap: where one column holds all values, use as many lines as they need; else cut them.
        """
        from rich.console import Console, Group
        from rich.text import Text

        table = self._wide()
        if Console(width=_UNLIMITED).measure(table).maximum > width:
            table = self._narrow(wrap=wrap)
        notes = (Text(note, overflow="ellipsis", no_wrap=True) for note in self.notes)
        return Group(table, *notes)

    def _wide(self) -> Any:
        from rich.text import Text

        labels = short_labels(self.keys)
        table = self._table()
        for key in self.keys:
            table.add_column(Text(labels[key]), justify=self._justify(key), no_wrap=True)
        for row in self.rows:
            values = (_cut(row.values.get(key, MISSING)) for key in self.keys)
            table.add_row(*map(Text, [*row.cells, *values]), style=row.style)
        return table

    def _narrow(self, *, wrap: bool) -> Any:
        from rich.text import Text

        labels = short_labels(self.keys)
        table = self._table()
        table.add_column(Text("values"))  # the only column that may give way
        how: Any = {"overflow": "fold"} if wrap else {"overflow": "ellipsis", "no_wrap": True}
        for row in self.rows:
            present = (key for key in self.keys if key in row.values)
            values = "  ".join(f"{labels[key]}={_cut(row.values[key])}" for key in present)
            table.add_row(*map(Text, row.cells), Text(values, **how), style=row.style)
        return table

    def _table(self) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for header in self.headers:
            table.add_column(Text(header), justify=self._justify(header), no_wrap=True)
        return table

    def _justify(self, name: str) -> Any:
        return "right" if name in self.numeric else "left"


def text_table(
    records: Sequence[TrialRecord],
    *,
    metric: str,
    mode: str,
    limit: int | None = None,
    width: int | None = None,
) -> str:
    """Return the ranked trials as text without colours, ending in a line break.

    Keys with the same value in every trial stand under the table, as do the errors of failed
    trials. Where a column for every swept key has no room, one column holds them all.

    Args:
        records: the trials.
        metric: the sweep's (first) metric.
        mode: `max` or `min`.
        limit: rows to show; None shows all.
        width: characters in a line; None takes the terminal's.
    """
    return _plain(trial_sheet(records, metric=metric, mode=mode, limit=limit), width)


def repeats_table(
    records: Sequence[TrialRecord],
    *,
    metric: str,
    mode: str,
    limit: int | None = None,
    width: int | None = None,
) -> str:
    """Return configurations, ranked by the mean over their seeds, as text like `text_table`.

    Args:
        records: the trials.
        metric: the sweep's (first) metric.
        mode: `max` or `min`.
        limit: rows to show; None shows all.
        width: characters in a line; None takes the terminal's.
    """
    repeats = grouped(records, mode=mode)
    shown = repeats[:limit]
    present = varying_keys([row.records[0] for row in repeats])
    keys = [key for key in present if any(key in row.values for row in repeats)]
    sheet = _Sheet(
        headers=["rank", metric, "std", "repeats"],
        numeric={"rank", metric, "std", "repeats", *_numeric_keys(records, keys)},
        keys=keys,
        rows=[_repeats_row(rank, row) for rank, row in enumerate(shown, 1)],
        notes=_left_out(len(repeats) - len(shown), "configuration"),
    )
    return _plain(sheet, width)


def trial_sheet(
    records: Sequence[TrialRecord], *, metric: str, mode: str, limit: int | None = None
) -> _Sheet:
    """Return the ranked trials, to be drawn by `fitted` or turned into text.

    Args:
        records: the trials.
        metric: the sweep's (first) metric.
        mode: `max` or `min`.
        limit: rows to show; None shows all.
    """
    ordered = ranked(records, mode=mode)
    shown = ordered[:limit]
    keys = varying_keys(records)
    return _Sheet(
        headers=["rank", "trial", "status", "step", metric],
        numeric={"rank", "step", metric, *_numeric_keys(records, keys)},
        keys=keys,
        rows=[_trial_row(rank, record) for rank, record in enumerate(shown, 1)],
        notes=[
            *_left_out(len(ordered) - len(shown), "trial"),
            *_fixed(records, keys),
            *_errors(ordered),
        ],
    )


def values_text(record: TrialRecord) -> str:
    """Return a trial's values on one line, such as `actor_lr=0.0003 batch_size=128`."""
    labels = short_labels(list(record.values))
    return " ".join(f"{labels[key]}={short(value)}" for key, value in record.values.items())


def _trial_row(rank: int, record: TrialRecord) -> _Row:
    best = score(record)
    style = STYLES.get(record.status, "")
    return _Row(
        [
            str(rank) if best is not None else MISSING,
            record.trial_id,
            record.status,
            f"{record.step:,}",
            MISSING if best is None else short(best),
        ],
        {key: short(value) for key, value in record.values.items()},
        f"bold {style}" if rank == 1 and best is not None else style,
    )


def _repeats_row(rank: int, row: Repeats) -> _Row:
    return _Row(
        [
            str(rank) if row.mean is not None else MISSING,
            MISSING if row.mean is None else short(row.mean),
            MISSING if row.std is None else short(row.std),
            str(row.number),
        ],
        {key: short(value) for key, value in row.values.items()},
    )


def _numeric_keys(records: Iterable[TrialRecord], keys: Sequence[str]) -> set[str]:
    """Return the keys that never have a text or a list as their value."""
    wordy = {
        key
        for record in records
        for key, value in record.values.items()
        if not isinstance(value, int | float)
    }
    return set(keys) - wordy


def _left_out(number: int, what: str) -> list[str]:
    return [f"and {number} more {what}{'s' if number > 1 else ''}"] if number > 0 else []


def _fixed(records: Sequence[TrialRecord], varying: Sequence[str]) -> list[str]:
    same = [key for key in swept_keys(records) if key not in varying]
    if not same:
        return []
    values = (f"{key}={short(records[0].values[key])}" for key in same)
    return [f"the same in every trial: {'  '.join(values)}"]


def _errors(records: Iterable[TrialRecord]) -> list[str]:
    """Return a line for each different error with the trials that had it."""
    trials: dict[str, list[str]] = {}
    for record in records:
        if record.error:
            trials.setdefault(one_line(record.error), []).append(record.trial_id)
    lines = []
    for error, ids in list(trials.items())[:MOST_ERRORS]:
        others = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        lines.append(f"{ids[0]}{others}: {error}")
    return lines + _left_out(len(trials) - len(lines), "error")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _plain(sheet: _Sheet, width: int | None) -> str:
    from rich.console import Console

    columns = width or shutil.get_terminal_size((120, 24)).columns
    stream = io.StringIO()
    console = Console(file=stream, width=columns, color_system=None, force_terminal=False)
    console.print(sheet.fitted(columns, wrap=True))
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
