"""`leray train` as MLflow sees it, also after it was killed and went on from a checkpoint."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from leray.algorithms.sac.config import SACPolicyConfig
from leray.envs.config import GymEnvConfig
from leray.platform import delivery
from leray.platform.config import TrainConfig
from leray.platform.parsing import dump
from leray.platform.run_directory import RunDirectory
from leray.platform.run_tracking import deliver_rest, open_run_tracker
from leray.platform.sections import MLflowConfig
from leray.platform.tracking import count_undelivered
from tests.platform.tracking.helpers import client, history, reports, run_id


@pytest.mark.ray
def test_a_resumed_run_has_every_point_once_and_its_dataset(
    train: Callable[..., int], demonstrations: Path, tmp_path: Path, uri: str
) -> None:
    options = {
        "env__type": "gym",
        "env__task": "PandaReach-v3",
        "dataset__root": demonstrations,
        "log_freq": 20,
        "save_freq": 40,
        "output_dir": tmp_path / "run",
        "mlflow__enable": True,
        "mlflow__tracking_uri": uri,
    }
    assert train(steps=80, **options) == 0
    run = RunDirectory(tmp_path / "run")
    shutil.rmtree(run.checkpoint(80))  # as if killed before it was written
    assert train("--resume=true", steps=120, **options) == 0

    figure = "train/env_steps"
    assert history(uri, run, figure) == [(step, step) for step in range(20, 121, 20)]
    counts = Counter(
        (r["step"], name) for r in reports(run) for name in r.keys() - {"step", "time"}
    )
    assert set(counts.values()) == {1}
    found = client(uri).get_run(run_id(run))
    assert found.info.status == "FINISHED"
    assert "ray.job_id" in found.data.tags
    (kept,) = found.inputs.dataset_inputs
    assert (kept.dataset.name, kept.tags[0].value) == (demonstrations.name, "training")


def test_what_an_ended_run_could_not_deliver_is_delivered_later(
    uri: str, run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "RETURN_TIMEOUT_S", 0)
    config = TrainConfig(
        policy=SACPolicyConfig(),
        env=GymEnvConfig(task="PandaReach-v3"),
        mlflow=MLflowConfig(tracking_uri=uri),
    )
    run.save_config(dump(config))
    parent_id_file = tmp_path / "sweep" / "mlflow_run_id"
    with open_run_tracker(config, run, parent_id_file) as record:
        record.log_metrics({"a": 1}, 1)
        record.log_artifact(run.config_file)
    assert count_undelivered(run) == 2

    assert deliver_rest(run, parent_id_file=parent_id_file) == 2  # still no parent
    parent_id_file.parent.mkdir()
    parent_id_file.write_text("a" * 32)
    assert deliver_rest(run, parent_id_file=parent_id_file, status="FAILED") == 0
    assert count_undelivered(run) == 0
    assert history(uri, run, "a") == [(1, 1)]
    found = client(uri).get_run(run_id(run))
    assert found.info.status == "FAILED"
    assert found.data.params["env.task"] == "PandaReach-v3"
    assert found.data.tags["mlflow.parentRunId"] == "a" * 32

    assert deliver_rest(run, parent_id_file=parent_id_file) == 0  # nothing is left, nothing is done
    assert client(uri).get_run(run_id(run)).info.status == "FAILED"
