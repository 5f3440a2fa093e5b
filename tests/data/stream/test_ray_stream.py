"""Batches through Ray Data: those of this process, for one learner or several, kill or not."""

import itertools
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream import ray_stream
from leray.data.stream.plan import StreamConfig
from leray.data.stream.ray_stream import read_shard
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, Camera

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

BATCH = 4


@pytest.fixture(autouse=True)
def few_chunks(monkeypatch):
    """Pipelines of a few chunks, which start sooner."""
    monkeypatch.setattr(ray_stream, "MAX_CHUNKS", 8)


def stream(made, workers: int = 2, **values) -> DatasetStream:
    config = StreamConfig(batch_size=BATCH, seed=7, chunk_mb=1, memory_limit_mb=2048, **values)
    spec = SampleSpec(delta_timestamps={"action": [-0.1, 0.0, 0.1], FRONT: [0.0, 0.1]})
    return DatasetStream([DatasetReader.open(made.root)], spec, config, workers=workers)


def take(batches, count: int) -> list[dict]:
    return list(itertools.islice(batches, count))


@pytest.fixture(scope="module")
def expected(filmed) -> list[dict]:
    """What this process gives."""
    return take(stream(filmed, workers=0).batches(), 400)


def test_batches_are_those_of_this_process_from_any_on(filmed, expected, same):
    """Also where one pipeline ends and the next begins: after 8 chunks of 18 batches."""
    made = stream(filmed)
    assert made.plan.chunk_batches == 18
    start = 18 * 5 + 11
    batches = made.batches(start=start)
    for number in range(start, start + 18 * 4):
        same(next(batches), expected[number])
    batches.close()


def test_a_learner_may_have_a_pipeline_of_its_own(filmed, same):
    made = stream(filmed)
    batches = made.ray().batches(start=20, rank=1, learners=2, torch=True)
    local = stream(filmed, workers=0).batches(start=20, rank=1, learners=2)
    for _ in range(30):
        left, right = next(batches), next(local)
        assert left.keys() == right.keys()
        assert left[FRONT].shape == (BATCH // 2, 2, datasets.HEIGHT, datasets.WIDTH, 3)
        same({key: value.numpy() for key, value in left.items()}, right)
    batches.close()
    local.close()


def test_learners_share_a_pipeline(filmed, same):
    """One of them twice as fast as the other, resumed in the middle of a chunk."""
    made = stream(filmed)
    start, count = 18 + 5, 60
    shards = made.ray().split(2, start=start, count=count)
    found: dict[int, list[dict]] = {}

    def learn(rank: int) -> None:
        shard = read_shard(shards[rank], made.plan, start=start, rank=rank, learners=2)
        found[rank] = []
        for batch in shard:
            found[rank].append(batch)
            time.sleep(0.002 * rank)

    learners = [threading.Thread(target=learn, args=[rank]) for rank in range(2)]
    for learner in learners:
        learner.start()
    for learner in learners:
        learner.join(timeout=120)
    for rank in range(2):
        local = stream(filmed, workers=0).batches(start=start, rank=rank, learners=2)
        assert len(found[rank]) == 18 * 4 - 5  # whole chunks, the first one from its sixth batch
        for batch in found[rank]:
            same(batch, next(local))
        local.close()


def test_learners_in_processes_of_their_own_complete_the_epoch(filmed):
    made = stream(filmed)
    per_chunk = made.plan.chunk_batches

    @ray.remote(num_cpus=0)
    def learn(shard, plan, rank: int) -> np.ndarray:
        from leray.data.stream.ray_stream import read_shard

        batches = read_shard(shard, plan, rank=rank, learners=2)
        return np.concatenate([batch["index"] for batch in batches])

    shards = made.ray().split(2, count=3 * per_chunk)
    tasks = [learn.remote(shard, made.plan, rank) for rank, shard in enumerate(shards)]
    frames = ray.get(tasks, timeout=120)
    for rank in range(2):
        pieces = [made.plan.piece(number, 2) for number in range(rank, 6, 2)]
        np.testing.assert_array_equal(frames[rank], np.concatenate(pieces))
    counts = np.bincount(np.concatenate(frames), minlength=95)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == 3 * per_chunk * BATCH


def test_an_error_of_a_worker_is_one_dataset_error_where_it_belongs(tmp_path):
    """The first chunk of 112 frames is sound and comes; the second one needs the broken video."""
    cameras = {FRONT: Camera(files=(1, 1))}
    made = datasets.make(tmp_path / "dataset", lengths=(120, 30), cameras=cameras)
    broken = stream(made, shuffle=False)
    assert broken.plan.chunk_batches == 28
    path = made.root / f"videos/{FRONT}/chunk-000/file-001.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    batches = broken.batches()
    frames = np.concatenate([batch["index"] for batch in take(batches, 28)])
    assert frames.tolist() == list(range(112))
    with pytest.raises(DatasetError, match=r"file-001\.mp4 is cut off") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"file-001\.mp4 is cut off"):
        next(broken.ray().batches(start=28, torch=True))


def processes_called(name: str) -> list[int]:
    """The processes of this process's Ray cluster with some title."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            pid = int(folder.name)
            if title.startswith(name) and os.getpid() in ancestors(pid):
                found.append(pid)
        except OSError:
            continue
    return found


def ancestors(pid: int) -> list[int]:
    line = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        line.append(pid)
    return line


def test_a_killed_worker_is_replaced_and_the_stream_goes_on(filmed, expected, same):
    earlier = processes_called("ray::MapWorker")
    batches = stream(filmed).batches()
    for number in range(5):
        same(next(batches), expected[number])
    deadline = time.monotonic() + 60
    while len(workers := set(processes_called("ray::MapWorker")) - set(earlier)) < 2:
        assert time.monotonic() < deadline, "a worker does not start"
        time.sleep(0.1)
    os.kill(workers.pop(), signal.SIGKILL)
    for number in range(5, 18 * 7):
        same(next(batches), expected[number])
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 10
    deadline = time.monotonic() + 20
    while processes_called("ray::MapWorker"):
        assert time.monotonic() < deadline, "workers outlive the stream"
        time.sleep(0.1)


@pytest.mark.parametrize("own", [None, "of_the_node"])
def test_a_node_without_a_cache_of_its_own_uses_the_drivers(filmed, tmp_path, monkeypatch, own):
    made = stream(filmed)
    packed = ray.put(pickle.dumps(made.mixture))
    chosen = tmp_path / (own or "of_the_driver")
    monkeypatch.delenv("LERAY_CACHE")  # the session's comes back afterwards
    if own:
        monkeypatch.setenv("LERAY_CACHE", str(chosen))
    gather = ray_stream._Gatherer(packed, made.plan, 1, str(tmp_path / "of_the_driver"))
    block = gather({ray_stream.PIECE: np.array([0])})
    assert len(block["action"]) == made.plan.chunk_size
    assert [path.name for path in tmp_path.iterdir()] == [chosen.name]
