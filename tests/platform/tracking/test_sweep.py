"""A sweep's run and those of its trials: no child without its parent, whatever comes first."""

import time
from pathlib import Path

import pytest

from leray.platform import delivery
from leray.platform.mlflow_store import PARENT_TAG, ParentPendingError
from leray.platform.run_directory import RunDirectory
from leray.platform.sections import MLflowConfig
from leray.platform.sweep_tracking import SweepTracker
from leray.platform.tracking import Tracker
from tests.platform.tracking.helpers import FakeStore, client, history, run_id, tracker


def sweep_tracker(uri: str, folder: Path) -> SweepTracker:
    params = {"metric": "eval/success_rate", "space": {"seed": {"grid": [0, 1]}}}
    config = MLflowConfig(tracking_uri=uri, experiment="sweeps")
    return SweepTracker(config, folder, name="reach", params=params)


def test_a_sweep_with_trials_that_begin_before_it_is_recorded(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "sweep"
    trials = [RunDirectory(folder / "trials" / name) for name in ("a", "b")]
    config = {"experiment": "sweeps"}
    parent_id_file = folder / "mlflow_run_id"
    records = [
        tracker(uri, trial, config=config, run_name=trial.root.name, parent_id_file=parent_id_file)
        for trial in trials
    ]
    for number, record in enumerate(records):
        record.log_metrics({"eval/success_rate": number / 2}, 100)
    time.sleep(0.5)
    assert not any((trial.root / "mlflow_run_id").exists() for trial in trials)
    results = tmp_path / "results.csv"
    results.write_text("trial_id\na\nb\n")
    with sweep_tracker(uri, folder) as sweep:
        assert sweep.parent_id_file == parent_id_file
        assert sweep.wait_for_run()
        for number, record in enumerate(records):
            assert record.finish() == 0
            figures = {"eval/success_rate": number / 2, "step": 100}
            sweep.log_trials(finished=number + 1, best=number / 2, figures=figures)
        sweep.log_artifact(results)
    assert f"MLflow at {uri} does not answer" not in caplog.text

    parent = client(uri).get_run(parent_id_file.read_text().strip())
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == parent.data.tags["leray.sweep"] == "reach"
    assert parent.data.params["space.seed.grid"] == "[0, 1]"
    found = RunDirectory(folder)
    assert history(uri, found, "sweep/trials_finished") == [(1, 1), (2, 2)]
    assert history(uri, found, "sweep/best") == [(1, 0), (2, 0.5)]
    assert history(uri, found, "eval/success_rate") == [(1, 0), (2, 0.5)]
    assert [each.path for each in client(uri).list_artifacts(parent.info.run_id)] == ["results.csv"]
    query = f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'"
    children = client(uri).search_runs([parent.info.experiment_id], query)
    assert {each.info.run_id for each in children} == {run_id(trial) for trial in trials}


def test_a_resumed_sweep_goes_on_in_the_same_run(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    for finished in ((1, 2), (2, 3)):  # the second process comes by trial 2 again
        with sweep_tracker(uri, folder) as sweep:
            for number in finished:
                sweep.log_trials(finished=number, best=0.5)
    found = RunDirectory(folder)
    assert history(uri, found, "sweep/trials_finished") == [(1, 1), (2, 2), (3, 3)]
    assert client(uri).get_run(run_id(found)).info.status == "FINISHED"


def test_a_trial_that_ends_before_its_parent_is_there_waits_a_little(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "RETURN_TIMEOUT_S", 0.5)
    store = FakeStore()
    store.failure = ParentPendingError("the parent run is not there yet")
    record = Tracker(run, store)
    record.log_metrics({"a": 1}, 1)
    began_s = time.monotonic()
    assert record.finish() == 1
    assert 0.4 < time.monotonic() - began_s < 5
    assert f"MLflow at {store.uri} does not answer" not in caplog.text
    assert "lacks 1 reports of this run (the parent run is not there yet)" in caplog.text


def test_without_mlflow_a_sweep_is_recorded_on_disk(tmp_path: Path) -> None:
    sweep = SweepTracker(MLflowConfig(enable=False), tmp_path, name="x", params={})
    sweep.log_trials(finished=1)
    sweep.register_policy(tmp_path)
    assert not sweep.wait_for_run()
    assert sweep.finish() == 0
    assert '"sweep/trials_finished":1.0' in (tmp_path / "logs" / "metrics.jsonl").read_text()
