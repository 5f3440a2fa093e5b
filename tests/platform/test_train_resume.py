"""A run that is killed and resumed equals one that was not, bit for bit, on the sync clock."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leray.algorithms.registry import load_policy
from leray.algorithms.replay.ring import ReplayBuffer

N = 120
PENDULUM = {"env__type": "gym", "env__task": "Pendulum-v1"}
REACH = {"env__type": "gym", "env__task": "PandaReach-v3"}
RUN = {"steps": 2 * N, "save_freq": N, "eval_freq": N, "log_freq": 60}

KILLED = f"""
import os, signal, sys
from leray.algorithms.offpolicy.algorithm import OffPolicyAlgorithm
from leray.cli import main

receive = OffPolicyAlgorithm._receive

def receive_and_die(self, fragments):
    receive(self, fragments)
    if self.env_steps >= {N} + 37:
        os.kill(os.getpid(), signal.SIGKILL)

OffPolicyAlgorithm._receive = receive_and_die
main(sys.argv[1:])
"""


def files(run: Path, step: int) -> dict[str, bytes]:
    """Return what a checkpoint's files hold, but those that name folders: the two configs."""
    checkpoint = run / "checkpoints" / f"{step:06d}"
    found = {
        str(path.relative_to(checkpoint)): path.read_bytes()
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name not in ("train_config.json", "config.json")
    }
    assert {"pretrained_model/model.safetensors", "training_state/replay_state.json"} < set(found)
    return found


def replay_rows(run: Path, name: str) -> dict[str, Any]:
    """Return everything in a run's replay."""
    features = load_policy(run / "checkpoints/last/pretrained_model", "cpu").features
    return ReplayBuffer(features, 2 * N, folder=run / "replay" / name).live_columns()


def assert_equal_runs(left: Path, right: Path, *, replays: tuple[str, ...] = ("online",)) -> None:
    first, second = files(left, 2 * N), files(right, 2 * N)
    assert first.keys() == second.keys()
    differing = [name for name in first if first[name] != second[name]]
    assert differing == []
    for name in replays:
        rows, others = replay_rows(left, name), replay_rows(right, name)
        assert len(rows["next"]) > N
        for key, column in rows.items():
            assert np.array_equal(column, others[key]), (name, key)


@pytest.fixture
def kill_and_resume(spawn_train, train) -> Callable[..., None]:
    def run(folder: Path, **options: Any) -> None:
        process = spawn_train(script=KILLED, output_dir=folder, **RUN, **options)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL, output
        assert (folder / f"checkpoints/{N:06d}").is_dir()
        assert not (folder / f"checkpoints/{2 * N:06d}").exists()
        # the command of the user: everything else comes from the run's folder
        from leray.cli import main

        assert main(["train", "--resume=true", f"--output_dir={folder}"]) == 0

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory) -> Path:
    """A run of 2N steps in one go."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(output_dir=folder, **RUN, **PENDULUM) == 0
    return folder


def test_a_killed_and_resumed_run_equals_one_in_one_go(whole, kill_and_resume, tmp_path):
    kill_and_resume(tmp_path / "run", **PENDULUM)
    assert_equal_runs(whole, tmp_path / "run")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole, train, tmp_path):
    assert train(output_dir=tmp_path / "same", **RUN, **PENDULUM) == 0
    assert_equal_runs(whole, tmp_path / "same")
    assert train(output_dir=tmp_path / "other", seed=5, **RUN, **PENDULUM) == 0
    weights = "pretrained_model/model.safetensors"
    assert files(whole, 2 * N)[weights] != files(tmp_path / "other", 2 * N)[weights]


def test_demonstrations_mixed_in_resume_exactly(train, kill_and_resume, demonstrations, tmp_path):
    options = {**REACH, "dataset__root": demonstrations}
    assert train(output_dir=tmp_path / "whole", **RUN, **options) == 0
    kill_and_resume(tmp_path / "killed", **options)
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed", replays=("online", "offline"))
    assert len(replay_rows(tmp_path / "whole", "offline")["next"]) > 25


def test_remote_env_runners_on_the_sync_clock_resume_exactly(train, kill_and_resume, tmp_path):
    options = {
        **PENDULUM,
        "runners__clock": "sync",
        "runners__num_env_runners": 1,
        "runners__num_envs_per_env_runner": 2,
        "runners__rollout_fragment_length": 2,
    }
    assert train(output_dir=tmp_path / "whole", **RUN, **options) == 0
    kill_and_resume(tmp_path / "killed", **options)
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")


def test_a_run_killed_before_its_first_checkpoint_begins_anew(whole, train, tmp_path, monkeypatch):
    from leray.platform.training import Training

    def die(self: Training, step: int) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_checkpoint", die)
        with pytest.raises(RuntimeError, match="killed"):
            train(output_dir=tmp_path / "run", **RUN, **PENDULUM)
    assert train("--resume=true", output_dir=tmp_path / "run", **RUN, **PENDULUM) == 0
    assert_equal_runs(whole, tmp_path / "run")


def test_checkpoints_say_what_they_hold(whole):
    counters = json.loads(
        (whole / f"checkpoints/{N:06d}/training_state/training_step.json").read_text()
    )
    assert counters["step"] == counters["env_steps"] == N
    assert counters["pacing_updates"] == N - 50  # one per step after the warm-up
    assert (whole / "checkpoints/last").resolve().name == f"{2 * N:06d}"
