"""Tracking against a real MLflow server that is dead for a while, or never answers."""

import logging
import socket
import threading
import time

import pytest

from leray.platform import delivery
from leray.platform.run_directory import RunDirectory
from leray.platform.tracking import NullTracker
from tests.platform.tracking.helpers import (
    Server,
    client,
    history,
    reports,
    run_id,
    tracker,
    wait_for,
)

LONGEST_STALL_S = 1.0
PERIOD_S = 0.02


class Loop:
    """Calls `log_metrics` 50 times per second from a thread, and measures the longest call."""

    def __init__(self, record: NullTracker) -> None:
        self._record = record
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.steps = 0
        self.longest_s = 0.0

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            began_s = time.perf_counter()
            self._record.log_metrics({"a": self.steps / 7, "b": -self.steps}, self.steps)
            self.longest_s = max(self.longest_s, time.perf_counter() - began_s)
            self.steps += 1


def survive_a_kill(run: RunDirectory, server: Server, dead_s: float) -> None:
    """Kill the server for a while under a running loop; nothing stalls, nothing is lost."""
    record = tracker(server.uri, run)
    with Loop(record) as loop:
        wait_for(lambda: record.run_id is not None and loop.steps > 50, 60)
        server.kill()
        try:
            time.sleep(dead_s)
        finally:
            server.start()
        at_return = loop.steps
        wait_for(lambda: loop.steps > at_return + 50, 30)
    assert record.finish() == 0
    print(f"\n{loop.steps} reports, the longest call took {loop.longest_s * 1e3:.2f} ms")
    assert loop.longest_s < LONGEST_STALL_S
    assert loop.steps > dead_s / PERIOD_S / 4
    assert history(server.uri, run, "a") == [(step, step / 7) for step in range(loop.steps)]
    assert history(server.uri, run, "b") == [(step, -step) for step in range(loop.steps)]


def test_a_server_killed_for_seconds_stalls_nothing(run: RunDirectory, server: Server) -> None:
    survive_a_kill(run, server, dead_s=3)


@pytest.mark.slow
def test_a_server_killed_for_half_a_minute_stalls_nothing(
    run: RunDirectory, server: Server
) -> None:
    survive_a_kill(run, server, dead_s=30)


def test_a_server_that_never_answers_stalls_nothing(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "FINISH_TIMEOUT_S", 1.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        record = tracker(f"http://127.0.0.1:{deaf.getsockname()[1]}", run)
        with Loop(record) as loop:
            wait_for(lambda: loop.steps >= 100, 30)
        began_s = time.monotonic()
        assert record.finish() == loop.steps
        assert time.monotonic() - began_s < 5
        assert loop.longest_s < LONGEST_STALL_S
    assert len(reports(run)) == loop.steps
    wait_for(lambda: not delivering())  # else it complains in the middle of another test


def delivering() -> list[threading.Thread]:
    """Return the threads that still try to reach a server."""
    return [thread for thread in threading.enumerate() if thread.name == "leray-tracker"]


@pytest.mark.slow
def test_a_dead_server_gets_everything_once_it_lives(
    run: RunDirectory, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.kill()
    try:
        record = tracker(server.uri, run)
        for step in range(1000):
            record.log_metrics({"train/a": step, "train/b": -step}, step)
        assert record.finish() == 1000
        assert "lacks 1000 reports" in caplog.text
        assert len(reports(run)) == 1000
        again = tracker(server.uri, run)  # as a resumed run does; the server starts meanwhile
        again.log_metrics({"train/a": 1000}, 1000)
        again.log_artifact(run.logs / "metrics.jsonl", "record")
    finally:
        server.start()
    wait_for(lambda: again.run_id is not None, 30)
    assert again.finish() == 0
    assert history(server.uri, run, "train/a") == [(step, step) for step in range(1001)]
    assert history(server.uri, run, "train/b") == [(step, -step) for step in range(1000)]
    artifacts = client(server.uri).list_artifacts(run_id(run), "record")
    assert [each.path for each in artifacts] == ["record/metrics.jsonl"]
    assert "is back" in caplog.text
