"""A cluster's job server, and what may go wrong with it in one line each."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
import requests
from packaging.version import Version
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from leray.errors import ConfigError, LerayError
from leray.platform.jobs.config import ADDRESS_VARIABLES

NOT_READY = "No available agent"
"""What a job server answers in the first seconds of a cluster."""
READY_WITHIN_S = 90.0
"""How long a cluster that has just started may take to accept a job."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
T = TypeVar("T")


class JobServer(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client, and what it does not tell of its cluster.

    Args:
        address: of the job server, `http://host:port`.
    """

    def __init__(self, address: str) -> None:
        for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.ERROR)
        known = os.environ.get(ADDRESS_VARIABLES[0])
        os.environ[ADDRESS_VARIABLES[0]] = address  # Ray prefers it to the address it is given
        try:
            super().__init__(address)
        finally:
            del os.environ[ADDRESS_VARIABLES[0]]
            if known is not None:
                os.environ[ADDRESS_VARIABLES[0]] = known
        self.address = address

    def version(self) -> dict[str, str]:
        """Return what the cluster says of itself: `ray_version`, `session_name`."""
        found: dict[str, str] = self._read("/api/version")
        return found

    def num_nodes(self) -> int:
        """Return how many nodes are alive."""
        summary: list[dict[str, Any]] = self._read("/nodes?view=summary")["data"]["summary"]
        return sum(node.get("raylet", {}).get("state") == "ALIVE" for node in summary)

    def is_here(self) -> bool:
        """Tell whether the cluster's head is this machine.

        An address on loopback does not say so, it may be the end of a tunnel; the process of the
        head that knows the cluster's session does.
        """
        from ray._private.services import psutil  # Ray brings its own

        session = f"--session-name={self.version()['session_name']}"
        commands = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
        return any("gcs_server" in command[0] and session in command for command in commands)

    def _read(self, path: str) -> Any:
        answer = self._do_request("GET", path)
        answer.raise_for_status()
        return answer.json()


def connect(address: str) -> JobServer:
    """Return the job server at an address.

    Raises:
        ConfigError: none answers there, or it refuses the token.
    """
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not os.access(path, os.R_OK):  # Ray would end this process
        raise ConfigError(f"RAY_AUTH_TOKEN_PATH={path}: no such file, or not readable")
    with plain_errors(address):
        server = patiently(lambda: JobServer(address))
        theirs = patiently(server.version)["ray_version"]
    if Version(theirs).release[:2] != Version(ray.__version__).release[:2]:
        print(
            f"warning: {address} runs Ray {theirs}, this machine Ray {ray.__version__}: "
            "the job runs with the former",
            file=sys.stderr,
        )
    return server


def find_job(server: JobServer, submission_id: str) -> JobDetails:
    """Return what a job server knows of a job.

    Raises:
        ConfigError: it knows no such job.
    """
    with plain_errors(server.address):
        known = {job.submission_id: job for job in server.list_jobs()}
    if submission_id not in known:
        raise ConfigError(
            f"--submission_id={submission_id}: {server.address} knows no such job; "
            "`leray jobs list` shows those it knows"
        )
    return known[submission_id]


def patiently(action: Callable[[], T]) -> T:
    """Return what an action returns; tried again while the cluster is too young for it."""
    pause_s, deadline = FIRST_PAUSE_S, time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return action()
        except (RuntimeError, requests.HTTPError) as error:
            young = NOT_READY in str(error) or _fails(error)
            if not young or time.monotonic() > deadline:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _fails(error: Exception) -> bool:
    """Tell whether a server says that the fault is its own."""
    answer = error.response if isinstance(error, requests.HTTPError) else None
    return answer is not None and answer.status_code >= 500


@contextmanager
def plain_errors(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line.

    Raises:
        ConfigError: the server does not answer, or refuses the token or the request.
        LerayError: the server failed.
    """
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(
            f"{address}: the cluster refuses the token; put the one that `ray get-auth-token` "
            "shows on its head into RAY_AUTH_TOKEN, or into a file that RAY_AUTH_TOKEN_PATH names, "
            "and set RAY_AUTH_MODE=token"
        ) from error
    except (requests.RequestException, KeyError) as error:
        raise ConfigError(
            f"{address}: does not answer as a Ray job server does: {_last_line(str(error))}"
        ) from error
    except ConnectionError as error:
        raise ConfigError(
            f"{address}: no Ray job server answers; start a cluster with `ray start --head`, or "
            "name another with --address=http://<head>:8265"
        ) from error
    except RuntimeError as error:
        raise LerayError(f"{address}: {_last_line(str(error))}") from error


def _last_line(text: str) -> str:
    """Return what a traceback ends in, or the text itself."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .")]
    return lines[-1] if lines else "the server failed and does not say how"
