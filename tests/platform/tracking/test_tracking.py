"""Tracking: nothing lost, nothing blocked, whatever MLflow does."""

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
from leray.platform import delivery
from leray.platform.mlflow_store import flatten_params, resolve_tracking_uri, valid_name
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import NullTracker, Tracker, open_tracker
from tests.platform.tracking.helpers import (
    FakeStore,
    client,
    history,
    refused,
    reports,
    run_id,
    tracker,
    wait_for,
)

# The real store


def test_a_run_is_recorded_whole(uri: str, run: RunDirectory, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"frames")
    params = {"policy": {"type": "sac", "lr": 1e-4, "dims": [1, 2], "note": None}, "x": "y" * 7000}
    before = time.time()
    with tracker(uri, run, params=params, tags={"dataset": "data"}) as record:
        record.log_metrics({"train/episode_return": np.float64(1.5), "loss/q": math.nan}, 1000)
        record.log_metrics({"train/episode_return": 2}, 2000)
        record.log_artifact(video, "eval")
        record.log_artifact(run.logs)
    found = client(uri).get_run(run_id(run))
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "test"
    assert found.data.params["policy.type"] == "sac"
    assert found.data.params["policy.lr"] == "0.0001"
    assert found.data.params["policy.dims"] == "[1, 2]"
    assert found.data.params["policy.note"] == "null"
    assert found.data.params["x"] == "y" * 6000
    assert found.data.tags["dataset"] == "data"
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
    first = run_id(run)
    with tracker(uri, run, params={"steps": 20, "seed": 1}) as record:
        record.log_metrics({"a": 2}, 2)
    assert run_id(run) == first
    assert history(uri, run, "a") == [(1, 1.0), (2, 2.0)]
    found = client(uri).get_run(first)
    assert found.data.params == {"steps": "10", "seed": "1"}
    assert found.data.tags["resumed.steps"] == "20"
    assert found.info.status == "FINISHED"


def test_a_deleted_run_is_made_anew_with_all_its_points(uri: str, run: RunDirectory) -> None:
    with tracker(uri, run) as record:
        record.log_metrics({"a": 1}, 1)
    first = run_id(run)
    client(uri).delete_run(first)
    with tracker(uri, run) as record:
        record.log_metrics({"a": 2}, 2)
    assert run_id(run) != first
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
        assert client(uri).get_run(run_id(run)).info.status == status


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


def test_a_report_costs_its_caller_little(run: RunDirectory) -> None:
    store = FakeStore()
    figures = {f"loss/figure_{number}": number / 7 for number in range(20)}
    with Tracker(run, store) as record:
        began_s = time.perf_counter()
        for step in range(2000):
            record.log_metrics(figures, step)
        mean_s = (time.perf_counter() - began_s) / 2000
    assert mean_s < 1e-3
    assert len(store.received) == 2000
    assert store.batches < 100


def test_a_hanging_server_does_not_hold_up_the_end(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "FINISH_TIMEOUT_S", 0.2)
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


def test_the_end_of_a_run_waits_for_a_server_that_was_there(run: RunDirectory) -> None:
    store = FakeStore()
    record = Tracker(run, store)
    assert record.wait_for_run(5)
    store.failure = ConnectionError("refused")
    record.log_metrics({"a": 1}, 1)
    back = threading.Timer(0.5, lambda: setattr(store, "failure", None))
    back.start()
    assert record.finish() == 0
    back.join()
    assert (len(store.received), store.status) == (1, "FINISHED")


def test_the_end_of_a_run_does_not_wait_for_ever(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RETURN_TIMEOUT_S", 0.3)
    store = FakeStore()
    record = Tracker(run, store)
    assert record.wait_for_run(5)
    store.failure = ConnectionError("refused")
    record.log_metrics({"a": 1}, 1)
    began_s = time.monotonic()
    assert record.finish() == 1
    assert 0.2 < time.monotonic() - began_s < 5


def test_a_server_that_was_never_there_is_not_waited_for(run: RunDirectory) -> None:
    store = FakeStore()
    store.failure = ConnectionError("refused")
    record = Tracker(run, store)
    record.log_metrics({"a": 1}, 1)
    assert not record.wait_for_run(30)
    began_s = time.monotonic()
    assert record.finish() == 1
    assert time.monotonic() - began_s < 5


def test_a_refused_batch_does_not_stop_the_rest(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    store.open.clear()
    record = Tracker(run, store)
    for step in range(20):
        record.log_metrics({"bad" if step in (3, 17) else "good": 1}, step)
    store.open.set()
    wait_for(lambda: len(store.received) == 18)
    record.log_metrics({"good": 2}, 20)
    assert record.finish() == 0
    steps = [each["step"] for each in store.received]
    assert steps == [step for step in range(21) if step not in (3, 17)]
    assert caplog.text.count("refuses some reports") == 1
    assert len(reports(run)) == 21


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
        record.log_checkpoint(run.config_file, "best")
        record.register_policy(run.config_file)
    assert type(record) is NullTracker
    (report,) = reports(run)
    assert abs(report.pop("time") - time.time()) < 10
    assert report == {"step": 7, "a": 0.5}


def test_names_and_params_are_made_valid() -> None:
    assert valid_name("train/a[0] (x)") == "train/a_0_ _x_"
    assert valid_name("../up//a") == "up/a"
    assert valid_name("a" * 300) == "a" * 250
    assert flatten_params({"a": {"b": {}, "c": {"d": True}}}) == {"a.b": "{}", "a.c.d": "true"}
