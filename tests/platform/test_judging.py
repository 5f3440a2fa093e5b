"""Validation, the best checkpoint, and evaluation of a run that learns from a dataset alone."""

import json
from pathlib import Path

import pytest

from leray.algorithms.offpolicy.algorithm import OffPolicyAlgorithm
from leray.platform.training import Training

RUN = {"steps": 60, "save_freq": 40, "log_freq": 20, "eval_freq": 10}
HELD_OUT = {**RUN, "validation__fraction": 0.1}
LOSSES = {10: 5.0, 20: 3.0, 30: 4.0, 40: 3.5, 50: 2.0, 60: 2.5}
"""What validation finds, by update."""


@pytest.fixture
def losses(monkeypatch):
    """Let validation find those losses; returns the updates at which it was asked."""
    asked = []

    def validate(self: OffPolicyAlgorithm) -> dict[str, float]:
        asked.append(self.num_updates)
        loss = LOSSES[self.num_updates]
        return {"validation/loss": loss, "validation/l1": 2 * loss}

    monkeypatch.setattr(OffPolicyAlgorithm, "validate", validate)
    return asked


def checkpoints(run: Path) -> dict[str, str | None]:
    """Return the names in the folder of checkpoints, and what links point to."""
    found = sorted((run / "checkpoints").iterdir())
    return {path.name: str(path.readlink()) if path.is_symlink() else None for path in found}


def recorded(run: Path, name: str) -> dict[int, float]:
    lines = (run / "logs/metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["step"]: record[name] for record in records if name in record}


def test_validation_is_recorded_at_each_evaluation_and_the_best_is_kept(
    train, demonstrations, losses, tmp_path, capsys
):
    run = tmp_path / "run"
    assert train(output_dir=run, dataset__root=demonstrations, keep_checkpoints=1, **HELD_OUT) == 0
    assert losses == [10, 20, 30, 40, 50, 60]
    assert recorded(run, "validation/loss") == LOSSES
    assert recorded(run, "validation/l1") == {step: 2 * loss for step, loss in LOSSES.items()}
    links = {"best": "000050", "last": "000060"}
    assert checkpoints(run) == {"000050": None, "000060": None, **links}
    output = capsys.readouterr().out
    assert "validated at step 30: loss 4, l1 8 in" in output
    assert "best so far: validation/loss 2 at step 50" in output
    assert "update 60/60 (100%)" in output


def test_a_resumed_run_remembers_its_best(leray, train, demonstrations, losses, tmp_path):
    run = tmp_path / "run"
    assert train(output_dir=run, dataset__root=demonstrations, **HELD_OUT | {"steps": 30}) == 0
    assert checkpoints(run)["best"] == "000020"
    assert leray("train", "--resume=true", output_dir=run, steps=40) == 0
    assert checkpoints(run)["best"] == "000020"  # 3.5 at update 40 is worse
    assert leray("train", "--resume=true", output_dir=run, steps=60) == 0
    assert checkpoints(run)["best"] == "000050"
    assert losses == [10, 20, 30, 40, 50, 60]


def test_what_a_stop_left_unjudged_is_judged_when_the_run_goes_on(
    leray, train, demonstrations, losses, tmp_path, monkeypatch
):
    run = tmp_path / "run"

    def die(self: Training, step: int) -> dict[str, float]:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_validate", die)
        with pytest.raises(RuntimeError, match="killed"):
            train(output_dir=run, dataset__root=demonstrations, **HELD_OUT | {"save_freq": 10})
    assert checkpoints(run) == {"000010": None, "last": "000010"}
    assert leray("train", "--resume=true", output_dir=run) == 0
    assert losses == [10, 20, 30, 40, 50, 60]


def test_an_asked_for_figure_decides(train, demonstrations, losses, tmp_path, capsys):
    run = tmp_path / "run"
    options = HELD_OUT | {"dataset__root": demonstrations, "steps": 20}
    assert train(output_dir=run, best_metric="validation/l2", **options) == 0
    assert "best" not in checkpoints(run)
    message = "--best_metric=validation/l2 is not measured; there are validation/loss, validation/"
    assert capsys.readouterr().out.count(message) == 1


def test_a_policy_without_figures_on_held_out_episodes_says_so_once(
    train, demonstrations, tmp_path, capsys
):
    run = tmp_path / "run"
    assert train(output_dir=run, dataset__root=demonstrations, **HELD_OUT | {"steps": 30}) == 0
    assert capsys.readouterr().out.count("sac has no figures on held-out episodes") == 1
    assert "best" not in checkpoints(run)
    config = json.loads((run / "checkpoints/last/pretrained_model/train_config.json").read_text())
    assert config["validation"] == {"fraction": 0.1, "episodes": None}


def test_an_environment_may_judge_what_learns_from_a_dataset_alone(train, demonstrations, tmp_path):
    run = tmp_path / "run"
    task = {"env__type": "gym", "env__task": "PandaReach-v3", "use_online_training": "false"}
    options = RUN | {"eval_freq": 20, "steps": 40, "save_freq": 100}
    assert train(output_dir=run, dataset__root=demonstrations, **task, **options) == 0
    rates = recorded(run, "eval/success_rate")
    assert list(rates) == [20, 40]
    assert checkpoints(run)["best"] == ("000040" if rates[40] > rates[20] else "000020")
    latency = recorded(run, "eval/act_ms_p50")[40]
    info = json.loads((run / "eval/step_000040/eval_info.json").read_text())["overall"]
    assert 1000 * info["act_s_p50"] == latency > 0
    assert info["act_s_p95"] >= info["act_s_p50"]
    assert {path.name for path in (run / "eval/step_000020").iterdir()} == {"eval_info.json"}
    assert not (run / "replay/online").exists()
    assert "time/env_steps_per_s" not in (run / "logs/metrics.jsonl").read_text()
    rate = recorded(run, "time/updates_per_s")[40]
    assert recorded(run, "time/samples_per_s")[40] == pytest.approx(16 * rate)


def test_an_environment_that_does_not_fit_is_refused_before_training(
    train, demonstrations, tmp_path, capsys
):
    task = {"env__type": "gym", "env__task": "Pendulum-v1", "use_online_training": "false"}
    code = train(output_dir=tmp_path / "run", dataset__root=demonstrations, **task, **RUN)
    assert code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("leray train")]
    assert f"the sac policy of dataset {demonstrations} and environment Pendulum-v1 do" in line
    assert "observation.state (shape [6] against [3])" in line
    assert "action (shape [3] against [1])" in line
    assert not (tmp_path / "run/checkpoints/last").exists()


def test_another_task_of_the_same_shapes_is_not_mistaken(train, demonstrations, tmp_path):
    """Pushing has more to observe than reaching, although robot and action are the same."""
    task = {"env__type": "gym", "env__task": "PandaPush-v3", "use_online_training": "false"}
    assert train(output_dir=tmp_path / "run", dataset__root=demonstrations, **task, **RUN) == 2
