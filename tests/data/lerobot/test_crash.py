"""Killing the writer at any moment: saved episodes stay readable, a resumed session is whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.features import Feature, Features
from leray.data.lerobot import series
from leray.data.lerobot.reader import DatasetReader
from leray.data.lerobot.writer import DatasetWriter
from leray.errors import DatasetError

FEATURES = Features({"action": Feature("float64", (8,)), "next.reward": Feature("float32", (1,))})

EPISODES = 5


class KilledError(BaseException):
    """Stands for a kill: nothing after it reaches the disk."""


def make_episode(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {"action": rng.normal(size=(20, 8)), "next.reward": np.full(20, seed, np.float32)}


class Disk:
    """Lets a number of renames and deletions happen, then fails every further one."""

    def __init__(self, monkeypatch) -> None:
        self.left = 10**9
        for name in ("replace", "unlink"):
            monkeypatch.setattr(Path, name, self._limited(getattr(Path, name)))

    def _limited(self, original):
        def limited(path, *args, **kwargs):
            if self.left <= 0:
                raise KilledError
            self.left -= 1
            return original(path, *args, **kwargs)

        return limited


def record(root, saved: list[int]) -> None:
    with DatasetWriter.create(root, fps=10, features=FEATURES) as writer:
        for seed in range(EPISODES):
            writer.add_episode(make_episode(seed), f"task {seed % 2}")
            saved.append(seed)


def assert_holds(root, episodes: int) -> None:
    whole = np.concatenate(
        [np.empty((0, 8)), *(make_episode(s)["action"] for s in range(episodes))]
    )
    np.testing.assert_array_equal(DatasetReader.open(root).read()["action"], whole)


def rows_of_any_reader(root) -> list[int]:
    """The global frame indices as a reader finds them that takes every data file in name order."""
    paths = sorted((root / "data").glob("*/*.parquet"))
    return [index for path in paths for index in pq.read_table(path)["index"].to_pylist()]


def test_a_kill_between_any_two_disk_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(series, "SEGMENT_EPISODES", 2)
    original = series.DataFiles.__init__

    def limited(self, path_of, first, limit_bytes):
        original(self, path_of, first, 9_000)

    monkeypatch.setattr(series.DataFiles, "__init__", limited)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    disk = Disk(monkeypatch)
    finished, cut_short = False, 0
    for operations in range(1, 1000):
        root, saved = tmp_path / str(operations), []
        disk.left = operations
        try:
            record(root, saved)
            finished = True
        except KilledError:
            cut_short += 1
        disk.left = 10**9
        if not (root / "meta/info.json").exists():
            continue
        there = DatasetReader.open(root).num_episodes
        assert there in (len(saved), len(saved) + 1)
        assert_holds(root, there)
        with DatasetWriter.resume(root) as writer:
            writer.add_episode(make_episode(there), "task 0")
        assert_holds(root, there + 1)
        assert rows_of_any_reader(root) == list(range(20 * (there + 1)))
        assert DatasetReader.open(root).findings == []
        assert DatasetReader.open(root).stats["action"]["count"].tolist() == [20 * (there + 1)]
        if finished:
            break
    assert finished
    assert cut_short > 40


def test_a_failed_save_leaves_the_writer_closed_and_the_dataset_whole(tmp_path, monkeypatch):
    writer = DatasetWriter.create(tmp_path / "d", fps=10, features=FEATURES)
    writer.add_episode(make_episode(0), "t")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        writer.add_episode(make_episode(1), "t")
    monkeypatch.undo()
    with pytest.raises(DatasetError, match=r"save failed half way; use DatasetWriter.resume"):
        writer.add_episode(make_episode(1), "t")
    with pytest.raises(DatasetError, match="half way"):
        writer.finalize()
    assert_holds(tmp_path / "d", 1)
    assert not list((tmp_path / "d").rglob("*.tmp"))


def test_a_failed_finalize_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(series, "SEGMENT_BYTES", 1)
    writer = DatasetWriter.create(tmp_path / "d", fps=10, features=FEATURES)
    for seed in range(3):
        writer.add_episode(make_episode(seed), "t")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(series.EpisodeFiles, "merge", full)
        with pytest.raises(OSError, match="No space"):
            writer.finalize()
    with pytest.raises(DatasetError, match="half way"):
        writer.finalize()
    assert_holds(tmp_path / "d", 3)
    DatasetWriter.resume(tmp_path / "d").finalize()
    assert rows_of_any_reader(tmp_path / "d") == list(range(60))


def test_data_of_no_known_episode_is_set_aside_not_deleted(tmp_path):
    root = tmp_path / "d"
    record(root, [])
    stray = root / "data/chunk-000/file-009.parquet"
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    position = table.column_names.index("episode_index")
    pq.write_table(table.set_column(position, "episode_index", [[99] * len(table)]), stray)
    DatasetWriter.resume(root).finalize()
    assert not stray.exists()
    assert stray.with_name("file-009.parquet.orphan").exists()
    assert_holds(root, EPISODES)


def test_an_unreadable_file_of_no_known_episode_is_set_aside(tmp_path):
    root = tmp_path / "d"
    record(root, [])
    unfinished = root / "data/chunk-000/file-009.parquet"
    unfinished.write_bytes(b"PAR1 without a footer")
    with DatasetWriter.resume(root) as writer:
        writer.add_episode(make_episode(EPISODES), "t")
    assert unfinished.with_name("file-009.parquet.orphan").exists()
    assert_holds(root, EPISODES + 1)


CHILD = """
import sys
import numpy as np
from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter
features = Features({"action": Feature("float64", (8,)), "next.reward": Feature("float32", (1,))})
with DatasetWriter.create(sys.argv[1], fps=10, features=features) as writer:
    for seed in range(100000):
        rng = np.random.default_rng(seed)
        episode = {"action": rng.normal(size=(20, 8)), "next.reward": np.full(20, seed, np.float32)}
        print(writer.add_episode(episode, "t"), flush=True)
"""


def test_a_killed_process_loses_no_saved_episode(tmp_path):
    root = tmp_path / "d"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(15):
            printed = child.stdout.readline()
        child.kill()
        rest = child.stdout.read().split()
    saved = int(rest[-1] if rest else printed) + 1
    there = DatasetReader.open(root).num_episodes
    assert there in (saved, saved + 1)
    assert_holds(root, there)
