"""Training runs as a user starts them: offline, fine-tuned, tracked, evaluated."""

import json
import shutil
import sqlite3

import numpy as np
import pytest

from leray.algorithms.registry import load_policy

REACH = {"env__type": "gym", "env__task": "PandaReach-v3"}


@pytest.fixture(scope="module")
def offline_run(train, demonstrations, tmp_path_factory):
    """A run of 60 updates on the demonstrations alone, tracked in MLflow."""
    folder = tmp_path_factory.mktemp("offline")
    code = train(
        output_dir=folder / "run",
        dataset__root=demonstrations,
        steps=60,
        save_freq=30,
        log_freq=20,
        mlflow__enable="true",
        mlflow__tracking_uri=f"sqlite:///{folder}/mlflow.db",
    )
    assert code == 0
    return folder / "run"


def pretrained(run):
    return run / "checkpoints/last/pretrained_model"


def counters(run):
    return json.loads((run / "checkpoints/last/training_state/training_step.json").read_text())


def test_a_run_on_a_dataset_alone_counts_updates(offline_run):
    assert sorted(path.name for path in (offline_run / "checkpoints").iterdir()) == [
        "000030",
        "000060",
        "last",
    ]
    assert counters(offline_run)["env_steps"] == 0
    assert counters(offline_run)["pacing_updates"] == 60
    assert not (offline_run / "replay/online").exists()


def test_a_run_on_a_dataset_alone_changes_the_policy(offline_run):
    first, last = (
        load_policy(offline_run / f"checkpoints/{step}/pretrained_model", "cpu")
        for step in ("000030", "000060")
    )
    assert not np.array_equal(first.acting_block(), last.acting_block())


def test_metrics_arrive_in_mlflow(offline_run):
    with sqlite3.connect(offline_run.parent / "mlflow.db") as database:
        rows = database.execute("select key, step, value from metrics").fetchall()
        status = database.execute("select status from runs").fetchall()
    steps = sorted(step for key, step, _ in rows if key == "train/updates")
    assert steps == [20, 40, 60]
    assert all(np.isfinite(value) for _, _, value in rows)
    assert status == [("FINISHED",)]


def test_the_weights_are_tuned_further_in_the_environment(train, offline_run, tmp_path):
    run = tmp_path / "run"
    options = {"steps": 40, "save_freq": 40, **REACH}
    # warm-up longer than the run: nothing is learned, so the weights must be those given
    assert (
        train(
            output_dir=run,
            policy__pretrained_path=pretrained(offline_run),
            **options,
        )
        == 0
    )
    given, kept = (load_policy(pretrained(folder), "cpu") for folder in (offline_run, run))
    assert np.array_equal(given.acting_block(), kept.acting_block())
    assert given.features.keys() == kept.features.keys()
    tuned = tmp_path / "tuned"
    options |= {"steps": 80, "save_freq": 80}
    assert train(output_dir=tuned, policy__pretrained_path=offline_run, **options) == 0
    assert counters(tuned)["pacing_updates"] == 30
    assert not np.array_equal(
        given.acting_block(), load_policy(pretrained(tuned), "cpu").acting_block()
    )


@pytest.fixture(scope="module")
def online_run(train, tmp_path_factory):
    """A run of 100 steps in the environment, evaluated at its end."""
    folder = tmp_path_factory.mktemp("online") / "run"
    assert train(output_dir=folder, steps=100, save_freq=50, keep_checkpoints=1, **REACH) == 0
    return folder


def test_old_checkpoints_go(online_run):
    names = sorted(path.name for path in (online_run / "checkpoints").iterdir())
    assert names == ["000100", "best", "last"]


def test_the_last_evaluation_is_written(online_run):
    info = json.loads((online_run / "eval/step_000100/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2
    assert (online_run / "train_config.yaml").is_file()


def test_a_policy_of_the_hub_is_judged(online_run, leray, tmp_path, monkeypatch, capsys):
    asked = []

    def download(repo_id, files, revision):
        asked.append(repo_id)
        return pretrained(online_run)

    monkeypatch.setattr("leray.algorithms.hub.download", download)
    options = {"eval__n_episodes": 1, "eval__max_episodes_rendered": 0, "policy__device": "cpu"}
    assert leray("eval", policy__path="lab/visitor", output_dir=tmp_path, **options) == 0
    assert asked == ["lab/visitor"]
    assert "1 episodes in" in capsys.readouterr().out


def test_a_folder_that_does_not_say_its_environment(online_run, leray, tmp_path, capsys):
    """LeRobot writes a file of the same name, with other options."""
    folder = shutil.copytree(pretrained(online_run), tmp_path / "policy")
    (folder / "train_config.json").write_text(json.dumps({"env": {"type": "pusht", "fps": 10}}))
    assert leray("eval", policy__path=folder) == 2
    error = capsys.readouterr().err
    assert "does not say which environment it was trained on: give --env.type" in error
    options = REACH | {"eval__n_episodes": 1, "eval__max_episodes_rendered": 0}
    assert leray("eval", policy__path=folder, output_dir=tmp_path / "eval", **options) == 0


def test_eval_prints_success_and_writes_the_table(online_run, leray, tmp_path, capsys):
    options = {"eval__n_episodes": 3, "eval__max_episodes_rendered": 0, "policy__device": "cpu"}
    code = leray("eval", policy__path=online_run, output_dir=tmp_path / "eval", **options)
    assert code == 0
    info = json.loads((tmp_path / "eval/eval_info.json").read_text())
    expected = f"success {info['overall']['pc_success']:.1f} %"
    assert expected in capsys.readouterr().out
    assert [episode["seed"] for episode in info["per_episode"]] == [1000, 1001, 1002]


def test_eval_on_ray_actors_finds_the_same(online_run, leray, tmp_path):
    options = {"eval__n_episodes": 3, "eval__max_episodes_rendered": 0, "policy__device": "cpu"}
    tables = []
    for runners in (0, 2):
        folder = tmp_path / str(runners)
        options |= {"eval__num_env_runners": runners, "output_dir": folder, "eval__batch_size": 1}
        assert leray("eval", policy__path=pretrained(online_run), **options) == 0
        tables.append(json.loads((folder / "eval_info.json").read_text())["per_episode"])
    assert tables[0] == tables[1]
