"""What `leray submit` and `leray jobs` may be told."""

import os
import re
from dataclasses import dataclass, field

from leray.algorithms.config import require

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(kw_only=True)
class JobServerConfig:
    """Which cluster is meant."""

    address: str | None = None
    """Job server of the cluster; `null` takes `$RAY_API_SERVER_ADDRESS` or `$RAY_ADDRESS` where it
    is http, else http://127.0.0.1:8265."""

    def __post_init__(self) -> None:
        """Check that the address can be one of a job server."""
        require(
            self.address is None or self.address.startswith(("http://", "https://")),
            f"--address={self.address}: give the job server's address, as in {DEFAULT_ADDRESS}",
        )

    @property
    def resolved_address(self) -> str:
        """The address in force, without a slash at its end."""
        known = [self.address, *(os.environ.get(name) for name in ADDRESS_VARIABLES)]
        address = next((one for one in known if (one or "").startswith("http")), None)
        return (address or DEFAULT_ADDRESS).rstrip("/")


@dataclass(kw_only=True)
class SubmitConfig(JobServerConfig):
    """Everything `leray submit` is told."""

    follow: bool = True
    """Print the job's log until it ends, and exit with the job's exit code."""
    working_dir: str | None = "."
    """Folder whose content the job and its workers get, less what `.gitignore` and `.rayignore`
    name, 512 MiB at most; or the address of a zip file; `null` sends none."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the job and its workers: `--env.NAME=value`."""
    submission_id: str | None = None
    """Name of the job, new on this cluster; `null` takes one at random."""
    python: str | None = None
    """Python that runs the command on the node; `null` takes `python`, or this one where the
    cluster's head is this machine."""
    stop_wait_s: int = 600
    """Seconds that the job may take to write its checkpoint when it is stopped."""
    entrypoint_num_cpus: float = 0.0
    """Ray CPUs reserved for the command itself; with any of these, it may run on any node."""
    entrypoint_num_gpus: float = 0.0
    """Ray GPUs reserved for the command itself, which sees only those."""
    entrypoint_memory: int = 0
    """Bytes of memory reserved for the command itself."""
    entrypoint_resources: dict[str, float] = field(default_factory=dict)
    """Further Ray resources reserved for the command itself: `--entrypoint_resources.robot=1`."""
    entrypoint_label_selector: dict[str, str] = field(default_factory=dict)
    """Labels of the node that runs the command: `--entrypoint_label_selector.site=lab`."""
    arguments: list[str] = field(default_factory=list, init=False)
    """The command to run, which stands after `--`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(
            self.submission_id is None or is_submission_id(self.submission_id),
            f"--submission_id={self.submission_id}: give letters, digits and any of . _ -",
        )
        for name in ("stop_wait_s", "entrypoint_num_cpus", "entrypoint_num_gpus"):
            value = getattr(self, name)
            require(value >= 0, f"--{name}={value}: give a number >= 0")
        require(
            self.entrypoint_memory >= 0,
            f"--entrypoint_memory={self.entrypoint_memory}: give a number of bytes >= 0",
        )

    @property
    def reserves(self) -> bool:
        """Whether the command asks for something of its node, and may so run on any."""
        numbers = (self.entrypoint_num_cpus, self.entrypoint_num_gpus, self.entrypoint_memory)
        return any((*numbers, self.entrypoint_resources, self.entrypoint_label_selector))


@dataclass(kw_only=True)
class ListConfig(JobServerConfig):
    """Everything `leray jobs list` is told."""


@dataclass(kw_only=True)
class OneJobConfig(JobServerConfig):
    """Which job of the cluster is meant."""

    submission_id: str
    """The job's name, as `leray jobs list` shows it."""

    def __post_init__(self) -> None:
        """Check that it can be a job's name."""
        super().__post_init__()
        require(
            is_submission_id(self.submission_id),
            f"--submission_id={self.submission_id}: not a job's name; `leray jobs list` shows them",
        )


@dataclass(kw_only=True)
class LogsConfig(OneJobConfig):
    """Everything `leray jobs logs` is told."""

    follow: bool = False
    """Go on until the job ends, and exit with its exit code."""


@dataclass(kw_only=True)
class StopConfig(OneJobConfig):
    """Everything `leray jobs stop` is told."""

    timeout_s: float = 900.0
    """Seconds to wait for the job's end."""


def is_submission_id(text: str) -> bool:
    """Tell whether a text may be a job's name, which is part of addresses and file names."""
    return re.fullmatch(r"[\w.-]+", text, re.ASCII) is not None
