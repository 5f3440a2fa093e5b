"""Copies of the real launch files, with one thing changed."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from leray.platform.cluster_check.check import check_file
from leray.platform.cluster_check.findings import Findings

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Variant:
    """A launch file with one thing changed."""

    file: Path
    changed: int
    """The line that was changed; counted from 1."""
    findings: Findings

    def line_of(self, text: str) -> int:
        """Return the only line that holds a text."""
        lines = self.file.read_text().splitlines()
        found = [number for number, line in enumerate(lines, 1) if text in line]
        assert len(found) == 1, f"{text!r} is in lines {found}"
        return found[0]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with a token, and the repository's root as the current folder."""
    folder = tmp_path / "home"
    (folder / ".ray").mkdir(parents=True)
    (folder / ".ray" / "auth_token").write_text("a" * 64)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(ROOT)
    return folder


@pytest.fixture
def vary(tmp_path, home):
    """Change the first place where a text stands in a launch file, and check the outcome."""

    def make(name: str, old: str, new: str, *, train_config: Path | None = None) -> Variant:
        folder = tmp_path / "cluster"
        shutil.copytree(ROOT / "cluster", folder, dirs_exist_ok=True)
        file = folder / name
        text = file.read_text()
        assert old in text, f"{old!r} is not in {name}"
        file.write_text(text.replace(old, new, 1))
        line = text[: text.index(old)].count("\n") + 1
        return Variant(file, line, check_file(file, train_config=train_config))

    return make
