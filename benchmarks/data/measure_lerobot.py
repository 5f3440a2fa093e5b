"""The same measurements of LeRobot's dataset under torch's DataLoader, printed as a JSON line.

Runs in the peer's own environment. With workers, the main process must not decode a video before
they are forked: the decoder's threads do not survive it.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator

import torch

CHUNK, FPS = 100, 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["stream", "first_batch"])
    parser.add_argument("root")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--batches", type=int, nargs="+", default=[8])
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    make_torchvision_importable()
    logging.disable(logging.WARNING)
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    began = time.perf_counter()
    windows = {"action": [step / FPS for step in range(CHUNK)]}
    dataset = LeRobotDataset("local/data", root=arguments.root, delta_timestamps=windows)
    found = {}
    for batch_size in arguments.batches:
        loader = torch.utils.data.DataLoader(
            dataset, batch_size, shuffle=True, num_workers=arguments.workers
        )
        if arguments.what == "first_batch":
            next(iter(loader))
            found[f"lerobot workers={arguments.workers}"] = time.perf_counter() - began
            break
        name = f"lerobot batch={batch_size} workers={arguments.workers}"
        found[name] = rate(forever(loader), batch_size, arguments.seconds, arguments.workers or 1)
    print(json.dumps(found), flush=True)
    os._exit(0)  # forked workers are daemons


def make_torchvision_importable() -> None:
    """Import torchvision, also where its wheel is for another kind of torch than the one here.

    Its operators do not load then, which nothing here needs; but it stops at describing them to
    torch. So those descriptions are left out.
    """
    register = torch.library.register_fake

    def register_if_defined(name, *args, **kwargs):
        space, _, operator = name.partition("::")
        if hasattr(getattr(torch.ops, space), operator):
            return register(name, *args, **kwargs)
        return lambda function: function

    torch.library.register_fake = register_if_defined
    import torchvision  # noqa: F401

    torch.library.register_fake = register


def forever(loader) -> Iterator[dict]:
    """Yield batches, epoch after epoch."""
    while True:
        yield from loader


def rate(batches: Iterator[dict], batch_size: int, seconds: float, step: int) -> float:
    """Return samples per second, after a warm-up; `step` batches arrive together."""
    for _ in range(2 * step):
        next(batches)
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds or count < 3 * step:
        for _ in range(step):
            next(batches)
        count += step
    return count * batch_size / took


if __name__ == "__main__":
    main()
