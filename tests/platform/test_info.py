"""`leray info`: real facts about this machine, as a table and as JSON."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

import leray
from leray.platform import info
from leray.platform.info import InfoConfig, collect, git_commit, run


def test_facts_are_those_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    run(InfoConfig(json=True))
    facts = json.loads(capsys.readouterr().out)
    assert facts["leray"] == leray.__version__
    assert facts["python"] == platform.python_version()
    assert facts["ray"] == version("ray")
    assert facts["mlflow"] == version("mlflow")
    assert facts["cpus"] >= 1
    assert facts["memory_gib"] > 0
    assert isinstance(facts["cuda"]["devices"], list)
    assert facts["cuda"]["torch_built_for"]


def test_the_table_has_a_line_per_fact(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"ray": None, "cuda": {"devices": []}, "extras": {"dev": True}, "python": "3.11"}
    monkeypatch.setattr(info, "collect", lambda: facts)
    run(InfoConfig())
    assert capsys.readouterr().out.splitlines() == [
        "ray     not found",
        "cuda    devices: none",
        "extras  dev: True",
        "python  3.11",
    ]


def test_a_missing_package_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "PACKAGES", ("surely-not-installed",))
    monkeypatch.setattr(info, "_rendering", lambda: "skipped")
    assert collect()["surely-not-installed"] is None


def test_rendering_says_when_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "PROBE", "raise SystemExit(1)")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert info._rendering() == "none of egl, osmesa, glfw works: install libEGL or libOSMesa"
    monkeypatch.setattr(info, "PROBE", "import os; assert os.environ['MUJOCO_GL'] == 'osmesa'")
    assert info._rendering() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert info._rendering() == "osmesa (MUJOCO_GL)"


def test_git_commit_of_a_folder(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert git_commit(tmp_path) is None
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
