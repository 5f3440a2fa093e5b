"""Batches in this process: a pure function of their number, decoded ahead of use."""

import itertools
import threading
import time

import numpy as np
import pytest

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream import cache
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import SampleSpec
from leray.data.stream.stream import DatasetStream
from leray.errors import DatasetError
from tests.data.stream import datasets
from tests.data.stream.datasets import FRONT, Camera

CONFIG = {"batch_size": 4, "seed": 2, "chunk_mb": 1}


def stream(made, *, keys=None, dropped=0, **values) -> DatasetStream:
    spec = SampleSpec(
        keys=keys, delta_timestamps={"action": [0.0, 0.1, 0.2]}, drop_n_last_frames=dropped
    )
    return DatasetStream([DatasetReader.open(made.root)], spec, StreamConfig(**CONFIG | values))


def take(batches, count: int) -> list[dict]:
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("keys", [None, ["action", "grid"]], ids=["pictures", "numbers"])
def test_a_stream_goes_on_at_any_batch(filmed, same, keys):
    batches = take(stream(filmed, keys=keys).batches(), 70)
    chunk = stream(filmed, keys=keys).plan.chunk_batches
    for start in {0, 1, min(chunk - 1, 60), min(chunk, 61), min(chunk + 1, 62), 65}:
        resumed = take(stream(filmed, keys=keys).batches(start=start), 5)
        for left, right in zip(resumed, batches[start : start + 5], strict=True):
            same(left, right)


def test_what_is_shown_is_what_the_numbers_say(filmed):
    for batch in take(stream(filmed).batches(), 60):
        frames = batch["index"]
        assert datasets.numbers(batch[FRONT]).tolist() == filmed.columns[FRONT][frames].tolist()
        np.testing.assert_array_equal(batch["grid"], filmed.columns["grid"][frames])
        assert batch["action"].shape == (4, 3, 2)


def test_an_epoch_shows_every_frame_once(filmed):
    """95 frames: 19 batches of 5 without remainder."""
    one = stream(filmed, batch_size=5, samples_per_run=1)
    assert one.plan.chunk_batches == 22
    frames = np.concatenate([batch["index"] for batch in take(one.batches(), 22 * 19)])
    assert np.bincount(frames).tolist() == [22] * 95


@pytest.mark.parametrize("keys", [None, ["action"]], ids=["pictures", "numbers"])
def test_learners_get_the_parts_of_the_same_batches(filmed, keys, same):
    made = stream(filmed, keys=keys)
    start, count = made.plan.chunk_batches - 2, made.plan.chunk_batches + 4
    whole = take(made.batches(start=start), count)
    parts = [take(made.batches(start=start, rank=rank, learners=2), count) for rank in range(2)]
    for batch, left, right in zip(whole, *parts, strict=True):
        same({key: np.concatenate([left[key], right[key]]) for key in batch}, batch)


def test_two_iterations_of_one_stream_do_not_disturb_each_other(filmed, same):
    made = stream(filmed)
    expected = take(made.batches(), 12)
    left, right = made.batches(), made.batches(start=3)
    for number in range(9):
        same(next(left), expected[number])
        same(next(right), expected[number + 3])


def test_a_batch_may_be_changed_in_place(filmed, same):
    made = stream(filmed, keys=["action"])
    expected = take(stream(filmed, keys=["action"]).batches(), 3)
    for batch in take(made.batches(), 3):
        for value in batch.values():
            value[...] = 0
    for left, right in zip(take(made.batches(), 3), expected, strict=True):
        same(left, right)


def test_the_threads_make_one_copy_of_the_numbers(filmed, monkeypatch, tmp_path):
    monkeypatch.setenv("LERAY_CACHE", str(tmp_path))
    ingest, calls = cache.ingest, []

    def slow(reader, keys, folder):
        calls.append(folder)
        time.sleep(0.1)
        ingest(reader, keys, folder)

    monkeypatch.setattr(cache, "ingest", slow)
    batches = stream(filmed).batches()
    take(batches, 40)
    batches.close()
    assert len(calls) == 1


def test_once_shows_everything_in_order(filmed):
    batches = list(stream(filmed, batch_size=30).once())
    assert [len(batch["index"]) for batch in batches] == [30, 30, 30, 5]
    shown = np.concatenate([datasets.numbers(batch[FRONT]) for batch in batches])
    assert shown.tolist() == filmed.columns[FRONT].tolist()
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == list(range(95))


@pytest.mark.parametrize("keys", [None, ["action", "grid"]], ids=["pictures", "numbers"])
def test_learners_share_what_is_shown_once(filmed, same, keys):
    batches = list(stream(filmed, keys=keys, batch_size=10).once())
    assert len(batches) == 10
    for learners in (2, 3, 12):
        for rank in range(learners):
            share = stream(filmed, keys=keys, batch_size=10).once(rank=rank, learners=learners)
            for left, right in zip(share, batches[rank::learners], strict=True):
                same(left, right)


@pytest.mark.parametrize("keys", [None, ["action", "grid"]], ids=["pictures", "numbers"])
def test_dropped_frames_are_not_shown_and_a_stream_goes_on_without_them(filmed, same, keys):
    """Episodes of 40, 25 and 30 frames."""
    made = stream(filmed, keys=keys, dropped=7)
    shown = [*range(33), *range(40, 58), *range(65, 88)]
    once = np.concatenate([batch["index"] for batch in made.once()])
    assert once.tolist() == shown
    chunk = made.plan.chunk_batches
    batches = take(made.batches(), 2 * chunk)
    counts = np.bincount(np.concatenate([batch["index"] for batch in batches]), minlength=95)
    assert np.flatnonzero(counts).tolist() == shown
    assert counts[shown].max() - counts[shown].min() <= 1  # whole epochs, and a part of one
    assert not any(batch["action_is_pad"].any() for batch in batches)
    for start in (1, chunk - 1, chunk, chunk + 3):
        resumed = take(stream(filmed, keys=keys, dropped=7).batches(start=start), 3)
        for left, right in zip(resumed, batches[start : start + 3], strict=True):
            same(left, right)


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_stopping_early_ends_the_threads(filmed):
    batches = stream(filmed).batches()
    next(batches)
    assert len(decoders()) == 2
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 5
    assert decoders() == []


def test_a_damaged_video_is_one_error_once_its_chunk_comes(tmp_path):
    made = datasets.make(
        tmp_path / "dataset", lengths=(20, 20), cameras={FRONT: Camera(files=(1, 1))}
    )
    path = made.root / f"videos/{FRONT}/chunk-000/file-001.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"file-001\.mp4") as caught:
        take(stream(made).batches(), 200)
    assert "\n" not in str(caught.value)
    assert decoders() == []
