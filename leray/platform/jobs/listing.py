"""`leray jobs list`: the jobs of a cluster, the newest last."""

import datetime
import time
from collections.abc import Sequence

from ray.job_submission import JobDetails

from leray.platform.jobs.client import connect, plain_errors
from leray.platform.jobs.config import ListConfig
from leray.platform.jobs.entrypoint import COMMAND_KEY

TITLES = ("id", "status", "started", "duration", "command")


def run(config: ListConfig) -> None:
    """Print a table of the jobs.

    Raises:
        ConfigError: no cluster answers, or it refuses the token.
    """
    server = connect(config.resolved_address)
    with plain_errors(server.address):
        jobs = [job for job in server.list_jobs() if job.submission_id]
    if not jobs:
        print(f"no jobs at {server.address}; `leray submit -- <command>` makes one")
        return
    for line in table(jobs, now_s=time.time()):
        print(line)


def table(jobs: Sequence[JobDetails], *, now_s: float) -> list[str]:
    """Return the lines of the table.

    Args:
        jobs: in any order.
        now_s: Unix time, until which jobs that have not ended have lasted.
    """
    ordered = sorted(jobs, key=lambda job: job.start_time or 0)
    rows = [TITLES, *(_row(job, now_s) for job in ordered)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(job: JobDetails, now_s: float) -> tuple[str, ...]:
    command = (job.metadata or {}).get(COMMAND_KEY, job.entrypoint)
    printable = "".join(char if char.isprintable() else "?" for char in command)
    if job.start_time is None:
        return (str(job.submission_id), job.status.value, "-", "-", printable)
    start_s = job.start_time / 1000
    end_s = now_s if job.end_time is None else job.end_time / 1000
    lasted = datetime.timedelta(seconds=max(round(end_s - start_s), 0))
    started = datetime.datetime.fromtimestamp(start_s).strftime("%Y-%m-%d %H:%M:%S")
    return (str(job.submission_id), job.status.value, started, str(lasted), printable)
