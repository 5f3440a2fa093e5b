"""Batches in this process: columns from arrays, pictures decoded by a few threads ahead of use."""

import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray

from leray.data.stream.mixture import Mixture
from leray.data.stream.plan import Plan
from leray.data.stream.samples import Batch

_AHEAD = 2
"""Chunks that each thread may be ahead of the consumer."""


def local_batches(
    mixture: Mixture,
    plan: Plan,
    *,
    start: int = 0,
    rank: int = 0,
    learners: int = 1,
    threads: int = 2,
) -> Iterator[Batch]:
    """Yield a learner's part of each batch without end, from the n-th one on.

    Without pictures each batch is gathered when it is asked for: that is faster than any hand-over.

    Args:
        mixture: the datasets.
        plan: of the same mixture.
        start: number of the first batch to yield, counted from 0.
        rank: of the learner.
        learners: how many there are.
        threads: that decode pictures; PyAV frees the interpreter while it decodes.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    if not plan.decodes:
        for number in count(start):
            yield mixture.gather(plan.batch(number, rank, learners))
    first, skipped = plan.place(start, rank, learners)
    pieces = (plan.piece(number, learners) for number in count(first, learners))
    for gathered in gathered_ahead(mixture, pieces, threads):
        yield from slices(gathered, plan.share(learners), skipped)
        skipped = 0


def slices(piece: Batch, share: int, skipped: int = 0) -> Iterator[Batch]:
    """Yield a piece's batches, as views, without the first ones."""
    size = len(next(iter(piece.values())))
    for first in range(skipped * share, size, share):
        yield {key: value[first : first + share] for key, value in piece.items()}


def gathered_ahead(
    mixture: Mixture, pieces: Iterable[NDArray[np.int64]], threads: int = 2
) -> Iterator[Batch]:
    """Gather pieces in order, several at a time, each thread with datasets of its own.

    Args:
        mixture: the datasets.
        pieces: sample numbers of each.
        threads: that decode pictures.

    Raises:
        DatasetError: a file is missing or damaged.
    """
    packed = pickle.dumps(mixture)
    own, opening = local(), Lock()

    def gather(samples: NDArray[np.int64]) -> Batch:
        if not hasattr(own, "mixture"):
            with opening:  # the first one may have to make the cache
                own.mixture = pickle.loads(packed)
        batch: Batch = own.mixture.gather(samples)
        return batch

    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for samples in pieces:
                waiting.append(pool.submit(gather, samples))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
