"""What a check of launch files finds, by file and line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leray.platform.cluster_check.documents import Entry

Severity = Literal["error", "note"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong, or worth knowing, and where it stands."""

    line: int
    """Counted from 1."""
    message: str
    """What is wrong, and what to do."""
    severity: Severity = "error"
    """An error makes the cluster fail, or open to strangers; a note stops nothing."""


class Findings:
    """Gathers findings in one file; the same one twice counts once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: set[Finding] = set()

    def error(self, where: Entry | int, message: str) -> None:
        """Add something that has to be mended."""
        self._add(where, message, "error")

    def note(self, where: Entry | int, message: str) -> None:
        """Add something worth knowing."""
        self._add(where, message, "note")

    def _add(self, where: Entry | int, message: str, severity: Severity) -> None:
        line = where if isinstance(where, int) else where.line
        self._found.add(Finding(line, " ".join(message.split()), severity))

    @property
    def errors(self) -> list[Finding]:
        """What has to be mended, by line."""
        return sorted(each for each in self._found if each.severity == "error")

    @property
    def notes(self) -> list[Finding]:
        """What is worth knowing, by line."""
        return sorted(each for each in self._found if each.severity == "note")

    def text(self) -> str:
        """Return one line per finding, errors first, and a line that counts them."""
        lines = [f"{self.file}:{each.line}: {each.message}" for each in self.errors]
        lines += [f"{self.file}:{each.line}: note: {each.message}" for each in self.notes]
        errors, notes = len(self.errors), len(self.notes)
        counts = [f"{errors} to mend" if errors else "nothing to mend"]
        counts += [f"{notes} note{'s' if notes > 1 else ''}"] if notes else []
        return "\n".join([*lines, f"{self.file}: {', '.join(counts)}"])
