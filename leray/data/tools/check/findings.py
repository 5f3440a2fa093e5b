"""What a check finds, and the report made of it."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Worst first. An error makes a reader fail or read something wrong; a warning is a statement that
is false or lacking, while frames are read right; a note is worth knowing, nothing is wrong."""

_KEPT = 1000
"""Findings of one kind that are kept; the rest is only counted."""
_SHOWN = 5
"""Findings of one kind that the text shows."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or worth knowing, and where."""

    severity: Severity
    code: str
    """The kind of finding, such as `totals`."""
    message: str
    """What was found, and what was expected."""
    file: str | None = None
    """Relative to the dataset's folder."""
    episode: int | None = None
    column: str | None = None
    """Name of a feature or column."""
    repairable: bool = False
    """Whether the repair can mend it."""
    blocks: bool = False
    """Whether the dataset cannot be read because of it."""

    @property
    def where(self) -> str:
        """File, episode and column, as far as they are known."""
        episode = None if self.episode is None else f"episode {self.episode}"
        return ", ".join(part for part in (self.file, episode, self.column) if part is not None)


class Findings:
    """Gathers findings while a check runs; memory does not grow with their number."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[tuple[Severity, str]] = Counter()
        self.blocks = False

    def error(self, code: str, message: str, **where: Any) -> None:
        """Add a finding that makes readers fail or read something wrong; see `Finding`."""
        self._add("error", code, message, **where)

    def warning(self, code: str, message: str, **where: Any) -> None:
        """Add a finding about a statement that is false or lacking; see `Finding`."""
        self._add("warning", code, message, **where)

    def note(self, code: str, message: str, **where: Any) -> None:
        """Add a finding that is worth knowing; see `Finding`."""
        self._add("note", code, message, **where)

    def _add(
        self,
        severity: Severity,
        code: str,
        message: str,
        *,
        file: str | None = None,
        episode: int | None = None,
        column: str | None = None,
        repairable: bool = False,
        blocks: bool = False,
    ) -> None:
        self.blocks |= blocks
        self.counts[severity, code] += 1
        if self.counts[severity, code] > _KEPT:
            return
        self.kept.append(
            Finding(
                severity=severity,
                code=code,
                message=printable(message),
                file=None if file is None else printable(file),
                episode=episode,
                column=None if column is None else printable(column),
                repairable=repairable,
                blocks=blocks,
            )
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check."""

    root: str
    summary: str
    """One line on what the dataset is; empty when that cannot be told."""
    findings: list[Finding]
    """Worst first, at most a thousand of each kind."""
    counts: dict[tuple[Severity, str], int]
    """How many there are of each severity and code."""
    is_usable: bool
    """Whether the dataset can be opened and read."""

    @property
    def exit_code(self) -> int:
        """0 without errors and warnings (notes are allowed), 1 with some, 2 when it is unusable."""
        if not self.is_usable:
            return 2
        return int(any(severity != "note" for severity, _ in self.counts))

    def repairable(self) -> set[str]:
        """Return the codes of findings that the repair can mend."""
        return {finding.code for finding in self.findings if finding.repairable}

    def text(self) -> str:
        """Return the report for people: grouped by kind, worst first, long repeats folded."""
        lines = [f"{self.root}: {self.summary}" if self.summary else self.root, self._headline()]
        for (severity, code), count in self.counts.items():
            group = [f for f in self.findings if (f.severity, f.code) == (severity, code)]
            lines += ["", f"{severity} {code}" + (f" ({count:,})" if count > 1 else "")]
            lines += [_line(finding) for finding in group[:_SHOWN]]
            if count > _SHOWN:
                lines.append(f"  and {count - _SHOWN:,} more")
        if self.repairable():
            lines += ["", "[*] can be mended: --repair=true keeps the old files beside the new"]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "root": self.root,
            "summary": self.summary,
            "exit_code": self.exit_code,
            "counts": [
                {"severity": severity, "code": code, "count": count}
                for (severity, code), count in self.counts.items()
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }

    def _headline(self) -> str:
        totals = {
            severity: sum(n for (kind, _), n in self.counts.items() if kind == severity)
            for severity in SEVERITIES
        }
        parts = [f"{n:,} {name}{'s' if n > 1 else ''}" for name, n in totals.items() if n]
        headline = ", ".join(parts) or "nothing found"
        return headline if self.is_usable else f"it cannot be used: {headline}"


def make_report(root: Path, summary: str, findings: Findings) -> Report:
    """Order what was gathered: worst first, then by kind in the order of first appearance."""
    first = {key: number for number, key in enumerate(findings.counts)}
    ordered = sorted(findings.counts, key=lambda key: (SEVERITIES.index(key[0]), first[key]))
    rank = {key: number for number, key in enumerate(ordered)}
    return Report(
        root=printable(str(root)),
        summary=printable(summary),
        findings=sorted(findings.kept, key=lambda f: (rank[f.severity, f.code], not f.blocks)),
        counts={key: findings.counts[key] for key in ordered},
        is_usable=not findings.blocks,
    )


def printable(text: str) -> str:
    """Escape what could steer a terminal or cannot be encoded, and fold it into one line."""
    flat = " ".join(text.split())
    return flat if flat.isprintable() else "".join(map(_escaped, flat))


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _line(finding: Finding) -> str:
    where = f"{finding.where}: " if finding.where else ""
    return f"  {where}{finding.message}{' [*]' if finding.repairable else ''}"
