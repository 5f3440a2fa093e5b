"""`leray jobs logs`: what a job has printed."""

from leray.platform.jobs.client import connect, find_job, plain_errors
from leray.platform.jobs.config import LogsConfig
from leray.platform.jobs.follow import follow


def run(config: LogsConfig) -> int:
    """Print a job's log.

    Returns:
        0; when the job is followed, its exit code.

    Raises:
        ConfigError: there is no such job or cluster, or the cluster refuses the token.
    """
    server = connect(config.resolved_address)
    find_job(server, config.submission_id)
    if config.follow:
        return follow(server, config.submission_id)
    with plain_errors(server.address):
        print(server.get_job_logs(config.submission_id), end="")
    return 0
