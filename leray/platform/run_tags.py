"""Tags of every MLflow run: which code, which machine, which Ray job."""

import getpass
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import leray
from leray.platform.info import git_commit

RAY_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable in which Ray tells a submitted job what it is."""


def run_tags() -> dict[str, str]:
    """Return the tags of a run that this process starts; asks git, which takes a moment."""
    return {**_machine_tags(), **_code_tags(), **ray_tags()}


def ray_tags() -> dict[str, str]:
    """Return `ray.job_id`, and `ray.submission_id` in a submitted job; nothing without Ray."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return {}
    tags = {"ray.job_id": str(ray.get_runtime_context().get_job_id())}
    submission_id = _submission_id()
    return tags if submission_id is None else {**tags, "ray.submission_id": submission_id}


def _submission_id() -> str | None:
    try:
        return str(json.loads(os.environ[RAY_JOB_CONFIG])["metadata"]["job_submission_id"])
    except (KeyError, TypeError, ValueError):
        return None


def _machine_tags() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "mlflow.source.name": " ".join(sys.argv)[:500],
        "mlflow.user": _user(),
    }


def _code_tags() -> dict[str, str]:
    tags = {"leray.version": leray.__version__}
    package, here = git_commit(Path(leray.__file__).parent), git_commit(Path.cwd())
    if package is not None:
        tags["leray.git_commit"] = package
    if here is not None or package is not None:
        tags["mlflow.source.git.commit"] = (here or package or "").removesuffix("-dirty")
        tags["git_commit"] = here or package or ""
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return "unknown"
