"""Every point exactly once: after a resume, a kill, and an answer that was lost."""

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from leray.platform.lineage import DatasetLineage
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import Tracker, open_tracker
from tests.platform.tracking.helpers import (
    FakeStore,
    Server,
    client,
    history,
    reports,
    run_id,
    tracker,
    wait_for,
)


def points(uri: str, run: RunDirectory, name: str) -> list[tuple[int, int, float]]:
    found = client(uri).get_metric_history(run_id(run), name)
    return sorted((point.step, point.timestamp, point.value) for point in found)


def expected(run: RunDirectory, name: str) -> list[tuple[int, int, float]]:
    return [(r["step"], int(r["time"] * 1000), r[name]) for r in reports(run) if name in r]


# Steps that a resumed run comes by again


@pytest.mark.parametrize("enable", [False, True])
def test_steps_that_are_recorded_are_not_recorded_again(
    run: RunDirectory, uri: str, *, enable: bool
) -> None:
    def open_again() -> Any:
        config = MLflowConfig(tracking_uri=uri, enable=enable)
        return open_tracker(config, run, params={}, run_name="resumed")

    with open_again() as record:
        for step in (100, 200, 300):
            record.log_metrics({"train/a": step}, step)
        record.log_metrics({"eval/b": 1}, 200)
        record.log_metrics({"train/a": 300.5}, 300)  # within one process all is recorded
    with open_again() as record:  # goes on from a checkpoint at step 100
        for step in (200, 300, 400):
            record.log_metrics({"train/a": step, "eval/b": 2, "new": 3}, step)
            record.log_metrics({"train/a": -step}, 50)
    found = {
        name: [(r["step"], r[name]) for r in reports(run) if name in r]
        for name in ("train/a", "eval/b", "new")
    }
    assert found == {
        "train/a": [(100, 100), (200, 200), (300, 300), (300, 300.5), (400, 400)],
        "eval/b": [(200, 1), (300, 2), (400, 2)],
        "new": [(200, 3), (300, 3), (400, 3)],
    }
    if enable:
        for name, recorded in found.items():
            assert history(uri, run, name) == recorded


def test_a_figure_s_name_does_not_change_when_it_was_recorded(run: RunDirectory) -> None:
    store = FakeStore()
    with Tracker(run, store) as record:
        record.log_metrics({"step": 99, "time": 1, "a": 2}, 5)
    assert store.received == reports(run)
    assert reports(run)[0].keys() == {"step", "time", "a"}
    assert (reports(run)[0]["step"], reports(run)[0]["a"]) == (5, 2)


# Batches that are delivered twice

KILLED_BEFORE_THE_MARK = """
import os, sys
from pathlib import Path
from leray.platform.journal import Journal
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import open_tracker

Journal.mark_delivered = lambda *_: os.kill(os.getpid(), 9)
run = RunDirectory(Path(sys.argv[2]))
record = open_tracker(MLflowConfig(tracking_uri=sys.argv[1]), run, params={}, run_name="killed")
for step in range(700):
    record.log_metrics({"a": step / 7, "b": 1e-300 * step, "c": 0.1}, step)
record.finish()
"""


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_a_kill_before_the_mark_doubles_nothing(
    run: RunDirectory, uri: str, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "server":
        uri = request.getfixturevalue("server").uri
    command = [sys.executable, "-c", KILLED_BEFORE_THE_MARK, uri, str(run.root)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (run.logs / "metrics.delivered").exists()
    taken = points(uri, run, "a")
    assert taken
    with tracker(uri, run) as record:
        record.log_metrics({"a": 0.5}, 700)
    assert set(taken) <= set(points(uri, run, "a"))
    for name in ("a", "b", "c"):
        assert points(uri, run, name) == expected(run, name)
    assert len(points(uri, run, "a")) == len(reports(run))


DATASET = DatasetLineage(
    context="training",
    name="lab/reach",
    digest="d" * 32,
    source_type="local",
    source={"uri": "reach"},
    schema={},
    profile={},
)


class Interruptions(ThreadingHTTPServer):
    """Passes requests on to a server, and swallows the first answers to some of them."""

    def __init__(self, target: str, losses: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Pass)
        self.target = target
        self.losses = losses
        self.uri = f"http://127.0.0.1:{self.server_port}"


class Pass(BaseHTTPRequestHandler):
    server: Interruptions

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        request = urllib.request.Request(
            self.server.target + self.path,
            data=self.rfile.read(size) if size else None,
            headers={"Content-Type": self.headers.get("Content-Type") or "application/json"},
            method=self.command,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        for part, left in self.server.losses.items():
            if left and part in self.path:
                self.server.losses[part] -= 1
                self.close_connection = True
                return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def interruptions(server: Server) -> Iterator[Interruptions]:
    between = Interruptions(server.uri, {"log-batch": 4, "runs/create": 1, "log-inputs": 1})
    thread = threading.Thread(target=between.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield between
    between.shutdown()
    thread.join()
    between.server_close()


def test_lost_answers_double_neither_points_nor_runs(
    run: RunDirectory, server: Server, interruptions: Interruptions, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    options: dict[str, Any] = {
        "config": {"experiment": "lost answers"},
        "lineage": lambda: [DATASET],
    }
    record = tracker(interruptions.uri, run, **options)
    for step in range(800):
        record.log_metrics({"a": step / 7, "b": -step}, step)
    wait_for(lambda: not any(interruptions.losses.values()), 60)
    record.finish()
    with tracker(interruptions.uri, run, **options) as record:
        record.log_metrics({"a": 0.5}, 800)
    found = client(server.uri).get_experiment_by_name("lost answers")
    runs = client(server.uri).search_runs([found.experiment_id])
    assert [each.info.run_id for each in runs] == [run_id(run)]
    assert [each.dataset.digest for each in runs[0].inputs.dataset_inputs] == [DATASET.digest]
    assert points(server.uri, run, "a") == expected(run, "a")
    assert points(server.uri, run, "b") == expected(run, "b")
    assert len(expected(run, "a")) == 801


def test_a_run_deleted_while_it_is_written_to_is_made_anew(run: RunDirectory, uri: str) -> None:
    record = tracker(uri, run)
    record.log_metrics({"a": 1}, 1)
    wait_for(lambda: (run.logs / "metrics.delivered").exists(), 60)
    first = run_id(run)
    client(uri).delete_run(first)
    record.log_metrics({"a": 2}, 2)
    wait_for(lambda: record.run_id not in (None, first), 30)
    assert record.finish() == 0
    assert run_id(run) != first
    assert history(uri, run, "a") == [(1, 1), (2, 2)]


def test_a_record_cut_short_by_a_power_loss_is_delivered_again(run: RunDirectory, uri: str) -> None:
    with tracker(uri, run) as record:
        for step in range(10):
            record.log_metrics({"a": step}, step)
    path = run.logs / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    assert json.loads((run.logs / "metrics.delivered").read_text())["offset"] > path.stat().st_size
    with tracker(uri, run) as record:
        for step in range(5, 12):
            record.log_metrics({"a": step}, step)
    assert {step for step, _ in history(uri, run, "a")} == set(range(12))
    assert history(uri, run, "a")[-1] == (11, 11)
