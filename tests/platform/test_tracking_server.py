"""Tracking against a real MLflow server that is dead at first."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leray.platform import tracking
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import NullTracker, open_tracker


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SEND_PERIOD_S", 0.05)
    monkeypatch.setattr(tracking, "LONGEST_RETRY_S", 0.2)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def tracker(uri: str, run: RunDirectory, **options: Any) -> NullTracker:
    options = {"params": {"steps": 10}, "run_name": "test", **options}
    return open_tracker(MLflowConfig(tracking_uri=uri), run, **options)


def reports(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.logs / "metrics.jsonl").read_text().splitlines()]


def history(uri: str, run: RunDirectory, name: str) -> list[tuple[int, float]]:
    run_id = (run.root / "mlflow_run_id").read_text().strip()
    points = client(uri).get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in points)


def wait_for(condition: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start_server(port: int, tmp_path: Path) -> Iterator[Any]:
    servers: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
        store += ["--artifacts-destination", str(tmp_path / "artifacts")]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        with (tmp_path / "server.log").open("wb") as log:
            servers.append(
                subprocess.Popen([*command, *store], stdout=log, stderr=log, start_new_session=True)
            )
        wait_for(lambda: answers(port), 90)

    yield start
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_a_dead_server_gets_everything_once_it_lives(
    run: RunDirectory, port: int, start_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    uri = f"http://127.0.0.1:{port}"
    record = tracker(uri, run)
    slowest = 0.0
    for step in range(1000):
        began = time.perf_counter()
        record.log_metrics({"train/a": step, "train/b": -step}, step)
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 1.0
    assert record.finish() == 1000
    assert "lacks 1000 reports" in caplog.text
    assert len(reports(run)) == 1000

    again = tracker(uri, run)  # as a resumed run does; the server starts while it goes on
    again.log_metrics({"train/a": 1000}, 1000)
    again.log_artifact(run.logs / "metrics.jsonl", "record")
    start_server()
    wait_for(lambda: again.run_id is not None, 30)
    assert again.finish() == 0
    assert history(uri, run, "train/a") == [(step, float(step)) for step in range(1001)]
    assert history(uri, run, "train/b")[0] == (0, 0.0)
    assert len(history(uri, run, "train/b")) == 1000
    assert [each.path for each in client(uri).list_artifacts(again.run_id, "record")] == [
        "record/metrics.jsonl"
    ]
    assert "is back" in caplog.text
