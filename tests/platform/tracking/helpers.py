"""Runs to record, a store whose failures the test decides, and a server that can be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import NullTracker, open_tracker

QUICK = {"SEND_PERIOD_S": 0.05, "LONGEST_RETRY_S": 0.2}


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def tracker(
    uri: str, run: RunDirectory, *, config: dict[str, Any] | None = None, **options: Any
) -> NullTracker:
    options = {"params": {"steps": 10}, "run_name": "test", **options}
    return open_tracker(MLflowConfig(tracking_uri=uri, **(config or {})), run, **options)


def run_id(run: RunDirectory) -> str:
    return (run.root / "mlflow_run_id").read_text().strip()


def reports(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.logs / "metrics.jsonl").read_text().splitlines()]


def history(uri: str, run: RunDirectory, name: str) -> list[tuple[int, float]]:
    points = client(uri).get_metric_history(run_id(run), name)
    return sorted((point.step, point.value) for point in points)


def wait_for(condition: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def refused(code: str = "INVALID_PARAMETER_VALUE") -> Exception:
    error = RuntimeError("MLflow says no")
    error.error_code = code  # type: ignore[attr-defined]
    return error


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FakeStore:
    """A store whose failures the test decides."""

    uri = "fake://store"

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.batches = 0
        self.artifacts: list[tuple[Path, str | None]] = []
        self.registered: list[tuple[str, Path]] = []
        self.datasets: list[Any] = []
        self.status: str | None = None
        self.run_id = "one"
        self.failure: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def connect(self) -> str:
        self.open.wait()
        if self.failure:
            raise self.failure
        return self.run_id

    def send_metrics(self, records: list[dict[str, Any]]) -> None:
        if self.failure:
            raise self.failure
        if any("bad" in record for record in records):
            raise refused()
        self.batches += 1
        self.received += records

    def send_artifact(self, path: Path, artifact_path: str | None) -> None:
        self.artifacts.append((path, artifact_path))

    def send_datasets(self, datasets: list[Any]) -> None:
        self.datasets += datasets

    def register(self, name: str, folder: Path) -> None:
        self.registered.append((name, folder))

    def end(self, status: str) -> None:
        self.status = status

    def forget_run(self) -> None:
        self.run_id = "two"


class Server:
    """A real MLflow server on this machine, with a SQLite store, that can be killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, with the same port and store as before; return once it answers."""
        self.launch()
        wait_for(self._answers, 240)

    def launch(self) -> None:
        """Start it without waiting."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """End it and its workers at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return True
        except OSError:
            return False
