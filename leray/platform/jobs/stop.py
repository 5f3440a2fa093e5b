"""`leray jobs stop`: a job asked to end, and waited for."""

import time

from leray.errors import LerayError
from leray.platform.jobs.client import connect, find_job, plain_errors
from leray.platform.jobs.config import StopConfig

POLL_S = 0.5
LAST_LINES = 3
"""Lines of the log that are shown: a run stopped in good order says there how it goes on."""


def run(config: StopConfig) -> None:
    """Stop a job, wait until it has ended, and show the last it said.

    Raises:
        ConfigError: there is no such job or cluster, or the cluster refuses the token.
        LerayError: the job has not ended in time.
    """
    name = config.submission_id
    server = connect(config.resolved_address)
    job = find_job(server, name)
    if job.status.is_terminal():
        print(f"job {name} has already ended: {job.status.value}")
        return
    deadline = time.monotonic() + config.timeout_s
    with plain_errors(server.address):
        server.stop_job(name)
        while not (job := server.get_job_info(name)).status.is_terminal():
            if time.monotonic() > deadline:
                raise LerayError(
                    f"job {name} is asked to stop and still {job.status.value} after "
                    f"{config.timeout_s:.0f} s; `leray jobs list` shows when it has ended"
                )
            time.sleep(POLL_S)
        last = server.get_job_logs(name).splitlines()[-LAST_LINES:]
    print("\n".join([f"job {name} has ended: {job.status.value}; the last it said:", *last]))
