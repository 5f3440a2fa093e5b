"""Appends to a memory-mapped replay until it is killed, and reports each fragment it committed."""

import sys
from pathlib import Path

import numpy as np

from leray.algorithms.replay.ring import ReplayBuffer
from leray.data.features import Feature, Features
from leray.data.names import ACTION, DONE, REWARD, TRUNCATED
from leray.envs.fragment import Fragment

STATE = "observation.state"
FEATURES = Features({STATE: Feature("float32", (2,)), ACTION: Feature("float32", (1,))})
CAPACITY, STEPS, ENVS = 64, 3, 2


def _observations(index: int) -> np.ndarray:
    rng = np.random.default_rng([index, 1])
    return rng.normal(size=(STEPS, ENVS, 2)).astype(np.float32)


def fragment(index: int) -> Fragment:
    """Return the fragment of that number; the number alone decides what is in it."""
    rng = np.random.default_rng(index)
    ends = rng.random((STEPS, ENVS))
    done, truncated = ends < 0.1, ends > 0.9
    return Fragment(
        columns={
            STATE: _observations(index),
            ACTION: rng.normal(size=(STEPS, ENVS, 1)).astype(np.float32),
            REWARD: rng.normal(size=(STEPS, ENVS)).astype(np.float32),
            DONE: done,
            TRUNCATED: truncated,
        },
        tail={STATE: _observations(index + 1)[0]},
        final={STATE: rng.normal(size=(int((done | truncated).sum()), 2)).astype(np.float32)},
        streams=np.arange(ENVS),
        policy_version=index,
    )


def main() -> None:
    """Go on from what the folder holds; print how many fragments are committed, after each."""
    folder, slack = Path(sys.argv[1]), int(sys.argv[2])
    replay = ReplayBuffer(FEATURES, CAPACITY, folder=folder, slack=slack)
    index = replay.total_steps // (STEPS * ENVS)
    while True:
        replay.add(fragment(index))
        index += 1
        print(index, flush=True)


if __name__ == "__main__":
    main()
