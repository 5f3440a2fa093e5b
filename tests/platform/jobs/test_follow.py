"""Following a job through lost connections, and how its end is told."""

import os
import sys
import types

import pytest
from ray.job_submission import JobStatus

from leray.errors import LerayError
from leray.platform.jobs import follow as following
from leray.platform.jobs.follow import follow


class Server:
    """A job server whose connections break after so many characters of the log."""

    address = "http://head:8265"

    def __init__(self, log, *, breaks=(), status=JobStatus.SUCCEEDED, **facts):
        self.log, self.breaks = log, list(breaks)
        self.job = types.SimpleNamespace(
            **{"submission_id": "me", "status": status, "driver_exit_code": 0, "message": ""},
        )
        vars(self.job).update(facts)

    async def tail_job_logs(self, submission_id):
        end = self.breaks.pop(0) if self.breaks else len(self.log)
        for start in range(0, end, 4):
            yield self.log[start : min(start + 4, end)]
        if end < len(self.log):
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_info(self, submission_id):
        return self.job


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(following, "RETRY_S", 0.0)


def test_a_lost_connection_costs_and_repeats_no_character(capsys):
    log = "one\ntwo\nthree\nfour\n"
    assert follow(Server(log, breaks=[3, 0, 9, 6]), "me") == 0
    assert capsys.readouterr().out == log


def test_a_reader_that_has_seen_enough_is_no_lost_connection(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(BrokenPipeError):
            follow(Server("one\ntwo\n"), "me")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # so that it can be closed


def test_a_server_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(following, "PATIENCE_S", 0.0)
    with pytest.raises(LerayError, match=r"connection is lost .* leray jobs logs --submission_id"):
        follow(Server("a lot", breaks=[2] * 10**6), "me")


@pytest.mark.parametrize(
    ("status", "facts", "code", "said"),
    [
        (JobStatus.SUCCEEDED, {}, 0, ""),
        (JobStatus.FAILED, {"driver_exit_code": 3}, 3, "job me failed, exit code 3\n"),
        (JobStatus.FAILED, {"driver_exit_code": -9}, 137, "job me failed, exit code -9\n"),
        (JobStatus.STOPPED, {"driver_exit_code": None}, 130, "job me was stopped\n"),
        (
            JobStatus.FAILED,
            {"driver_exit_code": None, "message": "no\n such  node"},
            1,
            "job me did not run: no such node\n",
        ),
    ],
)
def test_how_it_ended_is_the_exit_code(status, facts, code, said, capsys):
    assert follow(Server("", status=status, **facts), "me") == code
    assert capsys.readouterr().err == said
