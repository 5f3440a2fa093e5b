"""A job's log, printed until the job has ended, and the exit code that follows from its end."""

import asyncio
import sys
import time

import aiohttp
import requests
from ray.job_submission import JobDetails, JobStatus

from leray.errors import LerayError
from leray.platform.jobs.client import JobServer

PATIENCE_S = 60.0
"""How long a lost connection is tried again."""
RETRY_S = 1.0
STOPPED = 130
"""Exit code of what was stopped, as of `leray train` itself."""


def follow(server: JobServer, submission_id: str) -> int:
    """Print a job's log, from its beginning to the job's end.

    Ctrl-C ends the printing and leaves the job as it is.

    Returns:
        The job's exit code; 130 when it was stopped, or Ctrl-C ended the printing.

    Raises:
        LerayError: the server has been away for a minute.
    """
    try:
        job = asyncio.run(_print_log(server, submission_id))
    except KeyboardInterrupt:
        print(f"\nthe job goes on.\n{next_steps(server, submission_id)}", file=sys.stderr)
        return STOPPED
    return report(job)


def next_steps(server: JobServer, submission_id: str) -> str:
    """Return the commands that follow and that stop a job."""
    which = f"--submission_id={submission_id} --address={server.address}"
    return f"follow it: leray jobs logs {which} --follow=true\nstop it:   leray jobs stop {which}"


def report(job: JobDetails) -> int:
    """Say on standard error how a job ended, and return its exit code."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        print(f"job {job.submission_id} was stopped", file=sys.stderr)
        return STOPPED
    code: int | None = job.driver_exit_code
    if code is None:
        reason = " ".join((job.message or "Ray does not say why").split())
        print(f"job {job.submission_id} did not run: {reason}", file=sys.stderr)
        return 1
    print(f"job {job.submission_id} failed, exit code {code}", file=sys.stderr)
    return code if code >= 0 else 128 - code  # as shells count those ended by a signal


async def _print_log(server: JobServer, submission_id: str) -> JobDetails:
    """Print a job's log and return the job, ended; go on where a connection is lost."""
    printed, lost_s = 0, None
    while True:
        seen = 0
        try:
            async for text in server.tail_job_logs(submission_id):  # from the log's beginning
                print(text[max(printed - seen, 0) :], end="", flush=True)
                seen += len(text)
                printed, lost_s = max(printed, seen), None
            job = server.get_job_info(submission_id)
            if job.status.is_terminal():
                return job
            lost_s = None
        except BrokenPipeError:  # the reader of what is printed has seen enough
            raise
        except (aiohttp.ClientError, requests.RequestException, OSError, RuntimeError) as error:
            lost_s = lost_s or time.monotonic()
            if time.monotonic() - lost_s > PATIENCE_S:
                raise LerayError(
                    f"{server.address}: the connection is lost ({error}); the job may go on. "
                    + next_steps(server, submission_id)
                ) from error
        await asyncio.sleep(RETRY_S)
