"""What a run keeps in MLflow beside its figures: datasets, checkpoints, tags, policies."""

import json
from pathlib import Path

import pytest

from leray.errors import CheckpointError, ConfigError
from leray.platform.lineage import DatasetLineage, dataset_lineage
from leray.platform.registry import register_policy
from leray.platform.run_directory import RunDirectory
from leray.platform.run_tags import RAY_JOB_CONFIG, ray_tags
from leray.platform.sections import DatasetConfig, MLflowConfig, ValidationConfig
from leray.platform.tracking import Tracker
from tests.data.stream import datasets
from tests.platform.tracking.helpers import (
    FakeStore,
    Server,
    client,
    refused,
    run_id,
    tracker,
    wait_for,
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained_model"
    (folder / "parts").mkdir(parents=True)
    (folder / "config.json").write_text('{"type": "sac"}')
    (folder / "parts" / "model.safetensors").write_bytes(bytes(1000))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# Datasets


def test_datasets_are_inputs_of_the_run(uri: str, run: RunDirectory, tmp_path: Path) -> None:
    root = datasets.make(tmp_path / "reach", lengths=(7, 12, 4)).root
    options = DatasetConfig(root=root), ValidationConfig(episodes=[1])
    for _ in range(2):  # a resumed run names them again
        with tracker(uri, run, lineage=lambda: dataset_lineage(*options)):
            pass
    inputs = client(uri).get_run(run_id(run)).inputs.dataset_inputs
    found = {each.tags[0].value: each.dataset for each in inputs}
    assert [each.tags[0].key for each in inputs] == ["mlflow.data.context"] * 2
    assert found.keys() == {"training", "validation"}
    for lineage in dataset_lineage(*options):
        kept = found[lineage.context]
        assert (kept.name, kept.digest) == ("reach", lineage.digest)
        assert kept.source_type == "local"
        assert json.loads(kept.source) == {"uri": str(root.resolve())}
        assert json.loads(kept.schema) == lineage.schema
        assert (
            json.loads(kept.profile)["num_episodes"]
            == {"training": 2, "validation": 1}[lineage.context]
        )


def test_a_dataset_that_cannot_be_described_harms_nothing(
    run: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[DatasetLineage]:
        raise ValueError("strange\ndataset")

    store = FakeStore()
    with Tracker(run, store, lineage=broken) as record:
        record.log_metrics({"a": 1}, 1)
    assert len(store.received) == 1
    assert store.status == "FINISHED"
    assert "not described in MLflow: strange dataset" in caplog.text


def test_a_run_made_anew_names_its_datasets_too(run: RunDirectory) -> None:
    store, dataset = FakeStore(), object()
    record = Tracker(run, store, lineage=lambda: [dataset])  # type: ignore[list-item]
    wait_for(lambda: store.datasets == [dataset])
    store.failure = refused("RESOURCE_DOES_NOT_EXIST")
    wait_for(lambda: store.run_id == "two")
    store.failure = None
    wait_for(lambda: store.datasets == [dataset, dataset])
    record.finish()


# Checkpoints and policies


def test_checkpoints_are_kept_where_that_is_asked_for(
    uri: str, run: RunDirectory, policy: Path
) -> None:
    with tracker(uri, run, config={"log_checkpoints": True}) as record:
        record.log_checkpoint(policy, "best")
        record.log_checkpoint(policy, "last")
    for name in ("best", "last"):
        listed = client(uri).list_artifacts(run_id(run), f"checkpoints/{name}")
        assert [each.path for each in listed] == [
            f"checkpoints/{name}/config.json",
            f"checkpoints/{name}/parts",
        ]


def test_nothing_more_is_kept_by_default(run: RunDirectory, policy: Path) -> None:
    store = FakeStore()
    with Tracker(run, store) as record:
        record.log_checkpoint(policy, "best")
        record.register_policy(policy)
    assert store.artifacts == store.registered == []


@pytest.mark.parametrize("kind", ["sqlite", "server"])
def test_a_registered_policy_comes_back_as_it_was(
    run: RunDirectory,
    uri: str,
    kind: str,
    policy: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "server":
        server: Server = request.getfixturevalue("server")
        uri = server.uri
    name = f"reach {kind}"
    for _ in range(2):  # the same policy gets one version
        with tracker(uri, run, config={"register_as": name}) as record:
            record.register_policy(policy)
    assert register_policy(uri, name, policy, run_id=run_id(run)) == "1"
    registered = content(policy)
    (policy / "config.json").write_text('{"type": "ppo"}')
    tags = {"leray.step": "500"}
    assert register_policy(uri, name, policy, run_id=run_id(run), tags=tags) == "2"
    second = client(uri).get_model_version(name, "2")
    assert second.tags == tags
    assert second.run_id == run_id(run)

    import mlflow.artifacts

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for version, expected in (("1", registered), ("2", content(policy))):
        copy = mlflow.artifacts.download_artifacts(
            f"models:/{name}/{version}", dst_path=str(tmp_path / version)
        )
        assert expected.items() <= content(Path(copy)).items()


def test_there_must_be_a_policy_to_register(uri: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no policy to register, the folder is missing"):
        register_policy(uri, "reach", tmp_path / "missing", run_id="0")


@pytest.mark.parametrize("name", ["lab/reach", "a:b", "", " ", "../up"])
def test_names_that_the_registry_refuses_are_refused_before_training(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--mlflow\.register_as=.*give letters, digits"):
        MLflowConfig(register_as=name)


# Tags


@pytest.mark.ray
def test_a_run_in_a_ray_job_names_it(
    uri: str, run: RunDirectory, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    job = {"ray.job_id": ray.get_runtime_context().get_job_id()}
    for absent in (None, "[]", "{", "{}"):
        monkeypatch.delenv(RAY_JOB_CONFIG, raising=False)
        if absent is not None:
            monkeypatch.setenv(RAY_JOB_CONFIG, absent)
        assert ray_tags() == job
    metadata = {"job_submission_id": "raysubmit_1", "job_name": "raysubmit_1"}
    monkeypatch.setenv(RAY_JOB_CONFIG, json.dumps({"runtime_env": {}, "metadata": metadata}))
    with tracker(uri, run):
        pass
    job["ray.submission_id"] = "raysubmit_1"
    assert job.items() <= client(uri).get_run(run_id(run)).data.tags.items()
