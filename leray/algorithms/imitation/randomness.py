"""Random numbers of training: a pure function of what they are drawn for."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

TRAINING, VALIDATION = 0, 1
"""First numbers of keys, so that no two uses share one."""


@contextmanager
def seeded(device: torch.device, *key: int) -> Iterator[None]:
    """Draw torch's random numbers from a key inside the block; the process's own go on after it.

    So there is no state to keep: what else draws in the process changes nothing, and neither does
    a restart.

    Args:
        device: whose default generator is seeded beside the CPU's.
        key: whole numbers >= 0; each key has a stream of its own.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
