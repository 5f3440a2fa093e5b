"""PPO and APPO behind `leray train` and `leray eval`: the same folders, names and errors as sac."""

import json

import pytest
import yaml

from leray.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

COMMON = [
    "--env.type=gym",
    "--policy.hidden_dims=[16]",
    "--policy.device=cpu",
    "--eval.n_episodes=2",
    "--eval.max_episodes_rendered=0",
    "--mlflow.enable=false",
]
OWN = {
    "ppo": ["--env.task=Pendulum-v1", "--batch_size=200", "--policy.minibatch_size=100"],
    "appo": ["--env.task=CartPole-v1", "--batch_size=100", "--policy.trajectory_length=25"],
}


def logged(run):
    lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
    names = set()
    for line in lines:
        names |= json.loads(line).keys() | json.loads(line).get("metrics", {}).keys()
    return names


@pytest.mark.parametrize("kind", list(OWN))
def test_a_run_trains_evaluates_resumes_and_is_judged(tmp_path, capsys, kind):
    run = tmp_path / "run"
    freqs = ["--steps=400", "--save_freq=400", "--log_freq=200", "--eval_freq=400"]
    begin = [f"--policy.type={kind}", *OWN[kind], *COMMON, *freqs, f"--output_dir={run}"]
    assert main(["train", *begin, "--runners.num_env_runners=1"]) == 0
    first = (run / "checkpoints" / "last").resolve()
    assert (first / "pretrained_model" / "model.safetensors").is_file()
    assert json.loads((first / "pretrained_model" / "config.json").read_text())["type"] == kind
    step = json.loads((first / "training_state" / "training_step.json").read_text())["step"]
    assert 400 <= step < 600
    names = logged(run)
    assert {"train/episode_return", "train/entropy", "loss/policy", "eval/return_mean"} <= names

    assert main(["train", "--resume=true", f"--output_dir={run}", "--steps=800"]) == 0
    last = (run / "checkpoints" / "last").resolve()
    resumed = json.loads((last / "training_state" / "training_step.json").read_text())
    assert resumed["step"] >= 800
    assert resumed["updates"] > 0
    assert yaml.safe_load((run / "train_config.yaml").read_text())["steps"] == 800

    judged = tmp_path / "judged"
    options = ["--eval.n_episodes=2", "--eval.max_episodes_rendered=0", f"--output_dir={judged}"]
    capsys.readouterr()
    assert main(["eval", f"--policy.path={run}", *options]) == 0
    assert "2 episodes" in capsys.readouterr().out
    assert json.loads((judged / "eval_info.json").read_text())["overall"]["n_episodes"] == 2


@pytest.mark.parametrize("kind", list(OWN))
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy.lr=0"], "--policy.lr=0.0: give a number > 0"),
        (["--policy.utd_ratio=2"], "utd_ratio belongs to --policy.type=sac"),
        (["--env.task=CartPole-v9"], "CartPole-v9"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, kind, options, message):
    start = [f"--policy.type={kind}", *OWN[kind], *COMMON, f"--output_dir={tmp_path / 'run'}"]
    assert main(["train", *start, *options]) == 2
    error = capsys.readouterr().err
    assert_one_line(error, message)


def assert_one_line(error, message):
    *_, last = error.splitlines()  # RLlib may have warned before
    assert last.startswith("leray train: error: ")
    assert message in last
    assert error.count("leray train: error: ") == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "reach"
    options = ["--env.type=gym", "--env.task=PandaReach-v3", "--dataset.num_episodes=1"]
    assert main(["record", *options, f"--dataset.root={root}"]) == 0
    return root


@pytest.mark.parametrize("kind", list(OWN))
@pytest.mark.parametrize(
    ("online", "message"),
    [("false", "learns online only"), ("true", "drop --dataset.*")],
)
def test_datasets_are_refused(tmp_path, capsys, dataset, kind, online, message):
    start = [f"--policy.type={kind}", *OWN[kind], *COMMON, f"--output_dir={tmp_path / 'run'}"]
    options = [f"--dataset.root={dataset}", f"--use_online_training={online}"]
    assert main(["train", *start, *options]) == 2
    error = capsys.readouterr().err
    assert_one_line(error, message)
