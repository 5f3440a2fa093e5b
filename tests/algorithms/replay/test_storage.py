"""Memory-mapped replay: kills lose nothing committed, and damage is one clear error."""

import errno
import os
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from leray.algorithms.replay.ring import ReplayBuffer
from leray.algorithms.replay.storage import ColumnStorage
from leray.data.features import Feature, Features
from leray.errors import CheckpointError, ConfigError

WRITER = Path(__file__).with_name("crash_writer.py")
REPOSITORY = Path(__file__).parents[3]
STEPS_PER_FRAGMENT = 6
CAPACITY, SLACK = 64, 32


@pytest.fixture
def fragment():
    """Return the writer's function from a number to a fragment."""
    return runpy.run_path(str(WRITER))["fragment"]


def _tail_of(whole: dict, part: dict) -> bool:
    """Tell whether a replay's live columns are the newest rows of another's."""
    missing = len(whole["next"]) - len(part["next"])
    links = np.where(part["next"] >= 0, part["next"] + missing, part["next"])
    return np.array_equal(whole["next"][missing:], links) and all(
        np.array_equal(whole[key][missing:], part[key]) for key in whole if key != "next"
    )


def _write_until_killed(folder: Path, slack: int, seconds: float) -> int:
    """Run the writer for a while, kill it, and return how many fragments it had committed."""
    command = [sys.executable, str(WRITER), str(folder), str(slack)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        lines = [writer.stdout.readline()]
        time.sleep(seconds)
        writer.kill()
        lines += writer.stdout.readlines()
    whole = [line for line in lines if line.endswith("\n")]
    return int(whole[-1])


def _kill_again_and_again(folder: Path, fragment, slack: int, kills: int) -> None:
    rng = np.random.default_rng(kills)
    features = runpy.run_path(str(WRITER))["FEATURES"]
    model = ReplayBuffer(features, CAPACITY)
    for _ in range(kills):
        reported = _write_until_killed(folder, slack, float(rng.uniform(0, 0.05)))
        replay = ReplayBuffer(features, CAPACITY, folder=folder, slack=slack)
        committed, rest = divmod(replay.total_steps, STEPS_PER_FRAGMENT)
        assert rest == 0
        assert reported <= committed <= reported + 1  # killed between committing and reporting
        for index in range(model.total_steps // STEPS_PER_FRAGMENT, committed):
            model.add(fragment(index))
        live = replay.live_columns()
        assert _tail_of(model.live_columns(), live)
        assert len(replay) == int((live["next"] >= 0).sum())
        # without slack, the lost fragment may have taken the slots of as many of the oldest rows
        lost = len(model.live_columns()["next"]) - len(live["next"])
        assert 0 <= lost <= (0 if slack else 2 * STEPS_PER_FRAGMENT)
        model.close_streams()  # the next process begins new ones


@pytest.mark.parametrize("slack", [0, SLACK])
def test_a_killed_writer_loses_nothing_committed(tmp_path, fragment, slack):
    _kill_again_and_again(tmp_path, fragment, slack, kills=3)


@pytest.mark.slow
@pytest.mark.parametrize("slack", [0, SLACK])
def test_twenty_kills_lose_nothing_committed(tmp_path, fragment, slack):
    _kill_again_and_again(tmp_path, fragment, slack, kills=20)


class _Killed(BaseException):
    """Stands for the end of the process."""


def _die_at_line(number: int):
    """Return a trace function that ends the work before the given line of the replay's code."""
    left = number

    def trace(frame, event, _):
        nonlocal left
        if "replay" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise _Killed
        return trace

    return trace


@pytest.mark.parametrize("slack", [0, SLACK])
def test_dying_at_any_line_of_an_add_leaves_the_fragment_whole_or_out(tmp_path, fragment, slack):
    features = runpy.run_path(str(WRITER))["FEATURES"]

    def filled(folder: Path | None, count: int) -> ReplayBuffer:
        replay = ReplayBuffer(features, CAPACITY, folder=folder, slack=slack)
        for index in range(count):
            replay.add(fragment(index))
        return replay

    filled(tmp_path / "template", 20).flush()  # twice around the ring
    before, after = filled(None, 20), filled(None, 21)
    for line in range(1000):
        folder = tmp_path / str(line)
        shutil.copytree(tmp_path / "template", folder)
        victim = ReplayBuffer(features, CAPACITY, folder=folder, slack=slack)
        victim.rewind(before.state_dict() | {"start": victim.state_dict()["start"]})
        previous = sys.gettrace()
        sys.settrace(_die_at_line(line))
        try:
            victim.add(fragment(20))
        except _Killed:
            died = True
        else:
            died = False
        finally:
            sys.settrace(previous)
        reopened = ReplayBuffer(features, CAPACITY, folder=folder, slack=slack)
        live, model = reopened.live_columns(), after if reopened.total_steps == 126 else before
        assert reopened.total_steps == model.total_steps
        assert len(reopened) == int((live["next"] >= 0).sum())
        assert _tail_of(model.live_columns(), live)
        if slack or model is after:
            assert len(live["next"]) == len(model.live_columns()["next"])
        shutil.rmtree(folder)
        if not died:
            break
    assert line > 30
    assert model is after


def test_another_process_sees_what_was_written(tmp_path, fragment):
    features = runpy.run_path(str(WRITER))["FEATURES"]
    first = ReplayBuffer(features, CAPACITY, folder=tmp_path)
    first.add(fragment(0))
    second = ReplayBuffer(features, CAPACITY, folder=tmp_path)
    assert len(second) == len(first) == STEPS_PER_FRAGMENT
    assert _tail_of(first.live_columns(), second.live_columns())


FEATURES = Features(
    {"observation.state": Feature("float32", (3,)), "action": Feature("int64", (1,))}
)


def test_files_have_the_size_of_their_columns(tmp_path):
    storage = ColumnStorage(FEATURES, 10, tmp_path)
    assert (tmp_path / "observation.state.bin").stat().st_size == 10 * 3 * 4
    assert (tmp_path / "action.bin").stat().st_size == 10 * 8
    assert (tmp_path / "next.bin").stat().st_size == 10 * 8
    assert storage.columns["observation.state"].shape == (10, 3)
    assert storage.columns["action"].shape == (10,)
    assert storage.counters() == (0, 0, 0)


def test_committed_counters_are_read_back(tmp_path):
    storage = ColumnStorage(FEATURES, 10, tmp_path)
    for counters in ((1, 2, 3), (4, 5, 6), (7, 8, 9)):
        storage.commit(counters)
        storage.oldest = counters[0]
        reopened = ColumnStorage(FEATURES, 10, tmp_path)
        assert reopened.counters() == storage.counters() == counters
        assert reopened.oldest == counters[0]


def test_an_existing_folder_keeps_its_number_of_rows(tmp_path):
    ColumnStorage(FEATURES, 10, tmp_path)
    assert ColumnStorage(FEATURES, 99, tmp_path).num_rows == 10


def test_a_larger_capacity_than_the_folder_was_made_for_is_refused(tmp_path):
    ReplayBuffer(FEATURES, 10, folder=tmp_path)
    with pytest.raises(CheckpointError, match="made for 10 rows and 11 are asked for"):
        ReplayBuffer(FEATURES, 11, folder=tmp_path)


def test_other_features_are_refused(tmp_path):
    ColumnStorage(FEATURES, 10, tmp_path)
    other = Features({**FEATURES, "observation.state": Feature("float32", (4,))})
    with pytest.raises(CheckpointError, match="holds a replay of other features") as caught:
        ColumnStorage(other, 10, tmp_path)
    assert "3]" in str(caught.value)
    assert "4]" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"num_rows": "x"}', b"\xff"])
def test_a_damaged_layout_is_reported(tmp_path, content):
    ColumnStorage(FEATURES, 10, tmp_path)
    (tmp_path / "layout.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"layout\.json cannot be read") as caught:
        ColumnStorage(FEATURES, 10, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_short_is_reported(tmp_path):
    ColumnStorage(FEATURES, 10, tmp_path)
    os.truncate(tmp_path / "action.bin", 79)
    with pytest.raises(CheckpointError, match=r"action.bin: 79 bytes where 80 are expected"):
        ColumnStorage(FEATURES, 10, tmp_path)


def test_a_missing_file_is_reported_and_not_replaced_by_zeros(tmp_path):
    ColumnStorage(FEATURES, 10, tmp_path)
    (tmp_path / "action.bin").unlink()
    with pytest.raises(CheckpointError, match=r"action.bin: 0 bytes where 80 are expected"):
        ColumnStorage(FEATURES, 10, tmp_path)


def _no_space(descriptor, offset, length):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_shows_at_creation(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", _no_space)
    with pytest.raises(ConfigError) as caught:
        ReplayBuffer(FEATURES, 2**20, folder=tmp_path)
    message = str(caught.value)
    assert "MiB" in message
    assert "No space left on device" in message
    assert "--policy.online_buffer_capacity" in message
    assert not list(tmp_path.glob("*.bin"))


def test_after_a_full_disk_a_smaller_replay_can_be_made_in_the_same_folder(tmp_path, monkeypatch):
    reserve = os.posix_fallocate

    def third_fails(descriptor, offset, length):
        if len(list(tmp_path.glob("*.bin"))) == 3:
            _no_space(descriptor, offset, length)
        reserve(descriptor, offset, length)

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", third_fails)
        with pytest.raises(ConfigError, match="free space"):
            ReplayBuffer(FEATURES, 100, folder=tmp_path)
    assert len(ReplayBuffer(FEATURES, 10, folder=tmp_path)) == 0
