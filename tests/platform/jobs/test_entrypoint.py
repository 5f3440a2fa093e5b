import re
import shlex
import subprocess
import sys

import pytest

from leray.platform.jobs.config import SubmitConfig
from leray.platform.jobs.entrypoint import make_entrypoint, option

TRAIN = ["train", "--policy.type=sac", "--env.task=a b; c"]


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def made(arguments=TRAIN, *, here=False, num_nodes=1, **options):
    config = SubmitConfig(**options)
    config.arguments = list(arguments)
    return make_entrypoint(config, head_is_here=here, num_nodes=num_nodes)


def test_here_it_runs_in_the_user_s_folder_with_this_python(monkeypatch, tmp_path):
    folder = tmp_path / "my runs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    entrypoint = made(here=True)
    assert entrypoint.warnings == []
    assert entrypoint.command == (
        f"cd '{folder}' && exec env PYTHONSAFEPATH=1 {sys.executable} -m leray "
        "train --policy.type=sac '--env.task=a b; c'"
    )
    shown = subprocess.run(
        entrypoint.command.replace("-m leray", "-c 'import os; print(os.getcwd())'"),
        shell=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == f"{folder}\n"


def test_elsewhere_it_runs_in_the_copy_with_the_node_s_python():
    assert shlex.split(made().command) == ["python", "-m", "leray", *TRAIN]
    assert made(python="/opt/py/bin/python").command.startswith("/opt/py/bin/python -m leray ")


@pytest.mark.parametrize(
    ("options", "num_nodes", "here"),
    [
        ({}, 3, True),
        ({"entrypoint_num_cpus": 1}, 1, True),
        ({"entrypoint_num_gpus": 1}, 3, False),
        ({"entrypoint_label_selector": {"site": "lab"}}, 2, False),
    ],
)
def test_what_reserves_something_may_run_on_any_node(options, num_nodes, here):
    entrypoint = made(here=True, num_nodes=num_nodes, **options)
    assert entrypoint.command.startswith("cd ") is here
    assert (entrypoint.warnings == []) is here


@pytest.mark.parametrize(
    ("arguments", "num_nodes", "said"),
    [
        (TRAIN, 1, "results go to outputs in the job's copy of the working directory, on a node,"),
        ([*TRAIN, "--output_dir=runs/a"], 3, "results go to runs/a in .* on one of 3 nodes, .*all"),
        ([*TRAIN, "--output_dir", "runs/a"], 3, "results go to runs/a in "),
    ],
)
def test_results_that_will_be_lost_are_warned_of(arguments, num_nodes, said, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    (warning,) = made(arguments, num_nodes=num_nodes).warnings
    assert re.match(said, warning), warning


@pytest.mark.parametrize(
    "arguments",
    [
        [*TRAIN, "--output_dir=/shared/a"],
        ["train", "--output_dir=s3://bucket/a"],
        ["train", "--resume=true", "--config_path=/shared/a/train_config.yaml"],
        ["info"],
    ],
)
def test_results_that_stay_are_not(arguments, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert made(arguments, num_nodes=3).warnings == []


def test_metrics_without_a_server_are_warned_of():
    stays = [*TRAIN, "--output_dir=/shared/a"]
    (warning,) = made(stays).warnings
    assert warning.startswith("metrics go to outputs/mlflow.db in that copy: ")
    assert made([*stays, "--mlflow.enable=false"]).warnings == []
    assert made([*stays, "--mlflow.tracking_uri=http://a"]).warnings == []
    assert made(stays, env={"MLFLOW_TRACKING_URI": "http://a"}).warnings == []


def test_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert made(env={"A": "1"}).env == {"RAY_JOB_STOP_WAIT_TIME_S": "600", "A": "1"}
    assert made(here=True).env["MLFLOW_TRACKING_URI"] == "sqlite:///mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert made(stop_wait_s=9).env == {
        "RAY_JOB_STOP_WAIT_TIME_S": "9",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    }
    given = {"MLFLOW_TRACKING_URI": "http://other"}
    assert made(env=given).env["MLFLOW_TRACKING_URI"] == "http://other"


def test_an_option_s_last_value_counts():
    assert option(["train", "--a=1", "--a", "2"], "a") == "2"
    assert option(["train", "--ab=1"], "a") is None
