"""Copies of datasets on this machine: made once, remade when the dataset changes, never half."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream import cache as cache_module
from leray.data.stream.cache import cache_root, cached_arrays, cached_images
from leray.data.stream.samples import Samples
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import WRIST, Camera

KEYS = ["action", "observation.state"]
MAKER = """
import sys
import numpy as np
from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.samples import Samples
print("ready", flush=True)
sys.stdin.readline()
samples = Samples(DatasetReader.open(sys.argv[1]), memory_limit_bytes=1)
batch = samples.gather(np.arange(len(samples)))
print(float(batch["action"].sum()), int(batch["observation.images.wrist"].sum()))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("LERAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(tmp_path):
    return datasets.make(
        tmp_path / "dataset", cameras={WRIST: Camera("png")}, data_files=(2, 1), row_group=5
    )


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_the_variable_names_the_folder(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("LERAY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/leray")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere/someone")
    assert cache_root() == Path("/somewhere/someone/.cache/leray")


@pytest.mark.parametrize("kind", ["arrays", "images"])
def test_a_copy_is_made_once_and_used_again(made, cache, kind):
    def get():
        reader = DatasetReader.open(made.root)
        return cached_arrays(reader, KEYS) if kind == "arrays" else cached_images(reader, WRIST)

    folder = get()
    assert folder.parent == cache / kind
    state = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    os.utime(folder, (1, 1))
    assert get() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == state
    assert folder.stat().st_mtime > 1  # it was used: not to be removed soon
    assert entries(cache / kind) == [folder.name]


def test_other_columns_episodes_or_datasets_get_their_own(made, tmp_path):
    def folder(root=made.root, keys=KEYS, **options):
        return cached_arrays(DatasetReader.open(root, **options), keys)

    copy = tmp_path / "copy"
    shutil.copytree(made.root, copy)
    others = [folder(keys=KEYS[:1]), folder(episodes=[0]), folder(episodes=[1]), folder(copy)]
    assert len({folder(), *others}) == 5
    assert folder(episodes=[0, 1, 2]) == folder()


def rewrite(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0), path, compression="none")


def same_size(path: Path) -> None:
    content = path.read_bytes()
    time.sleep(0.02)  # of the clock of the filesystem
    path.write_bytes(content)


CHANGES = {
    "data written again": ("data/chunk-000/file-001.parquet", rewrite),
    "data of the same size": ("data/chunk-000/file-000.parquet", same_size),
    "the schema": (
        "meta/info.json",
        lambda path: path.write_text(path.read_text().replace("so101", "so100")),
    ),
}


@pytest.mark.parametrize(("name", "change"), CHANGES.values(), ids=CHANGES)
def test_a_dataset_that_changes_gets_a_new_copy(made, name, change):
    before = cached_arrays(DatasetReader.open(made.root), KEYS)
    change(made.root / name)
    assert cached_arrays(DatasetReader.open(made.root), KEYS) != before


def test_a_dataset_that_lost_its_last_episode_gets_a_new_copy(made):
    """Only the table of episodes tells; its rows are still there."""
    samples = Samples(DatasetReader.open(made.root), memory_limit_bytes=1)
    path = made.root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)
    shorter = Samples(DatasetReader.open(made.root), memory_limit_bytes=1)
    assert (len(samples), len(shorter)) == (23, 7)


def test_a_download_of_some_episodes_needs_only_their_files(made):
    (made.root / "data/chunk-000/file-001.parquet").unlink()
    samples = Samples(DatasetReader.open(made.root, episodes=[0, 1]), memory_limit_bytes=1)
    assert samples.gather(np.array([18]))["index"].tolist() == [18]
    with pytest.raises(DatasetError, match=r"file-001.parquet cannot be read: .*No such file"):
        cached_arrays(DatasetReader.open(made.root), KEYS)


def makers(made, count: int) -> list[subprocess.Popen]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(made.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]


