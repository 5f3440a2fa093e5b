"""Tracking: nothing lost, nothing blocked, whatever MLflow does."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leray.errors import ConfigError
from leray.platform import tracking
from leray.platform.mlflow_store import flatten_params, resolve_tracking_uri, valid_name
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import NullTracker, Tracker, open_tracker


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SEND_PERIOD_S", 0.05)
    monkeypatch.setattr(tracking, "LONGEST_RETRY_S", 0.2)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'outputs' / 'mlflow.db'}"


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


class FakeStore:
    """A store whose failures the test decides."""

    uri = "fake://store"

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.received: list[dict[str, Any]] = []
        self.artifacts: list[tuple[Path, str | None]] = []
        self.status: str | None = None
        self.run_id = "one"
        self.failure: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def connect(self) -> str:
        self.open.wait()
        if self.failure:
            raise self.failure
        self.connected.append(self.run_id)
        return self.run_id

    def send_metrics(self, records: list[dict[str, Any]]) -> None:
        if self.failure:
            raise self.failure
        if any("bad" in record for record in records):
            raise refused()
        self.received += records

    def send_artifact(self, path: Path, artifact_path: str | None) -> None:
        self.artifacts.append((path, artifact_path))

    def end(self, status: str) -> None:
        self.status = status

    def forget_run(self) -> None:
        self.run_id = "two"


def refused(code: str = "INVALID_PARAMETER_VALUE") -> Exception:
    error = RuntimeError("MLflow says no")
    error.error_code = code  # type: ignore[attr-defined]
    return error


def wait_for(condition: Any, timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# The real store


def test_a_run_is_recorded_whole(uri: str, run: RunDirectory, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"frames")
    params = {"policy": {"type": "sac", "lr": 1e-4, "dims": [1, 2], "note": None}, "x": "y" * 7000}
    before = time.time()
    with tracker(
        uri, run, params=params, tags={"dataset.root": "data"}, parent_run_id="a" * 32
    ) as record:
        record.log_metrics({"train/episode_return": np.float64(1.5), "loss/q": math.nan}, 1000)
        record.log_metrics({"train/episode_return": 2}, 2000)
        record.log_artifact(video, "eval")
        record.log_artifact(run.logs)
    found = client(uri).get_run((run.root / "mlflow_run_id").read_text().strip())
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "test"
    assert found.data.params["policy.type"] == "sac"
    assert found.data.params["policy.lr"] == "0.0001"
    assert found.data.params["policy.dims"] == "[1, 2]"
    assert found.data.params["policy.note"] == "null"
    assert found.data.params["x"] == "y" * 6000
    assert found.data.tags["dataset.root"] == "data"
    assert found.data.tags["mlflow.parentRunId"] == "a" * 32
    assert {"host", "leray.version", "mlflow.user"} <= found.data.tags.keys()
    assert "loss/q" not in found.data.metrics
    points = client(uri).get_metric_history(found.info.run_id, "train/episode_return")
    assert [(point.step, point.value) for point in points] == [(1000, 1.5), (2000, 2.0)]
    assert all(before - 1 < point.timestamp / 1000 < time.time() + 1 for point in points)
    artifacts = {each.path for each in client(uri).list_artifacts(found.info.run_id)}
    assert {"eval", "metrics.jsonl"} <= artifacts
    assert [each.path for each in client(uri).list_artifacts(found.info.run_id, "eval")] == [
        "eval/video.mp4"
    ]


def test_resume_continues_the_same_run(uri: str, run: RunDirectory) -> None:
    with tracker(uri, run, params={"steps": 10, "seed": 1}) as record:
        record.log_metrics({"a": 1}, 1)
    first = (run.root / "mlflow_run_id").read_text()
    with tracker(uri, run, params={"steps": 20, "seed": 1}) as record:
        record.log_metrics({"a": 2}, 2)
    assert (run.root / "mlflow_run_id").read_text() == first
    assert history(uri, run, "a") == [(1, 1.0), (2, 2.0)]
    found = client(uri).get_run(first.strip())
    assert found.data.params == {"steps": "10", "seed": "1"}
    assert found.data.tags["resumed.steps"] == "20"
    assert found.info.status == "FINISHED"


def test_a_deleted_run_is_made_anew_with_all_its_points(uri: str, run: RunDirectory) -> None:
    with tracker(uri, run) as record:
        record.log_metrics({"a": 1}, 1)
    first = (run.root / "mlflow_run_id").read_text().strip()
    client(uri).delete_run(first)
    with tracker(uri, run) as record:
        record.log_metrics({"a": 2}, 2)
    assert (run.root / "mlflow_run_id").read_text().strip() != first
    assert history(uri, run, "a") == [(1, 1.0), (2, 2.0)]


def test_points_of_a_killed_process_are_delivered_by_the_next(uri: str, run: RunDirectory) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\n"
        "from leray.platform.sections import MLflowConfig\n"
        "from leray.platform.run_directory import RunDirectory\n"
        "from leray.platform.tracking import open_tracker\n"
        "record = open_tracker(MLflowConfig(tracking_uri=sys.argv[1]),"
        " RunDirectory(Path(sys.argv[2])), params={}, run_name='killed')\n"
        "for step in range(500): record.log_metrics({'a': step}, step)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, uri, str(run.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    with tracker(uri, run) as record:
        record.log_metrics({"a": 500}, 500)
    assert history(uri, run, "a") == [(step, float(step)) for step in range(501)]


def test_failure_and_interruption_set_the_status(uri: str, tmp_path: Path) -> None:
    for error, status in ((RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        run = RunDirectory.create(tmp_path / status)
        with pytest.raises(error), tracker(uri, run):
            raise error
        run_id = (run.root / "mlflow_run_id").read_text().strip()
        assert client(uri).get_run(run_id).info.status == status


def test_an_unused_uri_scheme_is_refused_before_training(run: RunDirectory) -> None:
    for bad in ("file:///tmp/mlruns", "./mlruns", "ftp://host"):
        with pytest.raises(ConfigError, match=r"no longer writes to plain folders; give sqlite:"):
            tracker(bad, run)


def test_the_store_is_the_given_else_the_environment_s_else_outputs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri(None) == f"sqlite:///{tmp_path}/outputs/mlflow.db"
    assert resolve_tracking_uri("sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"
    assert resolve_tracking_uri("postgresql+psycopg2://h/db") == "postgresql+psycopg2://h/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert resolve_tracking_uri(None) == "http://host:5000"
    assert resolve_tracking_uri("https://other") == "https://other"


# Failures, decided by the test


def test_an_absent_server_neither_blocks_nor_loses(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    store.failure = ConnectionError("refused")
    record = Tracker(run, store)
    for step in range(100):
        record.log_metrics({"a": step}, step)
    wait_for(lambda: "does not answer (refused)" in caplog.text)
    assert caplog.text.count("does not answer") == 1
    store.failure = None
    wait_for(lambda: len(store.received) == 100)
    assert [each["step"] for each in store.received] == list(range(100))
    assert record.finish() == 0
    assert store.status == "FINISHED"


def test_a_hanging_server_does_not_hold_up_the_end(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "FINISH_TIMEOUT_S", 0.2)
    store = FakeStore()
    store.open.clear()
    record = Tracker(run, store)
    record.log_metrics({"a": 1}, 1)
    record.log_artifact(run.root / "train_config.yaml")
    began = time.monotonic()
    assert record.finish() == 2
    assert time.monotonic() - began < 2
    assert "lacks 2 reports of this run (no answer within 0 s)" in caplog.text
    assert f"--resume=true --output_dir={run.root}" in caplog.text
    store.open.set()


def test_a_refused_batch_does_not_stop_the_rest(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    record = Tracker(run, store)
    record.log_metrics({"bad": 1}, 1)
    wait_for(lambda: "refuses some reports" in caplog.text)
    record.log_metrics({"good": 2}, 2)
    assert record.finish() == 0
    assert [each["step"] for each in store.received] == [2]
    assert len(reports(run)) == 2


def test_a_run_deleted_meanwhile_is_sent_again_to_a_new_one(run: RunDirectory) -> None:
    store = FakeStore()
    record = Tracker(run, store)
    record.log_metrics({"a": 1}, 1)
    wait_for(lambda: len(store.received) == 1)
    store.failure = refused("RESOURCE_DOES_NOT_EXIST")
    wait_for(lambda: store.run_id == "two")
    store.failure = None
    assert record.finish() == 0
    assert [each["step"] for each in store.received] == [1, 1]
    assert record.run_id == "two"


def test_an_artifact_gone_before_it_was_sent_is_reported(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    record = Tracker(run, FakeStore())
    record.log_artifact(run.root / "missing")
    assert record.finish() == 0
    assert "gone before it could be sent" in caplog.text


def test_a_full_disk_does_not_stop_training(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = NullTracker(run)

    def refuse(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    record.log_metrics({"a": 1}, 1)
    record.log_metrics({"a": 2}, 2)
    monkeypatch.undo()
    assert record.finish() == 2
    assert caplog.text.count("No space left") == 1


def test_reports_after_the_end_are_counted_not_raised(run: RunDirectory) -> None:
    record = Tracker(run, FakeStore())
    assert record.finish() == 0
    record.log_metrics({"a": 1}, 1)
    assert record.finish() == 0
    assert reports(run) == []


def test_without_mlflow_the_file_is_still_written(run: RunDirectory) -> None:
    with open_tracker(MLflowConfig(enable=False), run, params={}, run_name="x") as record:
        record.log_metrics({"a": np.float32(0.5), "b": math.inf, "c": math.nan}, np.int64(7))
        record.log_metrics({"b": math.nan}, 8)
        record.log_artifact(run.config_file)
    assert type(record) is NullTracker
    (report,) = reports(run)
    assert abs(report.pop("time") - time.time()) < 10
    assert report == {"step": 7, "a": 0.5}


def test_names_and_params_are_made_valid() -> None:
    assert valid_name("train/a[0] (x)") == "train/a_0_ _x_"
    assert valid_name("../up//a") == "up/a"
    assert flatten_params({"a": {"b": {}, "c": {"d": True}}}) == {"a.b": "{}", "a.c.d": "true"}
