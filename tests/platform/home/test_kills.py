"""A run whose process or store dies at any write: readers find a whole state, older or newer."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leray.platform.home import replay
from leray.platform.home.fetch import fetch_policy, fetch_run
from leray.platform.home.home import open_home
from leray.platform.home.index import Index, read_index
from leray.platform.home.lock import RunLock
from leray.platform.home.mirror import Mirror
from leray.platform.home.store import Store
from leray.platform.run_directory import RunDirectory
from tests.algorithms.replay.crash_writer import fragment
from tests.platform.home.conftest import CAPACITY, Trainer, expected_weights, weights_of
from tests.platform.home.shelf import Shelf

REPOSITORY = Path(__file__).resolve().parents[3]


def replay_at(step: int) -> dict[str, Any]:
    """Return what a replay holds that had fragments 0 to `step` added and nothing else."""
    from leray.algorithms.replay.ring import ReplayBuffer
    from tests.algorithms.replay.crash_writer import FEATURES

    ring = ReplayBuffer(FEATURES, CAPACITY)
    for number in range(step):
        ring.add(fragment(number))
    return ring.live_columns()


def check_whole(url: str, root: Path) -> int | None:
    """Check that whatever is stored is whole; return the step to go on from."""
    store = Store(url)
    index = read_index(store)
    if index is None:
        return None
    if index.last is not None:
        assert weights_of(fetch_policy(url)) == expected_weights(index.last)
    if index.best is not None:
        assert weights_of(fetch_policy(f"{url}/checkpoints/best")) == expected_weights(index.best)
    if index.resume is None:
        return None
    assert index.last >= index.resume
    fetch_run(store, index, root)
    trainer = Trainer(root, resume=True)
    assert trainer.step == index.resume
    found, expected = trainer.replay.live_columns(), replay_at(trainer.step)
    for key, values in expected.items():
        assert np.array_equal(found[key], values), key
    return index.resume


def train(run: RunDirectory, bring: Callable[[], None]) -> None:
    """Save four checkpoints, keep two and the best; bring them after each."""
    trainer = Trainer(run.root)
    for number in range(4):
        trainer.collect(8)
        trainer.save(2)
        if number == 1:
            run.mark_best(trainer.step)
        bring()


def test_a_store_that_breaks_at_any_write_holds_a_whole_run(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "BLOCK_BYTES", 512)
    monkeypatch.setenv("LERAY_CACHE", str(tmp_path / "cache"))
    steps, number = [], 0
    while True:
        Shelf.reset()
        Shelf.fails_from = number + 1
        url = f"{shelf}/{number}"
        try:
            store, run = Store(url), RunDirectory(tmp_path / f"run-{number}")
            index = Index("run", "writer")
            index.write(store)
            mirror = Mirror(store, RunLock(store), index, run, keep=2)
            train(run, lambda mirror=mirror: mirror._bring(at_once=True))
            broke = False
        except OSError:
            broke = True
        total = Shelf.writes
        Shelf.fails_from = None
        steps.append(check_whole(url, tmp_path / f"fetched-{number}"))
        if not broke:
            break
        number += 1 if number < 40 else 7  # the later checkpoints repeat the first ones
    assert total > 100
    assert sorted(set(steps), key=str) == sorted({None, 8, 16, 24, 32}, key=str)
    assert steps[-1] == 32


SCRIPT = """
import sys, time, types
tests = sys.modules["tests"] = types.ModuleType("tests")  # not another package of that name
tests.__path__ = [sys.argv[3]]
from tests.platform.home.conftest import Trainer
from tests.platform.home import shelf
from leray.platform.home import mirror
from leray.platform.home.home import open_home
mirror.LOOK_S = 0.01
resume = sys.argv[2] == "resume"
home = open_home(sys.argv[1], resume=resume, keep=2)
trainer = Trainer(home.local, resume=resume)
while True:
    trainer.collect(8)
    trainer.save(2)
    print(trainer.step, flush=True)
    time.sleep(0.02)
"""


def test_a_killed_process_leaves_a_whole_run_that_goes_on(shelf, tmp_path, machine):
    """Each process is killed at another moment; the next goes on on another machine."""
    reached = 0
    for number in range(3):
        environment = {
            **os.environ,
            "LERAY_SCRATCH": str(tmp_path / f"machine-{number}"),
            "PYTHONPATH": str(REPOSITORY),
        }
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                SCRIPT,
                shelf,
                "resume" if number else "new",
                str(REPOSITORY / "tests"),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        store = Store(shelf)
        deadline = time.monotonic() + 60
        while (index := read_index(store)) is None or (index.resume or 0) <= reached:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
        time.sleep(0.013 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        resumed = check_whole(shelf, tmp_path / f"fetched-{number}")
        assert resumed is not None
        assert resumed > reached
        reached = resumed
    machine("last")
    with open_home(shelf, resume=True, keep=2) as home:
        trainer = Trainer(home.local, resume=True)
        trainer.collect(8)
        trainer.save(2)
        assert home.finish() == []
    assert check_whole(shelf, tmp_path / "fetched") == trainer.step


def test_a_damaged_file_is_told(url, machine, tmp_path, monkeypatch):
    from leray.errors import CheckpointError

    monkeypatch.setenv("LERAY_CACHE", str(tmp_path / "cache"))
    with open_home(url) as home:
        trainer = Trainer(home.local)
        trainer.collect()
        trainer.save()
    store = Store(url)
    weights = "checkpoints/000005/pretrained_model/model.safetensors"
    whole = store.read(weights)
    store.write(weights, whole[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged .*: give another"):
        fetch_policy(url)
    machine("second")
    with pytest.raises(CheckpointError, match="is damaged"):
        open_home(url, resume=True)
    store.write(weights, whole)
    block = store.files("replay")[0]
    store.write(block, b"x" + store.read(block)[1:])
    with pytest.raises(CheckpointError, match=r"is damaged in the store .* --policy.path"):
        open_home(url, resume=True)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_an_index_that_leads_out_of_the_run_is_refused(shelf, name):
    from leray.errors import CheckpointError
    from leray.platform.home import index as module

    told = Index("run", "writer", {1: module.StoredCheckpoint("checkpoints/000001", {})}, last=1)
    told.checkpoints[1].files[name] = module.StoredFile(1, "0")
    told.write(Store(shelf))
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        read_index(Store(shelf))


def test_an_index_of_a_later_version_is_refused(shelf):
    from leray.errors import CheckpointError

    Store(shelf).write("run.json", json.dumps({"version": 2}).encode())
    with pytest.raises(CheckpointError, match="has version 2 and 1 is known: update leray"):
        read_index(Store(shelf))
