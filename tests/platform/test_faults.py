"""What goes wrong at a user's desk: one line, exit code 2, and nothing that was there is lost."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from leray.data.lerobot.reader import DatasetReader
from leray.errors import CheckpointError
from leray.platform.evaluation import load_policy
from leray.platform.run_directory import RunDirectory

REACH = {"env__type": "gym", "env__task": "PandaReach-v3"}
PENDULUM = {"env__type": "gym", "env__task": "Pendulum-v1"}
RUN = {"steps": 20, "save_freq": 10, **REACH}


@pytest.fixture
def refused(capsys):
    """Check that a call was refused in one line; returns the line."""

    def check(code, command="train"):
        output = capsys.readouterr()
        lines = [line for line in output.err.splitlines() if line.startswith("leray")]
        assert code == 2, output
        assert len(lines) == 1, output.err
        assert lines[0].startswith(f"leray {command}: error: ")
        assert "Traceback" not in output.err + output.out
        return lines[0]

    return check


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A finished run of 20 steps with two checkpoints."""
    folder = tmp_path_factory.mktemp("faults") / "run"
    assert train(output_dir=folder, **RUN) == 0
    return folder


@pytest.fixture
def damaged(run, tmp_path):
    """A copy of the run that may be damaged."""
    return Path(shutil.copytree(run, tmp_path / "run", symlinks=True))


def test_the_program_itself_prints_one_line_and_nothing_else(tmp_path):
    """The whole standard error of a process of its own, for a mistake found before Ray starts."""
    process = subprocess.run(
        [sys.executable, "-m", "leray", "train", "--policy.type=sac", "--stepps=5"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        timeout=120,
    )
    assert process.returncode == 2
    assert process.stdout == ""
    assert re.fullmatch(r"leray train: error: .*--stepps.*--steps.*\n", process.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batchsize": 3}, "--batch_size"),
        ({"steps": "many"}, "--steps=many"),
        ({"steps": 0}, "--steps=0: give a whole number >= 1"),
        ({"policy__utd_ratio": -1}, "utd_ratio"),
        ({"env__task": "PandaReech-v3"}, "PandaReach-v3"),
        ({"env__kwargs": "{nonsense: 1}"}, "nonsense"),
        ({"runners__clock": "async"}, "num_env_runners >= 1"),
        ({"dataset__root": "nowhere"}, "nowhere"),
        ({"dataset__repo_id": "no/such"}, "no/such"),
        ({"policy__pretrained_path": "nowhere"}, "nowhere: no such folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused(train, refused, tmp_path, options, message):
    code = train(**{"output_dir": tmp_path / "run", **RUN, **options})
    assert message in refused(code)


def test_a_wrong_environment_on_remote_runners_is_refused_alike(train, refused, tmp_path):
    options = RUN | {"env__task": "PandaReech-v3", "runners__num_env_runners": 1}
    assert "PandaReach-v3" in refused(train(output_dir=tmp_path / "run", **options))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(train, refused, tmp_path):
    line = refused(train(output_dir=tmp_path / "run", **RUN, policy__device="cuda"))
    assert "'cuda' cannot be used here" in line


def test_a_folder_in_use(train, refused, run):
    before = sorted(run.rglob("*"))
    assert "exists and is not empty" in refused(train(output_dir=run, **RUN))
    assert sorted(run.rglob("*")) == before


def test_nothing_to_resume(leray, refused, tmp_path):
    code = leray("train", "--resume=true", output_dir=tmp_path / "nothing")
    assert "nothing" in refused(code)


def test_a_corrupt_dataset(train, refused, demonstrations, tmp_path):
    root = Path(shutil.copytree(demonstrations, tmp_path / "data"))
    (file, *_) = sorted((root / "data").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-200])
    line = refused(train(output_dir=tmp_path / "run", dataset__root=root, **RUN))
    assert str(file) in line


def test_a_dataset_of_another_environment_names_both(train, refused, demonstrations, tmp_path):
    options = RUN | PENDULUM
    line = refused(train(output_dir=tmp_path / "run", dataset__root=demonstrations, **options))
    assert "environment Pendulum-v1 and dataset" in line
    assert str(demonstrations) in line
    assert "observation.state (shape [3] against [6])" in line


@pytest.mark.parametrize(
    "name",
    [
        "pretrained_model/model.safetensors",
        "training_state/optimizer_state.safetensors",
        "training_state/replay_state.json",
        "training_state/training_step.json",
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "other"])
def test_a_damaged_checkpoint(leray, refused, damaged, name, damage):
    path = damaged / "checkpoints/last" / name
    if damage == "missing":
        path.unlink()
    else:
        whole = path.read_bytes()
        other = b"{}" if name.endswith("json") else whole[:-1]
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "empty": b"", "other": other}[damage]
        )
    line = refused(leray("train", "--resume=true", output_dir=damaged, steps=30))
    assert str(damaged) in line
    assert (damaged / "checkpoints/000010").is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_policy_is_not_evaluated(leray, refused, damaged, name):
    path = damaged / "checkpoints/last/pretrained_model" / name
    path.write_bytes(path.read_bytes()[:100])
    line = refused(leray("eval", policy__path=damaged, policy__device="cpu"), "eval")
    assert name in line


