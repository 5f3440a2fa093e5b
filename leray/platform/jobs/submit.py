"""`leray submit`: a command as a job on a Ray cluster, with the code of the user's folder."""

import shlex
import sys
from pathlib import Path
from typing import Any

from leray.errors import ConfigError
from leray.platform.info import git_commit
from leray.platform.jobs.client import JobServer, connect, patiently, plain_errors
from leray.platform.jobs.config import SubmitConfig
from leray.platform.jobs.entrypoint import COMMAND_KEY, COMMIT_KEY, Entrypoint, make_entrypoint
from leray.platform.jobs.follow import follow, next_steps
from leray.platform.jobs.package import check_working_dir


def run(config: SubmitConfig) -> int:
    """Submit, and follow the job to its end if so asked.

    Returns:
        The job's exit code; 0 when it is not followed.

    Raises:
        ConfigError: the folder cannot be sent, or the cluster refuses the job.
        LerayError: the cluster does not answer.
    """
    working_dir = check_working_dir(config.working_dir)
    server = connect(config.resolved_address)
    with plain_errors(server.address):
        here = server.is_here()
        alone = here and not config.reserves  # it runs on the head, however many nodes there are
        num_nodes = 1 if alone else patiently(server.num_nodes)
        entrypoint = make_entrypoint(config, head_is_here=here, num_nodes=num_nodes)
        for warning in entrypoint.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        submission_id = _submit(server, _request(config, entrypoint, working_dir))
    print(f"job {submission_id} is submitted to {server.address}")
    if config.follow:
        sys.stdout.flush()
        return follow(server, submission_id)
    print(next_steps(server, submission_id))
    return 0


def _request(
    config: SubmitConfig, entrypoint: Entrypoint, working_dir: str | None
) -> dict[str, Any]:
    """Return what Ray's client is asked for."""
    runtime_env: dict[str, Any] = {"env_vars": entrypoint.env}
    metadata = {COMMAND_KEY: shlex.join(config.arguments)}
    if working_dir is not None:
        runtime_env["working_dir"] = working_dir
        commit = git_commit(Path(working_dir))  # the copy has no history
        if commit is not None:
            metadata[COMMIT_KEY] = commit
    return {
        "entrypoint": entrypoint.command,
        "submission_id": config.submission_id,
        "runtime_env": runtime_env,
        "metadata": metadata,
        "entrypoint_num_cpus": config.entrypoint_num_cpus or None,
        "entrypoint_num_gpus": config.entrypoint_num_gpus or None,
        "entrypoint_memory": config.entrypoint_memory or None,
        "entrypoint_resources": config.entrypoint_resources or None,
        "entrypoint_label_selector": config.entrypoint_label_selector or None,
    }


def _submit(server: JobServer, request: dict[str, Any]) -> str:
    try:
        submission_id: str = patiently(lambda: server.submit_job(**request))
    except RuntimeError as error:
        if "already exists" not in str(error):
            raise
        raise ConfigError(
            f"--submission_id={request['submission_id']}: there is such a job on this cluster; "
            "choose another name"
        ) from error
    return submission_id
