"""One measurement of LeRay's datasets, printed as a JSON line; `compare.py` runs them."""

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sources

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.plan import StreamConfig
from leray.data.stream.samples import Samples, SampleSpec
from leray.data.stream.stream import DatasetStream
from leray.data.windows import action_chunk

Convert = Callable[[dict[str, Any]], dict[str, Any]]

CHUNK = 100
WORKERS = 2
RAMP_S = 5.0
"""Until Ray has started what it starts beside the workers."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(MEASUREMENTS))
    parser.add_argument("root", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--limit_mb", type=int, help="of memory; the stream's default if absent")
    parser.add_argument("--frames", type=int, default=0)
    arguments = parser.parse_args()
    values = MEASUREMENTS[arguments.what](arguments)
    print(json.dumps(values), flush=True)
    os._exit(0)  # Ray's shutdown is not what is measured


def open_stream(arguments, *, batch_size: int, workers: int = 0, **options) -> DatasetStream:
    """Return a stream of action chunks, pictures included where there are any."""
    reader = DatasetReader.open(arguments.root)
    spec = SampleSpec(delta_timestamps=action_chunk(CHUNK, reader.fps))
    limit_mb = arguments.limit_mb if workers else None
    config = StreamConfig(batch_size=batch_size, memory_limit_mb=limit_mb, **options)
    return DatasetStream([reader], spec, config, workers=workers)


def rate(
    batches: Iterator[Any],
    batch_size: int,
    seconds: float,
    step: int = 1,
    warm_up_s: float = 0.0,
) -> float:
    """Return samples per second, after a warm-up of two steps at least.

    Args:
        batches: to take from.
        batch_size: samples per batch.
        seconds: to measure for, at least.
        step: batches that arrive together; the clock is read only where such a group ends, lest
            those that wait ready be counted as fast.
        warm_up_s: to warm up for, at least.
    """
    began, count = time.perf_counter(), 0
    while count < 2 * step + 1 or time.perf_counter() - began < warm_up_s:
        next(batches)
        count += 1
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds or count < 3 * step:
        for _ in range(step):
            next(batches)
        count += step
    return count * batch_size / took


def windows(arguments) -> dict[str, float]:
    """Windows per second of shuffled action chunks, one thread."""
    found = {}
    for batch_size in arguments.batches:
        stream = open_stream(arguments, batch_size=batch_size)
        found[f"leray batch={batch_size}"] = rate(stream.batches(), batch_size, arguments.seconds)
        torches = (as_torch(batch) for batch in stream.batches())
        found[f"leray_torch batch={batch_size}"] = rate(torches, batch_size, arguments.seconds)
    return found


def random_access(arguments) -> dict[str, float]:
    """Samples per second of shuffled frames with action chunks, two decoding threads.

    `leray_float` converts pictures as the peer does. `leray_pairs` takes both frames of a short
    group of pictures when it is decoded, which halves its key frames' cost and shuffles less.
    """
    found = {}
    for batch_size in arguments.batches:
        stream = open_stream(arguments, batch_size=batch_size)
        found[f"leray batch={batch_size}"] = picture_rate(stream, arguments.seconds)
        found[f"leray_float batch={batch_size}"] = picture_rate(
            stream, arguments.seconds, as_floats
        )
    if max(stream.plan.samples_per_run) == 1:
        stream = open_stream(arguments, batch_size=batch_size, samples_per_run=2)
        found[f"leray_pairs batch={batch_size}"] = picture_rate(stream, arguments.seconds)
    return found


def picture_rate(stream: DatasetStream, seconds: float, convert: Convert | None = None) -> float:
    """Return samples per second that are decoded in this process."""
    batches = stream.batches()
    taken = batches if convert is None else map(convert, batches)
    together = 2 * stream.plan.chunk_batches
    value = rate(taken, stream.config.batch_size, seconds, together)
    batches.close()
    return value


def sequential(arguments) -> dict[str, float]:
    """Frames per second in stored order through Ray Data, and seconds until the first batch."""
    batch_size = arguments.batches[0]
    local = open_stream(arguments, batch_size=batch_size, shuffle=False)
    found = {"leray in process": picture_rate(local, arguments.seconds)}
    stream = open_stream(arguments, batch_size=batch_size, workers=WORKERS, shuffle=False)
    start_ray(stream)
    began = time.perf_counter()
    batches = stream.batches()
    next(batches)
    found["leray start-up"] = time.perf_counter() - began
    together = WORKERS * stream.plan.chunk_batches
    found["leray"] = rate(batches, batch_size, arguments.seconds, together, RAMP_S)
    return found


def first_batch(arguments) -> dict[str, float]:
    """Seconds from the end of imports to the first shuffled batch."""
    began = time.perf_counter()
    next(open_stream(arguments, batch_size=arguments.batches[0]).batches())
    return {"leray in process": time.perf_counter() - began}


def first_batch_ray(arguments) -> dict[str, float]:
    """Seconds to the first shuffled batch through Ray Data, without and with Ray's start."""
    import leray.data.stream.ray_stream  # noqa: F401 - what it imports is not measured

    began = time.perf_counter()
    stream = open_stream(arguments, batch_size=arguments.batches[0], workers=WORKERS)
    opened = time.perf_counter()
    start_ray(stream)
    started = time.perf_counter()
    next(stream.batches())
    total = time.perf_counter() - began
    return {
        "leray through Ray Data": total - (started - opened),
        "leray through Ray Data, Ray's start included": total,
    }


