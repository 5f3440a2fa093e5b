"""The front door: `leray <command>` parses the options and calls one function."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import leray
from leray.errors import ConfigError, LerayError

QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}
"""Environment settings made before Ray is imported; those already set are kept."""


@dataclass(frozen=True)
class Command:
    """A command: where its options and its function are, imported only when it is called."""

    about: str
    config: str
    """`module:class` of the options."""
    module: str
    """Module whose `run(config)` does the work."""


COMMANDS = {
    "train": Command(
        "Train a policy: online in an environment, offline on a dataset, or both.",
        "leray.platform.config:TrainConfig",
        "leray.platform.train",
    ),
    "eval": Command(
        "Judge a trained policy: deterministic episodes, success, return, videos.",
        "leray.platform.config:EvalRunConfig",
        "leray.platform.evaluate",
    ),
    "record": Command(
        "Record demonstrations as a LeRobot dataset.",
        "leray.platform.config:RecordConfig",
        "leray.platform.record",
    ),
    "ui": Command(
        "Compare runs in MLflow's pages.", "leray.platform.ui:UiConfig", "leray.platform.ui"
    ),
    "info": Command(
        "Show versions, devices and extras: what a bug report needs.",
        "leray.platform.info:InfoConfig",
        "leray.platform.info",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 2 for an error in what was given (one line on standard error),
        130 when interrupted. Defects raise, with their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    name = arguments[0] if arguments else "--help"
    prefix = f"leray {name}" if name in COMMANDS else "leray"
    try:
        _dispatch(name, arguments[1:])
        sys.stdout.flush()
    except LerayError as error:
        print(f"{prefix}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prefix}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _dispatch(name: str, arguments: list[str]) -> None:
    if name in ("--help", "-h", "help"):
        print(_overview())
        return
    if name in ("--version", "version"):
        print(f"leray {leray.__version__}")
        return
    if name not in COMMANDS:
        raise _unknown(name)
    command = COMMANDS[name]
    module, _, class_name = command.config.partition(":")
    config_class: type[Any] = getattr(importlib.import_module(module), class_name)
    if "--help" in arguments or "-h" in arguments:
        from leray.platform.help import help_text

        print(help_text(config_class, arguments, command=name, about=command.about))
        return
    from leray.platform.parsing import parse

    config = parse(config_class, arguments, command=name)
    importlib.import_module(command.module).run(config)


def _overview() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [
        "usage: leray <command> [--option=value ...]",
        "",
        "Train robot policies on Ray.",
        "",
        *(f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()),
        "",
        "`leray <command> --help` explains every option; `leray --version` prints the version.",
    ]
    return "\n".join(lines)


def _unknown(name: str) -> ConfigError:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return ConfigError(
        f"{name}: unknown command; {hint}Commands are {', '.join(COMMANDS)}; "
        "`leray --help` explains them"
    )
