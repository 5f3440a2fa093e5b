"""`leray train` with a policy that imitates: validation, judgement in an environment, restarts."""

import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from leray.platform.training import Training

BC = ["--policy.type=bc", "--policy.device=cpu", "--policy.actor_network_kwargs.hidden_dims=[32]"]
RUN = {
    "steps": 60,
    "batch_size": 16,
    "save_freq": 20,
    "log_freq": 20,
    "eval_freq": 20,
    "eval__n_episodes": 2,
    "eval__max_episodes_rendered": 0,
    "mlflow__enable": "false",
    "validation__fraction": 0.2,
}
REACH = {"env__type": "gym", "env__task": "PandaReach-v3"}


@pytest.fixture(scope="module")
def imitate(leray, demonstrations):
    """Call `leray train` for behaviour cloning of the demonstrations; returns the exit code."""
    return lambda **options: leray("train", *BC, **{"dataset__root": demonstrations, **options})


@pytest.fixture(scope="module")
def whole(imitate, tmp_path_factory) -> Path:
    """A run that is validated, and judged in the environment."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert imitate(output_dir=folder, **RUN, **REACH) == 0
    return folder


def recorded(run: Path, name: str) -> dict[int, float]:
    lines = (run / "logs/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["step"]: record[name] for record in records if name in record}


def assert_equal_files(left: Path, right: Path) -> None:
    """Compare the last checkpoints of two runs, but for the files that name folders."""
    first, second = left / "checkpoints/000060", right / "checkpoints/000060"
    names = {str(path.relative_to(first)) for path in first.rglob("*") if path.is_file()}
    assert names == {str(path.relative_to(second)) for path in second.rglob("*") if path.is_file()}
    assert {"pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"} < (
        names
    )
    configs = {"pretrained_model/config.json", "pretrained_model/train_config.json"}
    differing = [
        name
        for name in sorted(names - configs)
        if (first / name).read_bytes() != (second / name).read_bytes()
    ]
    assert differing == []


def test_losses_fall_and_are_recorded(whole):
    losses = recorded(whole, "loss/total")
    held_out = recorded(whole, "validation/loss")
    assert list(losses) == list(held_out) == [20, 40, 60]
    assert held_out[60] < held_out[20]
    assert set(recorded(whole, "eval/return_mean")) == {20, 40, 60}
    assert recorded(whole, "train/updates")[60] == 60
    assert recorded(whole, "train/lr")[60] > 0
    assert (whole / "checkpoints/best").is_symlink()


def test_any_policy_is_judged_on_the_command_line(whole, leray, tmp_path, capsys):
    options = {"eval__n_episodes": 2, "eval__max_episodes_rendered": 0, "policy__device": "cpu"}
    code = leray("eval", policy__path=whole, output_dir=tmp_path / "eval", **options)
    assert code == 0
    assert "ms per action" in capsys.readouterr().out


def test_what_is_killed_and_resumed_is_the_same(imitate, leray, whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    report = Training._report

    def die(self: Training, step: int) -> None:
        report(self, step)
        if step == 40:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_report", die)
        with pytest.raises(RuntimeError, match="killed"):
            imitate(output_dir=run, **RUN, **REACH)
    assert not (run / "checkpoints/000040").exists()
    assert leray("train", "--resume=true", output_dir=run) == 0
    assert_equal_files(whole, run)


@pytest.mark.slow
def test_a_lost_learner_among_two_costs_nothing_but_time(
    imitate, whole, tmp_path, monkeypatch, capsys
):
    """Sums over two learners are rounded otherwise, so this compares with two that go through."""
    runs = [tmp_path / "through", tmp_path / "killed"]
    learners = {"learners__num_learners": 2}
    assert imitate(output_dir=runs[0], **RUN, **learners) == 0
    report = Training._report
    killed = []

    def kill(self: Training, step: int) -> None:
        report(self, step)
        if step == 40 and not killed:
            group = self._algorithm.learner_group
            pids = [result.get() for result in group.foreach_learner(lambda _: os.getpid())]
            killed.append(pids[1])
            os.kill(pids[1], signal.SIGKILL)

    monkeypatch.setattr(Training, "_report", kill)
    capsys.readouterr()
    assert imitate(output_dir=runs[1], **RUN, **learners) == 0
    assert killed
    output = capsys.readouterr().out
    assert output.count("was lost") == output.count("step 40 (restart 1 of 3)") == 1
    assert_equal_files(*runs)
    weights, other = (
        load_file(run / "checkpoints/000060/pretrained_model/model.safetensors")
        for run in (whole, runs[0])
    )
    for name, values in weights.items():
        assert values == pytest.approx(other[name], abs=1e-5)


def test_collecting_is_refused(imitate, tmp_path, capsys):
    options = {**RUN, **REACH, "use_online_training": "true"}
    assert imitate(output_dir=tmp_path / "run", **options) == 2
    assert "--use_online_training=true: bc learns from demonstrations" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_environment_that_does_not_fit_is_refused(imitate, tmp_path, capsys):
    options = {**RUN, "env__type": "gym", "env__task": "Pendulum-v1"}
    assert imitate(output_dir=tmp_path / "run", **options) == 2
    assert "the bc policy of dataset" in capsys.readouterr().err