def memory_video(arguments) -> dict[str, float]:
    """Stream shuffled pictures through Ray Data; `memory.py` watches."""
    stream = open_stream(arguments, batch_size=arguments.batches[0], workers=WORKERS)
    start_ray(stream)
    batches, taken, began = stream.batches(), 0, time.perf_counter()
    while taken < arguments.frames:
        taken += len(next(batches)["index"])
    took = time.perf_counter() - began
    return {"frames": taken, "frames_per_s": taken / took}


def memory_numeric(arguments) -> dict[str, float]:
    """Sample columns that are larger than the limit; `memory.py` watches."""
    reader = DatasetReader.open(arguments.root)
    spec = SampleSpec(delta_timestamps=action_chunk(CHUNK, reader.fps))
    announce("baseline")
    samples = Samples(reader, spec, memory_limit_bytes=arguments.limit_mb * 2**20)
    announce("sampling")
    rng, taken, began = np.random.default_rng(0), 0, time.perf_counter()
    while (took := time.perf_counter() - began) < arguments.seconds:
        samples.gather(rng.integers(0, len(samples), 256))
        taken += 256
    return {"windows_per_s": taken / took}


def announce(phase: str) -> None:
    """Tell the watching process what is measured from here on."""
    time.sleep(1.0)
    print(json.dumps({"phase": phase}), flush=True)


def as_torch(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch's arrays as tensors, which share their memory."""
    import torch

    return {key: torch.from_numpy(value) for key, value in batch.items()}


def as_floats(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch as LeRobot gives it: pictures as float32 [B, C, H, W] within 0 and 1."""
    import torch

    tensors = as_torch(batch)
    pictures = tensors[sources.CAMERA].permute(0, 3, 1, 2).contiguous()  # as bytes: less to move
    return tensors | {sources.CAMERA: pictures.to(torch.float32).div_(255)}


def start_ray(stream: DatasetStream) -> None:
    """Start Ray here; of its object store Ray Data takes half, which is the stream's share."""
    import ray

    memory = stream.memory
    assert memory is not None
    ray.init(
        num_cpus=max(WORKERS, os.cpu_count() or 1),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=2 * memory.store,
        _system_config={"metrics_report_interval_ms": 60_000},
    )


MEASUREMENTS = {
    function.__name__: function
    for function in (
        windows,
        random_access,
        sequential,
        first_batch,
        first_batch_ray,
        memory_video,
        memory_numeric,
    )
}

if __name__ == "__main__":
    main()
