"""Sweeps through the command: folders, tables, MLflow, kills, and exchanges of checkpoints."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from leray.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
RATES = {"policy.optimizer_lr": {"grid": [1e-5, 1e-3, 1e-2]}}


def sweep(file, root, *flags):
    return main(["sweep", f"--config_path={file}", f"--output_dir={root}", *flags])


def table(root):
    with (root / "results.csv").open() as file:
        return list(csv.DictReader(file))


def metrics(root, trial):
    lines = (root / "trials" / trial / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mlflow_runs(tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("leray")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return client, parents, [run for run in runs if run not in parents]


def assert_every_point_once(tmp_path, root):
    """MLflow holds what the trials' own records hold, each point once."""
    client, _, children = mlflow_runs(tmp_path)
    trials = sorted(path.name for path in (root / "trials").iterdir())
    assert sorted(run.info.run_name.rsplit("_", 2)[-2:] for run in children) == sorted(
        trial.rsplit("_", 1) for trial in trials
    )
    for run in children:
        trial = "_".join(run.info.run_name.rsplit("_", 2)[-2:])
        recorded = metrics(root, trial)
        for name in ("validation/loss", "loss/total"):
            steps = [record["step"] for record in recorded if name in record]
            assert steps == sorted(set(steps))
            assert [m.step for m in client.get_metric_history(run.info.run_id, name)] == steps


@pytest.mark.usefixtures("ray_session")
def test_every_trial_is_a_run_and_the_best_is_kept(write_sweep, tmp_path, capsys):
    root = tmp_path / "sweep"
    assert sweep(write_sweep(space=RATES, search="grid"), root) == 0
    rows = table(root)
    assert [row["status"] for row in rows] == ["finished"] * 3
    losses = [float(row["best validation/loss"]) for row in rows]
    assert losses == sorted(losses)
    rates = {float(row["config/policy.optimizer_lr"]) for row in rows}
    assert rates == {1e-5, 1e-3, 1e-2}
    assert float(rows[-1]["config/policy.optimizer_lr"]) == 1e-5
    for row in rows:
        run = root / "trials" / row["trial_id"]
        assert (run / "checkpoints" / "last" / "pretrained_model" / "model.safetensors").is_file()
        assert [m["step"] for m in metrics(root, row["trial_id"]) if "validation/loss" in m] == [
            20,
            40,
            60,
        ]
    best = (root / "best" / "pretrained_model" / "model.safetensors").read_bytes()
    of_best = root / "trials" / rows[0]["trial_id"] / "checkpoints" / "best" / "pretrained_model"
    assert best == (of_best / "model.safetensors").read_bytes()
    assert "<html" in (root / "results.html").read_text()
    assert rows[0]["trial_id"] in capsys.readouterr().out
    _, parents, children = mlflow_runs(tmp_path)
    assert len(parents) == 1
    assert len(children) == 3
    assert {float(run.data.params["policy.optimizer_lr"]) for run in children} == rates
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert parents[0].data.metrics["sweep/best"] == pytest.approx(losses[0])
    assert {run.info.status for run in children + parents} == {"FINISHED"}
    assert_every_point_once(tmp_path, root)


@pytest.mark.usefixtures("ray_session")
def test_trials_that_are_behind_are_stopped(write_sweep, tmp_path):
    root = tmp_path / "sweep"
    file = write_sweep(
        space={"policy.optimizer_lr": {"grid": [1e-2, 1e-3, 1e-5, 1e-6]}},
        search="grid",
        scheduler={"type": "asha", "grace_steps": 20, "reduction_factor": 2},
        max_concurrent_trials=1,
        mode="min",
    )
    assert sweep(file, root) == 0
    status = {float(row["config/policy.optimizer_lr"]): row["status"] for row in table(root)}
    del status[1e-3]  # about as good as the best
    assert status == {1e-2: "finished", 1e-5: "stopped", 1e-6: "stopped"}


@pytest.mark.usefixtures("ray_session")
def test_population_based_training_exchanges_checkpoints(write_sweep, tmp_path):
    root = tmp_path / "sweep"
    file = write_sweep(
        space={"policy.optimizer_lr": {"loguniform": [1e-6, 1e-2]}},
        scheduler={"type": "pbt", "perturbation_steps": 20, "quantile_fraction": 0.5},
        num_trials=2,
        train={"steps": 120},
    )
    assert sweep(file, root) == 0
    forked = [path for path in (root / "trials").glob("*/logs/forks.json")]
    assert forked
    for path in forked:
        trial = path.parent.parent.name
        token = json.loads(path.read_text())["tokens"][0]
        assert not token.startswith(trial)
        rates = [record["train/lr"] for record in metrics(root, trial) if "train/lr" in record]
        assert len(set(rates)) > 1
    assert {row["status"] for row in table(root)} == {"finished"}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(write_sweep, tmp_path):
    root = tmp_path / "sweep"
    space = {"seed": {"grid": [1, 2, 3, 4, 5]}}
    file = write_sweep(
        space=space, search="grid", max_concurrent_trials=2, train={"steps": 3000, "eval_freq": 500}
    )
    command = [sys.executable, "-m", "leray", "sweep", f"--config_path={file}"]
    process = subprocess.Popen(
        [*command, f"--output_dir={root}"], start_new_session=True, env=own_cluster()
    )
    wait_until(process, lambda: len(finished(root)) >= 2)
    done = finished(root)
    time.sleep(1.5)  # the sweep's own record is a second behind
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {trial: metrics(root, trial) for trial in done}
    subprocess.run(
        [*command[:4], "--resume=true", f"--output_dir={root}"], check=True, env=own_cluster()
    )
    rows = table(root)
    assert Counter(row["status"] for row in rows) == {"finished": 5}
    assert sorted(int(row["config/seed"]) for row in rows) == [1, 2, 3, 4, 5]
    for trial, records in before.items():
        assert metrics(root, trial) == records
    assert_every_point_once(tmp_path, root)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_sweep_that_is_stopped_saves_checkpoints(write_sweep, tmp_path, number):
    root = tmp_path / "sweep"
    train = {"steps": 200_000, "eval_freq": 100, "save_freq": 100_000, "log_freq": 100}
    file = write_sweep(space={"seed": {"grid": [1, 2]}}, search="grid", train=train)
    command = [sys.executable, "-m", "leray", "sweep"]
    process = subprocess.Popen(
        [*command, f"--config_path={file}", f"--output_dir={root}"],
        start_new_session=True,
        env=own_cluster(),
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until(process, lambda: len(list(root.glob("trials/*/eval/best.json"))) == 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130
    assert f"leray sweep --resume=true --output_dir={root}" in output
    for run in (root / "trials").iterdir():
        judged = json.loads((run / "eval" / "best.json").read_text())["judged"]
        assert int(os.readlink(run / "checkpoints" / "last")) >= judged
    _, parents, children = mlflow_runs(tmp_path)
    assert {run.info.status for run in parents + children} == {"KILLED"}


def wait_until(process, condition, timeout_s=240):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def own_cluster():
    return {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}


def finished(root):
    """Return the trials that have been judged at their last step."""
    trials = root / "trials"
    if not trials.is_dir():
        return []
    found = []
    for run in trials.iterdir():
        path = run / "eval" / "best.json"
        if path.is_file() and json.loads(path.read_text()).get("judged") == 3000:
            found.append(run.name)
    return found
