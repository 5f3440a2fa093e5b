"""Runs that are brought to stores in memory and in folders, and what to compare them by."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from leray.algorithms.replay.ring import ReplayBuffer
from leray.platform.home import index, lock, mirror
from leray.platform.run_directory import RunDirectory
from tests.algorithms.replay.crash_writer import FEATURES, fragment
from tests.platform.home.shelf import Shelf

CAPACITY, SLACK = 64, 128


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait long, nor for a disk: power cuts are not tested here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(index, "READ_PAUSE_S", 0.005)
    monkeypatch.setattr(lock, "SETTLE_S", 0.005)
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(mirror, "LOOK_S", 0.01)
    monkeypatch.setattr(mirror, "SYNC_S", 0.02)
    monkeypatch.setattr(mirror, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(mirror, "PATIENCE_S", 0.5)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be on a machine of the given name: one that has seen no other's local folders."""

    def be_on(name: str) -> None:
        monkeypatch.setenv("LERAY_SCRATCH", str(tmp_path / name))

    be_on("first")
    return be_on


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[str]:
    """Return an address in a folder that is used as a store."""
    Shelf.reset()
    yield f"shelf:/{tmp_path}/shelf/runs/1"
    Shelf.reset()


@pytest.fixture(params=["memory", "shelf"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an address, in a store in memory and in a folder."""
    Shelf.reset()
    if request.param == "shelf":
        yield f"shelf:/{tmp_path}/shelf/runs/1"
        return
    root = f"/{uuid.uuid4().hex}"
    yield f"memory:/{root}/runs/1"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)


class Trainer:
    """Writes what a training run writes: config, logs, checkpoints and a replay."""

    def __init__(self, local: Path, *, resume: bool = False) -> None:
        self.run = RunDirectory.create(local, resume=resume)
        if not resume:
            self.run.save_config("seed: 1\n")
        self.replay = ReplayBuffer(
            FEATURES, CAPACITY, folder=self.run.replay / "online", slack=SLACK
        )
        last = self.run.last_checkpoint()
        self.step = 0
        if last is not None:
            state = json.loads((last[1] / "training_state/replay_state.json").read_text())
            self.replay.rewind(state["online"])
            self.step = last[0]

    def collect(self, fragments: int = 5) -> None:
        for _ in range(fragments):
            self.replay.add(fragment(self.step))
            self.step += 1
        with (self.run.logs / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step}) + "\n")

    def save(self, keep: int | None = None) -> int:
        with self.run.writing_checkpoint(self.step) as folder:
            (folder / "pretrained_model").mkdir()
            (folder / "pretrained_model/config.json").write_text("{}")
            weights = np.random.default_rng(self.step).bytes(1000)
            (folder / "pretrained_model/model.safetensors").write_bytes(weights)
            (folder / "training_state").mkdir()
            state = {"online": self.replay.state_dict(), "sampler": {"rng": 1}}
            (folder / "training_state/replay_state.json").write_text(json.dumps(state))
            counters = {"step": self.step, "clock": "sync"}
            (folder / "training_state/training_step.json").write_text(json.dumps(counters))
        self.run.prune(keep)
        return self.step


def weights_of(policy: Path) -> bytes:
    return (policy / "model.safetensors").read_bytes()


def expected_weights(step: int) -> bytes:
    return np.random.default_rng(step).bytes(1000)
