import datetime

from ray.job_submission import JobDetails, JobStatus, JobType

from leray.platform.jobs.listing import table


def job(name, **facts):
    values = {"status": JobStatus.RUNNING, "entrypoint": "python -m leray", **facts}
    return JobDetails(type=JobType.SUBMISSION, submission_id=name, **values)


def test_the_newest_is_last_and_lasts_until_now():
    start = datetime.datetime(2024, 5, 6, 7, 8, 9)
    start_ms = int(start.timestamp() * 1000)
    jobs = [
        job("second", start_time=start_ms + 60_000, metadata={"leray_command": "train --x=1"}),
        job("1st", start_time=start_ms, end_time=start_ms + 3_661_000, status=JobStatus.SUCCEEDED),
        job("none", entrypoint="a\x1b[31m"),
    ]
    assert table(jobs, now_s=start_ms / 1000 + 90) == [
        "id      status     started              duration  command",
        "none    RUNNING    -                    -         a?[31m",
        "1st     SUCCEEDED  2024-05-06 07:08:09  1:01:01   python -m leray",
        "second  RUNNING    2024-05-06 07:09:09  0:00:30   train --x=1",
    ]
