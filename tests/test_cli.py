"""The front door: what is called with what, exit codes, and one-line errors."""

import importlib
import os
import subprocess
import sys
import types
from typing import Any

import pytest

import leray
from leray import cli
from leray.errors import CheckpointError
from leray.platform.config import EvalRunConfig, RecordConfig, TrainConfig

TRAIN = ["train", "--policy.type=sac", "--env.type=gym", "--env.task=Reach-v0"]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put stand-ins where the commands' modules are imported from; return what they were given."""
    configs: list[Any] = []
    for command in ("train", "eval", "record"):
        name = cli.COMMANDS[command].module
        module = types.ModuleType(name)
        module.run = configs.append  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return configs


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(config: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules[cli.COMMANDS["train"].module], "run", run)


def test_each_command_runs_with_its_config(called: list[Any]) -> None:
    assert cli.main(TRAIN) == 0
    assert cli.main(["eval", "--policy.path=run"]) == 0
    assert cli.main(["record", *TRAIN[2:], "--dataset.root=data"]) == 0
    assert [type(config) for config in called] == [TrainConfig, EvalRunConfig, RecordConfig]


def test_a_dataset_command_has_two_words_and_its_result_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[Any] = []

    def run(config: Any) -> int:
        given.append(config)
        return 1

    module = importlib.import_module("leray.platform.dataset.check")
    monkeypatch.setattr(module, "run", run)
    assert cli.main(["dataset", "check", "--root=demos"]) == 1
    assert str(given[0].root) == "demos"
    assert cli.main(["dataset", "--help"]) == cli.main(["dataset"]) == 0
    listed = capsys.readouterr().out
    assert "dataset viz" in listed
    assert "train" not in listed.split("Train robot policies")[1]
    assert cli.main(["dataset", "checks"]) == 2
    assert "did you mean dataset check?" in capsys.readouterr().err


def test_errors_in_the_options_are_one_line_and_exit_code_2(
    called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*TRAIN, "--stepz=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "leray train: error: --stepz: unknown flag; did you mean --steps? "
        "`leray train --help` lists all\n"
    )
    assert called == []


def test_errors_of_the_run_are_one_line_too(
    called: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, CheckpointError("first\n  second"))
    assert cli.main(TRAIN) == 2
    assert capsys.readouterr().err == "leray train: error: first second\n"


def test_an_interruption_is_130_and_a_defect_is_raised(
    called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(TRAIN) == 130
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(TRAIN)


def test_version_and_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"leray {leray.__version__}\n"
    for argv in ([], ["--help"], ["-h"]):
        assert cli.main(argv) == 0
        overview = capsys.readouterr().out
        assert all(f"\n  {name} " in overview for name in cli.COMMANDS)


def test_help_of_a_command_wins_over_wrong_options(
    called: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--stepz=1", "--help"]) == 0
    assert "--steps  (a whole number; default 100000)" in capsys.readouterr().out
    assert called == []


@pytest.mark.parametrize(
    ("given", "hint"), [("trian", "did you mean train? "), ("--steps=3", ""), ("zzz", "")]
)
def test_an_unknown_command(given: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"leray: error: {given}: unknown command; {hint}Commands are train, ")


def test_ray_is_quietened_unless_told_otherwise(
    called: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in cli.QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")
    cli.main(TRAIN)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_DEDUP_LOGS"] == "0"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_it_runs_as_a_module() -> None:
    assert python("-m", "leray", "--version").stdout == f"leray {leray.__version__}\n"
    assert python("-m", "leray", "trian").returncode == 2


def test_a_reader_that_stops_early_causes_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "leray", "train", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_leray_is_light() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'mujoco', 'numpy', 'yaml'}"
    program = f"import sys, leray.cli, leray.platform; sys.exit(str({heavy} & set(sys.modules)))"
    assert python("-c", program).stderr == "set()\n"
