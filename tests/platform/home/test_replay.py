"""The replay of a checkpoint, read while training goes on writing it."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

from leray.algorithms.replay.ring import ReplayBuffer
from leray.platform.home import replay as module
from leray.platform.home.replay import ReplayGoneError, read_replay, restore_replay
from tests.algorithms.replay.crash_writer import FEATURES, fragment
from tests.platform.home.conftest import CAPACITY, SLACK


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 512)


def ring(folder: Path, slack: int = SLACK) -> ReplayBuffer:
    return ReplayBuffer(FEATURES, CAPACITY, folder=folder / "online", slack=slack)


def state_folder(tmp_path: Path, replay: ReplayBuffer, clock: str) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(exist_ok=True)
    told = {"online": replay.state_dict(), "sampler": {"rng": 1}}
    (folder / "replay_state.json").write_text(json.dumps(told))
    (folder / "training_step.json").write_text(json.dumps({"clock": clock}))
    return folder


def copied(replay: Path, state: Path, into: Path) -> ReplayBuffer:
    blocks: dict[str, bytes] = {}
    manifest = read_replay(replay, state, blocks.__setitem__)
    restore_replay(manifest, into, blocks.__getitem__)
    return ring(into)


def assert_same(left: dict, right: dict) -> None:
    for key, values in left.items():
        assert np.array_equal(values, right[key]), key


@pytest.mark.parametrize("clock", ["sync", "async"])
def test_what_is_written_meanwhile_is_not_in_the_copy(tmp_path, clock, monkeypatch):
    replay = ring(tmp_path / "replay")
    for number in range(30):
        replay.add(fragment(number))
    state = state_folder(tmp_path, replay, clock)
    expected, total = replay.live_columns(), replay.total_steps
    contents, added = module._contents, iter(range(30, 40))

    def slow(path: Path):
        for block in contents(path):
            if (number := next(added, None)) is not None:
                replay.add(fragment(number))
            yield block

    monkeypatch.setattr(module, "_contents", slow)
    copy = copied(tmp_path / "replay", state, tmp_path / "copy")
    assert replay.total_steps > total
    assert copy.total_steps == total
    if clock == "sync":
        copy.rewind(json.loads((state / "replay_state.json").read_text())["online"])
    assert_same(copy.live_columns(), expected)


def test_while_a_thread_writes_the_copy_is_exact(tmp_path):
    replay, over = ring(tmp_path / "replay", slack=100_000), threading.Event()
    for number in range(30):
        replay.add(fragment(number))
    state = state_folder(tmp_path, replay, "sync")
    expected = replay.live_columns()

    def write() -> None:
        number = 30
        while not over.is_set() and number < 5000:
            replay.add(fragment(number))
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(3):
            into = tmp_path / f"copy-{number}"
            blocks: dict[str, bytes] = {}
            manifest = read_replay(tmp_path / "replay", state, blocks.__setitem__)
            restore_replay(manifest, into, blocks.__getitem__)
            copy = ring(into, slack=100_000)
            copy.rewind(json.loads((state / "replay_state.json").read_text())["online"])
            assert_same(copy.live_columns(), expected)
    finally:
        over.set()
        thread.join()


def test_overwritten_rows_are_seen(tmp_path):
    replay = ring(tmp_path / "replay")
    for number in range(30):
        replay.add(fragment(number))
    state = state_folder(tmp_path, replay, "sync")
    for number in range(30, 60):
        replay.add(fragment(number))
    with pytest.raises(ReplayGoneError, match="online replay was overwritten"):
        read_replay(tmp_path / "replay", state, lambda digest, content: None)
    read_replay(tmp_path / "missing", tmp_path, lambda digest, content: None)  # has no replay
    with pytest.raises(ReplayGoneError, match="is not on this machine"):
        read_replay(tmp_path / "missing", state, lambda digest, content: None)


def test_on_the_async_clock_what_is_left_of_a_full_replay_is_taken(tmp_path):
    """There, nobody goes back to exactly that moment."""
    replay = ring(tmp_path / "replay", slack=0)
    for number in range(30):
        replay.add(fragment(number))
    state = state_folder(tmp_path, replay, "async")
    expected = replay.live_columns()["observation.state"]
    replay.add(fragment(30))
    blocks: dict[str, bytes] = {}
    manifest = read_replay(tmp_path / "replay", state, blocks.__setitem__)
    restore_replay(manifest, tmp_path / "copy", blocks.__getitem__)
    copy = ring(tmp_path / "copy", slack=0)
    found = copy.live_columns()["observation.state"]
    assert 0 < len(found) < len(expected)
    assert np.array_equal(found, expected[-len(found) :])


def test_unwritten_parts_do_not_travel(tmp_path, monkeypatch):
    replay = ring(tmp_path / "replay", slack=10_000)
    replay.add(fragment(0))
    state = state_folder(tmp_path, replay, "sync")
    sent: dict[str, bytes] = {}
    manifest = read_replay(tmp_path / "replay", state, sent.__setitem__)
    assert sum(file.size for file in manifest.values()) > 300_000
    assert sum(map(len, sent.values())) < 10_000