@pytest.mark.parametrize("text", ["", "steps: [", "steps: 30", "nonsense: 1"])
def test_a_damaged_run_config(leray, refused, damaged, text):
    (damaged / "train_config.yaml").write_text(text)
    line = refused(leray("train", "--resume=true", output_dir=damaged, steps=30))
    assert "train_config.yaml" in line or "--policy" in line


def test_a_recording_without_expert(leray, refused, tmp_path):
    code = leray(
        "record", env__type="gym", env__task="HalfCheetah-v5", dataset__root=tmp_path / "data"
    )
    assert "HalfCheetah-v5" in refused(code, "record")


@pytest.fixture
def small_disk():
    """A file system of 3 MB, where this user may mount one."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def fill_disk(filler):
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def assert_goes_on(train, folder):
    """Check that the last checkpoint is whole and that the run goes on from it."""
    step, checkpoint = RunDirectory(folder).last_checkpoint()
    assert step == 10
    load_policy(checkpoint / "pretrained_model", "cpu")
    assert train("--resume=true", output_dir=folder, **RUN) == 0
    assert RunDirectory(folder).last_checkpoint()[0] == 20


def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(train, refused, small_disk, monkeypatch):
    from leray.platform.training import Training

    filler = small_disk / "filler"

    def fill(self: Training, step: int, original=Training._checkpoint) -> None:
        if step == 20:
            fill_disk(filler)
        original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_checkpoint", fill)
        line = refused(train(output_dir=small_disk / "run", **RUN))
    assert "No space left on device" in line
    assert f"leray train --resume=true --output_dir={small_disk / 'run'}" in line
    filler.unlink()
    assert_goes_on(train, small_disk / "run")


def test_a_write_that_fails_at_a_checkpoint_keeps_the_one_before(
    train, refused, tmp_path, monkeypatch
):
    """As on a full disk, but where nothing can be mounted: a limit on the size of files."""
    from leray.platform.training import Training

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then raise instead

    def limit(self: Training, step: int, original=Training._checkpoint) -> None:
        if step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            original(self, step)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Training, "_checkpoint", limit)
            line = refused(train(output_dir=tmp_path / "run", **RUN))
    finally:
        signal.signal(signal.SIGXFSZ, ignored)
    assert "checkpoint not written" in line
    assert_goes_on(train, tmp_path / "run")


def test_an_interrupted_write_of_a_checkpoint_is_cleared_away(train, damaged):
    leftover = damaged / "checkpoints/.tmp-000030-abcdef"
    leftover.mkdir()
    assert train("--resume=true", output_dir=damaged, **RUN | {"steps": 30}) == 0
    assert not leftover.exists()
    assert RunDirectory(damaged).last_checkpoint()[0] == 30


def test_the_dataset_is_untouched_by_all_of_this(demonstrations):
    assert DatasetReader.open(demonstrations).findings == []
    assert json.loads((demonstrations / "meta/info.json").read_text())["total_episodes"] == 25


def test_an_error_of_a_checkpoint_is_of_its_own_kind(damaged):
    path = damaged / "checkpoints/last/pretrained_model/model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_policy(path.parent, "cpu")
