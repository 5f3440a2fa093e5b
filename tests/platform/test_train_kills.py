"""Real kills of drivers and env runners on the async clock: nothing committed is lost."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leray.algorithms.replay.storage import ColumnStorage
from leray.data.features import Feature, Features

STEPS, SAVE = 4000, 200
ASYNC = {
    "env__type": "gym",
    "env__task": "Pendulum-v1",
    "runners__num_env_runners": 1,
    "runners__num_envs_per_env_runner": 2,
    "save_freq": SAVE,
    "log_freq": 1000,
    "policy__online_buffer_capacity": 50_000,  # room for all that is collected between kills
}
COLUMNS = ("observation.state", "action", "next.reward", "next.done", "next.truncated", "runner")


def wait_for(process: Any, condition: Callable[[], Any], timeout_s: float = 120.0) -> Any:
    """Wait until a condition holds while a process runs."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def open_storage(run: Path) -> ColumnStorage:
    """Open a run's online replay as it lies on disk, as another process sees it."""
    folder = run / "replay/online"
    layout = json.loads((folder / "layout.json").read_text())
    features = {
        key: Feature(np.dtype(dtype).name, tuple(shape) or (1,))
        for key, (dtype, *shape) in layout["columns"].items()
    }
    return ColumnStorage(Features(features), layout["num_rows"], folder)


def committed_steps(run: Path) -> tuple[int, dict[str, Any]]:
    """Return how many steps are committed, and the rows of all that are, by row number."""
    storage = open_storage(run)
    head, _, total = storage.counters()
    links = storage.next[:head].copy()
    steps = np.flatnonzero((links >= 0) & (links < head))
    rows = {key: storage.columns[key][steps].copy() for key in COLUMNS}
    return total, {"row": steps, "link": links[steps], **rows}


def wait_for_steps(process: Any, run: Path, steps: int) -> None:
    layout = run / "replay/online/layout.json"
    wait_for(process, lambda: layout.exists() and committed_steps(run)[0] > steps)


def assert_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    kept = np.isin(after["row"], before["row"])
    assert kept.sum() == len(before["row"])
    for key, values in before.items():
        assert np.array_equal(after[key][kept], values), key


def last_counters(run: Path) -> dict[str, Any]:
    path = run / "checkpoints/last/training_state/training_step.json"
    counters: dict[str, Any] = json.loads(path.read_text())
    return counters


def kill_again_and_again(spawn_train, train, run: Path, *, kills: int) -> None:
    dice = random.Random(kills)
    total, rows = 0, None
    for number in range(kills):
        resume = ["--resume=true"] if number else []
        process = spawn_train(*resume, output_dir=run, steps=10**6, **ASYNC)
        wait_for_steps(process, run, total + 40)
        time.sleep(dice.uniform(0, 0.5))
        before_total, before = committed_steps(run)
        process.kill()
        process.wait()
        assert before_total > total
        after_total, after = committed_steps(run)
        assert after_total >= before_total
        assert_kept(before, after)
        if rows is not None:
            assert_kept(rows, after)  # also what was there before the kills before this one
        total, rows = after_total, after
    goal = total + SAVE
    assert train("--resume=true", output_dir=run, **ASYNC | {"steps": goal}) == 0
    final_total, final = committed_steps(run)
    assert_kept(rows, final)
    assert last_counters(run)["env_steps"] == final_total >= goal


def test_five_kills_of_the_driver_lose_nothing(spawn_train, train, tmp_path):
    kill_again_and_again(spawn_train, train, tmp_path / "run", kills=5)


@pytest.mark.slow
def test_twenty_kills_of_the_driver_lose_nothing(spawn_train, train, tmp_path):
    kill_again_and_again(spawn_train, train, tmp_path / "run", kills=20)


def env_runners() -> set[int]:
    """Return the process ids of living env runner actors on this machine."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::CollectingEnvRunner"):
            found.add(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds actors through /proc")
@pytest.mark.parametrize("clock", ["async", "sync"])
def test_a_killed_env_runner_is_replaced_and_the_steps_are_exact(spawn_train, tmp_path, clock):
    run, others = tmp_path / "run", env_runners()
    options = ASYNC | {"steps": STEPS, "save_freq": STEPS, "policy__online_buffer_capacity": 9000}
    process = spawn_train(output_dir=run, runners__clock=clock, **options)
    (runner,) = wait_for(process, lambda: env_runners() - others)
    wait_for_steps(process, run, 400)
    before_total, before = committed_steps(run)
    os.kill(runner, signal.SIGKILL)
    assert wait_for(process, lambda: env_runners() - others - {runner})  # its replacement
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    total, rows = committed_steps(run)
    assert_kept(before, rows)
    assert total > before_total
    counters = last_counters(run)
    assert counters["env_steps"] == total == len(rows["row"])
    assert STEPS <= total < STEPS + 100
    assert abs(counters["pacing_updates"] - (total - 50)) <= 100  # one update per step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_stop_saves_a_checkpoint_and_says_how_to_go_on(spawn_train, train, tmp_path, number):
    run = tmp_path / "run"
    options = ASYNC | {"save_freq": 10**6, "runners__num_env_runners": 0}
    process = spawn_train(output_dir=run, steps=10**6, **options)
    wait_for_steps(process, run, 60)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert f"leray train --resume=true --output_dir={run}" in output
    assert number.name in output
    stopped = last_counters(run)
    assert stopped["env_steps"] == committed_steps(run)[0]
    goal = stopped["env_steps"] + 50
    assert train("--resume=true", output_dir=run, **options | {"steps": goal}) == 0
    assert last_counters(run)["env_steps"] == goal + goal % 2  # two environments step together