def test_several_processes_at_once_make_one_copy(made, cache):
    processes = makers(made, 3)
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert all(process.returncode == 0 for process in processes), answers
    assert len({out for out, _ in answers}) == 1
    assert float(answers[0][0].split()[0]) == pytest.approx(float(made.columns["action"].sum()))
    assert [len(entries(cache / kind)) for kind in ("arrays", "images")] == [1, 1]


def test_the_loser_of_a_race_keeps_the_winners_work(made, cache, monkeypatch):
    reader = DatasetReader.open(made.root)
    ingest = cache_module.ingest
    barrier = threading.Barrier(2, timeout=20)

    def slow(reader, keys, folder):
        ingest(reader, keys, folder)
        barrier.wait()  # both are done before either renames

    monkeypatch.setattr(cache_module, "ingest", slow)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(cached_arrays(reader, KEYS))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert len(set(found)) == 1
    assert entries(cache / "arrays") == [found[0].name]


def test_a_maker_killed_half_way_leaves_nothing_that_is_taken_for_a_copy(made, cache):
    code = MAKER.replace("sys.stdin.readline()", KILLED)
    process = subprocess.run([sys.executable, "-c", code, str(made.root)], capture_output=True)
    assert process.returncode == -9
    assert len(entries(cache / "arrays")) == 1
    assert entries(cache / "arrays")[0].startswith(".")
    samples = Samples(DatasetReader.open(made.root), memory_limit_bytes=1)
    np.testing.assert_array_equal(samples.gather(np.arange(23))["action"], made.columns["action"])


KILLED = """
import os, signal
from leray.data.stream import arrays
arrays.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))


@pytest.mark.parametrize("camera", [False, True])
def test_a_full_disk_is_one_error_and_leaves_nothing(made, cache, camera):
    called = "cached_images(reader, name)" if camera else "cached_arrays(reader, [name])"
    code = f"""
import sys
from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.cache import cached_arrays, cached_images
reader, name = DatasetReader.open(sys.argv[1]), sys.argv[2]
try:
    {called}
except Exception as error:
    print(type(error).__name__, error)
"""
    name = WRIST if camera else "grid"
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.root), name],
        capture_output=True,
        text=True,
        preexec_fn=limit_file_size,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("DatasetError the cache ")
    assert "free some space, or set LERAY_CACHE" in done.stdout
    assert done.stdout.count("\n") == 1
    assert entries(cache / ("images" if camera else "arrays")) == []


def test_a_cache_that_cannot_be_written_is_the_same_error(made, cache):
    cache.write_text("a file, not a folder")
    with pytest.raises(DatasetError, match=r"cannot be written .*set LERAY_CACHE"):
        cached_arrays(DatasetReader.open(made.root), KEYS)


@pytest.mark.parametrize("kind", ["arrays", "images"])
def test_a_damaged_copy_says_what_to_do_and_that_helps(made, cache, kind):
    reader = DatasetReader.open(made.root)
    expected = Samples(reader, memory_limit_bytes=1).gather(np.arange(23))
    (folder,) = (cache / kind).iterdir()
    largest = max(folder.glob("*.bin"), key=lambda path: path.stat().st_size)
    os.truncate(largest, 5)
    with pytest.raises(DatasetError, match=f"{folder} is damaged .*: remove it, it is made again"):
        Samples(reader, memory_limit_bytes=1)
    shutil.rmtree(folder)
    again = Samples(reader, memory_limit_bytes=1).gather(np.arange(23))
    for key, value in again.items():
        np.testing.assert_array_equal(value, expected[key])


def test_copies_unused_for_a_month_are_removed(made, cache):
    reader = DatasetReader.open(made.root)
    old, recent = cached_arrays(reader, KEYS), cached_arrays(reader, KEYS[:1])
    leftover = cache / "arrays/.abandoned"
    leftover.mkdir()
    month = 30 * 24 * 3600
    for folder, age in ((old, month + 60), (leftover, month + 60), (recent, month - 60)):
        os.utime(folder, (time.time() - age,) * 2)
    new = cached_arrays(reader, ["grid"])
    assert entries(cache / "arrays") == sorted([recent.name, new.name])
    assert json.loads((new / "index.json").read_text())["ends"] == [7, 19, 23]
