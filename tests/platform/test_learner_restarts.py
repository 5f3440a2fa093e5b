"""Real deaths of a learner's process: training goes on from the last checkpoint, sample-exact."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from leray.algorithms.offpolicy.learner import OffPolicyLearner
from leray.platform.training import Training

RUN = {"steps": 60, "save_freq": 20, "log_freq": 10}
ONE = {"learners__num_learners": 1}
POLICY = "checkpoints/000060/pretrained_model/model.safetensors"
OPTIMISER = "checkpoints/000060/training_state/optimizer_state.safetensors"


@pytest.fixture
def deaths(monkeypatch) -> Callable[..., None]:
    """Kill the learner's process when training has come to certain updates, once for each."""

    def at(*updates: int) -> None:
        waiting = list(updates)
        report = Training._report

        def report_and_kill(self: Training, step: int) -> None:
            report(self, step)
            if waiting and step >= waiting[0]:
                waiting.pop(0)
                group = self._algorithm.learner_group
                (pid,) = [r.get() for r in group.foreach_learner(lambda _: os.getpid())]
                assert pid != os.getpid()
                os.kill(pid, signal.SIGKILL)

        monkeypatch.setattr(Training, "_report", report_and_kill)

    return at


@pytest.fixture(scope="module")
def whole(train, demonstrations, tmp_path_factory) -> Path:
    """A run that nothing happens to, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(output_dir=folder, dataset__root=demonstrations, **RUN) == 0
    return folder


def test_training_goes_on_exactly(train, demonstrations, whole, deaths, tmp_path, capsys):
    deaths(10, 50)  # before the first checkpoint, and after another
    code = train(output_dir=tmp_path / "run", dataset__root=demonstrations, **ONE, **RUN)
    output = capsys.readouterr()
    assert code == 0, output
    said = re.findall(r"^learner 0 of 1 was lost.*$", output.out, re.MULTILINE)
    steps = ["step 0 (restart 1 of 3)", "step 40 (restart 2 of 3)"]
    assert [line[-len(step) :] for line, step in zip(said, steps, strict=True)] == steps
    assert "Traceback" not in output.out + output.err
    for name in (POLICY, OPTIMISER):
        assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_the_run_gives_up_and_says_how_to_go_on(train, demonstrations, deaths, tmp_path, capsys):
    deaths(30)
    options = {**ONE, **RUN, "learners__max_restarts": 0}
    assert train(output_dir=tmp_path / "run", dataset__root=demonstrations, **options) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("leray train")]
    assert f"leray train --resume=true --output_dir={tmp_path / 'run'} (after 0 restarts" in line
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "000020",
        "last",
    ]


def test_a_defect_in_a_learner_is_no_death(train, demonstrations, tmp_path, monkeypatch, capsys):
    def fail(self: OffPolicyLearner, num_updates: int) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(OffPolicyLearner, "train", fail)
    with pytest.raises(ZeroDivisionError):
        train(output_dir=tmp_path / "run", dataset__root=demonstrations, **RUN)
    assert "restart" not in capsys.readouterr().out
