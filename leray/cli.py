"""The front door: `leray <command>` parses the options and calls one function."""

import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
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


_HELP = ("--help", "-h", "help")


@dataclass(frozen=True)
class Command:
    """A command: where its options and its function are, imported only when it is called."""

    about: str
    config: str
    """`module:class` of the options."""
    module: str
    """Module whose `run(config)` does the work."""
    takes_command: bool = False
    """Whether another command stands after `--`; the config gets it as `arguments`."""
    first_option: str | None = None
    """Option that is meant by a first argument without a name."""


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
    "sweep": Command(
        "Vary the options of a training and compare: Ray Tune, every trial in MLflow.",
        "leray.tune.config:SweepConfig",
        "leray.tune.sweep",
    ),
    "record": Command(
        "Record demonstrations as a LeRobot dataset.",
        "leray.platform.config:RecordConfig",
        "leray.platform.record",
    ),
    "dataset info": Command(
        "Tell what a dataset holds.",
        "leray.platform.dataset.info:InfoConfig",
        "leray.platform.dataset.info",
    ),
    "dataset check": Command(
        "Verify a dataset against every rule of the format, and mend what can be derived.",
        "leray.platform.dataset.check:CheckConfig",
        "leray.platform.dataset.check",
    ),
    "dataset convert": Command(
        "Write a dataset of any version as v3.0, without encoding videos again.",
        "leray.platform.dataset.convert:ConvertConfig",
        "leray.platform.dataset.convert",
    ),
    "dataset edit": Command(
        "Delete episodes, split, merge, rename tasks or remove features, into a new dataset.",
        "leray.platform.dataset.edit:EditConfig",
        "leray.platform.dataset.edit",
    ),
    "dataset viz": Command(
        "Look at a dataset: one page with videos and plots, for any browser.",
        "leray.platform.dataset.viz:VizConfig",
        "leray.platform.dataset.viz",
    ),
    "dataset push": Command(
        "Publish a dataset on the Hugging Face Hub.",
        "leray.platform.dataset.push:PushConfig",
        "leray.platform.dataset.push",
    ),
    "dataset pull": Command(
        "Fetch a dataset from the Hugging Face Hub.",
        "leray.platform.dataset.pull:PullConfig",
        "leray.platform.dataset.pull",
    ),
    "submit": Command(
        "Run a command as a job on a Ray cluster: `leray submit [options] -- train ...`.",
        "leray.platform.jobs.config:SubmitConfig",
        "leray.platform.jobs.submit",
        takes_command=True,
    ),
    "jobs list": Command(
        "Show the jobs of a Ray cluster.",
        "leray.platform.jobs.config:ListConfig",
        "leray.platform.jobs.listing",
    ),
    "jobs logs": Command(
        "Print what a job has said, and follow it.",
        "leray.platform.jobs.config:LogsConfig",
        "leray.platform.jobs.logs",
    ),
    "jobs stop": Command(
        "Stop a job: a run writes a checkpoint first.",
        "leray.platform.jobs.config:StopConfig",
        "leray.platform.jobs.stop",
    ),
    "cluster check": Command(
        "Verify a cluster's launch file (`ray up` YAML, KubeRay manifests) before it is started.",
        "leray.platform.cluster_check.check:ClusterCheckConfig",
        "leray.platform.cluster_check.check",
        first_option="file",
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
        130 when interrupted, else what the command says of its result. Defects raise, with their
        traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    name, rest = _split(arguments)
    prefix = f"leray {name}" if name in COMMANDS else "leray"
    code = 0
    try:
        code = _dispatch(name, rest)
        sys.stdout.flush()
    except LerayError as error:
        print(f"{prefix}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prefix}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the command's name, of two words where the first is a group's, and its arguments."""
    name = arguments[0] if arguments else "--help"
    groups = {known.split()[0] for known in COMMANDS if " " in known}
    if name in groups and len(arguments) > 1 and arguments[1] not in _HELP:
        return f"{name} {arguments[1]}", arguments[2:]
    return name, arguments[1:]


def _dispatch(name: str, arguments: list[str]) -> int:
    if name in _HELP:
        print(_overview(COMMANDS))
        return 0
    if members := {known: c for known, c in COMMANDS.items() if known.startswith(f"{name} ")}:
        print(_overview(members))
        return 0
    if name in ("--version", "version"):
        print(f"leray {leray.__version__}")
        return 0
    if name not in COMMANDS:
        raise _unknown(name)
    command = COMMANDS[name]
    config_class = _config_class(command)
    arguments = _named(command, arguments)
    inner: list[str] = []
    if command.takes_command and "--" in arguments:
        cut = arguments.index("--")
        arguments, inner = arguments[:cut], arguments[cut + 1 :]
    if "--help" in arguments or "-h" in arguments:
        from leray.platform.help import help_text

        print(help_text(config_class, arguments, command=name, about=command.about))
        return 0
    from leray.platform.parsing import parse

    if command.takes_command:
        _check_inner(inner, name)
    config = parse(config_class, arguments, command=name)
    if command.takes_command:
        config.arguments = inner
    return importlib.import_module(command.module).run(config) or 0


def _named(command: Command, arguments: list[str]) -> list[str]:
    """Give the first argument the name of the option that it is meant for."""
    if command.first_option and arguments and not arguments[0].startswith("-"):
        return [f"--{command.first_option}={arguments[0]}", *arguments[1:]]
    return arguments


def _config_class(command: Command) -> type[Any]:
    module, _, class_name = command.config.partition(":")
    config_class: type[Any] = getattr(importlib.import_module(module), class_name)
    return config_class


def _check_inner(arguments: list[str], outer: str) -> None:
    """Refuse a command to be run elsewhere that would not be understood there."""
    if not arguments:
        raise ConfigError(
            f"what to run is missing: give it after --, as in `leray {outer} -- train "
            "--policy.type=sac --env.type=gym --env.task=<id>`"
        )
    name, rest = _split(arguments)
    if name not in COMMANDS:
        raise _unknown(name)
    rest = _named(COMMANDS[name], rest)
    if COMMANDS[name].takes_command or name.startswith("jobs "):
        raise ConfigError(f"{name}: speaks to a cluster from outside, it is not run in one")
    from leray.platform.parsing import check

    if "--help" not in rest and "-h" not in rest:
        check(_config_class(COMMANDS[name]), rest, command=name)


def _overview(commands: Mapping[str, Command]) -> str:
    width = max(len(name) for name in commands)
    lines = [
        "usage: leray <command> [--option=value ...]",
        "",
        "Train robot policies on Ray.",
        "",
        *(f"  {name:<{width}}  {command.about}" for name, command in commands.items()),
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
