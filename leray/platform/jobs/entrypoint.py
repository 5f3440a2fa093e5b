"""The shell command of a job, where it runs, and with which environment."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leray.platform.jobs.config import SubmitConfig

KEEPS_RESULTS = ("train", "eval", "sweep")
"""Commands that write to `--output_dir`."""
TRACKING_URI = "MLFLOW_TRACKING_URI"
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Where Ray reads how long a stopped job may go on; its own 3 s are too few for a checkpoint."""
COMMAND_KEY, COMMIT_KEY = "leray_command", "git_commit"
"""Metadata of a job: the command as the user wrote it, the commit its code was at."""


@dataclass(frozen=True)
class Entrypoint:
    """What Ray is given to run."""

    command: str
    """For the node's shell."""
    env: dict[str, str]
    """Environment variables of the job and its workers."""
    warnings: list[str]
    """What will be lost with the job, one line each."""


def make_entrypoint(config: SubmitConfig, *, head_is_here: bool, num_nodes: int) -> Entrypoint:
    """Decide how a command runs on a cluster.

    A job's own working directory is a copy that goes with the job. Where the command will run on
    this machine, it runs in the user's folder instead, so that relative paths mean what they mean
    without a cluster; code still comes from the copy. Elsewhere, relative paths mean places in the
    copy, and results kept there are warned of.

    Args:
        config: of `leray submit`.
        head_is_here: whether the cluster's head, which runs what reserves nothing, is this machine.
        num_nodes: of the cluster.
    """
    runs_here = head_is_here and (num_nodes <= 1 or not config.reserves)
    python = config.python or (sys.executable if runs_here else "python")
    command = shlex.join([python, "-m", "leray", *config.arguments])
    env = {STOP_WAIT: str(config.stop_wait_s), **config.env}
    if runs_here:  # a safe path is one without the current folder
        command = f"cd {shlex.quote(os.getcwd())} && exec env PYTHONSAFEPATH=1 {command}"
    uri = os.environ.get(TRACKING_URI)
    if uri and (runs_here or uri.startswith("http")):
        env.setdefault(TRACKING_URI, uri)
    warnings = [] if runs_here else _losses(config.arguments, env, num_nodes)
    return Entrypoint(command, env, warnings)


def option(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of an option on a command line, the last one if there are several."""
    value = None
    for token, following in zip(arguments, [*arguments[1:], ""], strict=True):
        key, equals, text = token.partition("=")
        if key == f"--{name}":
            value = text if equals else following
    return value


def _losses(arguments: Sequence[str], env: dict[str, str], num_nodes: int) -> list[str]:
    """Say which results will be kept in the job's copy of the folder only."""
    if arguments[0] not in KEEPS_RESULTS:
        return []
    warnings = []
    resumed = option(arguments, "config_path") if option(arguments, "resume") else None
    folder = option(arguments, "output_dir") or resumed or ""
    nodes = "a node" if num_nodes <= 1 else f"one of {num_nodes} nodes"
    if not (Path(folder).is_absolute() or "://" in folder):
        shared = "" if num_nodes <= 1 else " that all nodes share, or s3://..."
        warnings.append(
            f"results go to {folder or 'outputs'} in the job's copy of the working directory, on "
            f"{nodes}, and are lost with it: give --output_dir=<absolute path{shared}> after --"
        )
    tracked = option(arguments, "mlflow.enable") != "false"
    if tracked and not (option(arguments, "mlflow.tracking_uri") or env.get(TRACKING_URI)):
        warnings.append(
            "metrics go to outputs/mlflow.db in that copy: set --env.MLFLOW_TRACKING_URI="
            "http://<server>, or give --mlflow.enable=false after --"
        )
    return warnings
