"""The help text: complete, grouped, and made without loading anything heavy."""

import subprocess
import sys

import pytest

from leray.platform.config import RecordConfig, TrainConfig
from leray.platform.help import help_text
from leray.platform.schema import field_help, options
from leray.platform.ui import UiConfig


def train_help(*argv: str) -> str:
    return help_text(TrainConfig, argv, command="train", about="Train a policy.")


def test_every_option_is_listed_with_type_default_and_explanation() -> None:
    text = train_help()
    for option in options(TrainConfig):
        assert f"--{option.key}  (" in text
        assert option.help, f"{option.key} has no explanation"
    flat = " ".join(text.split())
    assert "--steps (a whole number; default 100000) Environment steps to train for;" in flat
    assert "--runners.clock (one of sync, async or null; default null)" in flat


def test_required_options_say_so() -> None:
    text = help_text(RecordConfig, [], command="record", about="Record.")
    assert "--dataset.root  (a path; required)" in text


def test_options_are_grouped_and_a_chosen_kind_hides_the_others() -> None:
    every = train_help()
    assert "--policy.*, with --policy.type=sac" in every
    assert every.index("\nthe run\n") < every.index("\n--policy.*\n") < every.index("\n--env.*\n")
    for argv in (["--env.type=gym"], ["--env.type", "gym"]):
        assert "with --env.type=panda_gym" not in train_help(*argv)


def test_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = train_help().splitlines()
    assert max(len(line) for line in lines if "--policy" not in line) <= 60


def test_explanations_come_from_below_the_fields() -> None:
    assert field_help(UiConfig)["port"] == "TCP port to listen on."
    clock = field_help(type(TrainConfig.__dataclass_fields__["runners"].default_factory()))["clock"]
    assert "\n" not in clock
    assert clock.endswith("`async` otherwise.")


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from leray.cli import main\n"
        "for command in ('train', 'eval', 'record', 'ui', 'info'):\n"
        "    assert main([command, '--help']) == 0\n"
        "assert main(['--help']) == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'mujoco', 'pyarrow', 'pandas', 'gymnasium'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
