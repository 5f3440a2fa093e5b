"""Batches through Ray Data: pieces decoded by a pool of actors, in order, to one or N learners.

A piece is a learner's part of a chunk. One row per piece's number flows in, one block of samples
per piece comes out. The actors compute which samples a piece holds, so what travels to them is a
number, and what comes back is in the order of the plan whatever actor was faster.
"""

import atexit
import logging
import os
import pickle
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakSet

import numpy as np
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray._private import auto_init_hook
from ray.data import DataIterator, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.context import DataContext

from leray.data.stream.cache import CACHE_VARIABLE
from leray.data.stream.local import slices
from leray.data.stream.memory import MemoryPlan
from leray.data.stream.mixture import Mixture
from leray.data.stream.plan import Plan
from leray.data.stream.samples import Batch
from leray.errors import DatasetError, LerayError

PIECE = "/piece"
"""Column with the piece's number of each row; no feature can have this name."""
ERROR = "/error"
"""Column of a block that holds the text of an error instead, as bytes."""

MAX_CHUNKS = 1024
"""Chunks of one execution of the pipeline; the next one is started when they are used up. Each is a
block of its own from the start, which takes Ray about a millisecond."""

_LEAST_BLOCK = 2**20
_NUMBER_BYTES = 8


class RayStream:
    """A stream of chunks through a Ray Data actor pool.

    Args:
        mixture: the datasets; every node must reach their files.
        plan: of the same mixture.
        workers: decoding actors, one CPU each.
        memory: what the stream may hold.
    """

    def __init__(self, mixture: Mixture, plan: Plan, *, workers: int, memory: MemoryPlan) -> None:
        self._plan, self._workers, self._memory = plan, workers, memory
        self._packed = ray.put(pickle.dumps(mixture))

    def batches(
        self, *, start: int = 0, rank: int = 0, learners: int = 1, torch: bool = False
    ) -> Iterator[Batch]:
        """Yield a learner's part of each batch without end, as views of Ray's object store.

        The pipeline stops when the generator is closed, and at the interpreter's exit.

        Args:
            start: number of the first batch, counted from 0.
            rank: of the learner, which has a pipeline of its own; `split` shares one.
            learners: how many there are.
            torch: yield torch tensors instead of numpy arrays.

        Raises:
            DatasetError: a file is missing or damaged.
        """
        while True:
            first = self._plan.place(start, rank, learners)[0]
            pieces = range(first, first + MAX_CHUNKS * learners, learners)
            shard = self._dataset(pieces, learners).iterator()
            yield from read_shard(
                shard, self._plan, start=start, rank=rank, learners=learners, torch=torch
            )
            start = (start // self._plan.chunk_batches + MAX_CHUNKS) * self._plan.chunk_batches

    def split(
        self, learners: int, *, start: int = 0, count: int | None = None
    ) -> list[DataIterator]:
        """Return one iterator per learner, for `read_shard` in its process.

        Args:
            learners: how many; learner r gets pieces r, r + learners, ...
            start: number of the first batch of each learner.
            count: batches that each will read; None is as many as one pass can give.
        """
        first = self._plan.place(start, 0, learners)[0]
        stop = first + MAX_CHUNKS * learners
        if count is not None:
            stop = min(self._plan.place(start + count - 1, 0, learners)[0] + learners, stop)
        dataset = self._dataset(range(first, stop), learners)
        shards: list[DataIterator] = dataset.streaming_split(learners, equal=False)
        return shards

    def _dataset(self, pieces: range, learners: int) -> Dataset:
        """Return the Ray Data pipeline of some pieces: one block for each, in order."""
        size = self._plan.chunk_bytes * self._plan.share(learners) // self._plan.batch_size
        cache = os.environ.get(CACHE_VARIABLE)
        with DataContext.current(self._context(size)):
            numbers = ray.data.read_datasource(_Numbers(pieces), override_num_blocks=len(pieces))
            return numbers.map_batches(
                _Gatherer,
                fn_constructor_args=(self._packed, self._plan, learners, cache),
                batch_size=None,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(
                    size=self._workers, max_tasks_in_flight_per_actor=8
                ),
                num_cpus=1,
            )

    def _context(self, piece_bytes: int) -> DataContext:
        context = DataContext.get_current().copy()
        options = context.execution_options
        options.preserve_order = True
        options.resource_limits = options.resource_limits.copy(
            object_store_memory=self._memory.store
        )
        # Else Ray holds decoders back by what the consumer has finished, not by the room there is.
        context.downstream_capacity_backpressure_ratio = None
        # A piece stays one block, since Ray splits only what is half as large again; this is also
        # what Ray expects each task to put out.
        context.target_max_block_size = max(piece_bytes, _LEAST_BLOCK)
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns of the missing bars
        return context


def read_shard(
    shard: DataIterator,
    plan: Plan,
    *,
    start: int = 0,
    rank: int = 0,
    learners: int = 1,
    torch: bool = False,
) -> Iterator[Batch]:
    """Yield a learner's batches from its iterator.

    Args:
        shard: what `RayStream.split` returned for this learner.
        plan: of the stream.
        start: as given to `split`.
        rank: of the learner.
        learners: how many there are.
        torch: yield torch tensors instead of numpy arrays.

    Raises:
        DatasetError: a file is missing or damaged.
        RuntimeError: Ray delivered a piece that is another learner's.
    """
    blocks = (
        shard.iter_torch_batches(batch_size=None, prefetch_batches=1)
        if torch
        else shard.iter_batches(batch_size=None, prefetch_batches=1, batch_format="numpy")
    )
    batches = _checked(iter(blocks), plan, start, rank, learners)
    _open.add(batches)
    return batches


def _checked(
    blocks: Generator[Batch, None, None], plan: Plan, start: int, rank: int, learners: int
) -> Generator[Batch, None, None]:
    expected, skipped = plan.place(start, rank, learners)
    with _running(blocks):
        for block in blocks:
            if ERROR in block:
                raise DatasetError(bytes(block[ERROR][0].tolist()).decode())
            found = int(block.pop(PIECE)[0])
            if found != expected:
                raise RuntimeError(f"learner {rank} was given piece {found}, not {expected}")
            yield from slices(block, plan.share(learners), skipped)
            expected, skipped = expected + learners, 0


class _Numbers(Datasource):  # type: ignore[misc]
    """The numbers of some pieces, one block each, made in the actor that gathers the piece."""

    def __init__(self, pieces: range) -> None:
        super().__init__()
        self._pieces = pieces

    def estimate_inmemory_data_size(self) -> int:
        """Return the size of all numbers in bytes."""
        return _NUMBER_BYTES * len(self._pieces)

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return one task per piece, whatever parallelism Ray asks for."""
        size = BlockMetadata(
            num_rows=1, size_bytes=_NUMBER_BYTES, input_files=None, exec_stats=None
        )
        return [ReadTask(partial(_number, piece), size) for piece in self._pieces]


def _number(piece: int) -> list[pa.Table]:
    return [pa.table({PIECE: [piece]})]


class _Gatherer:
    """Runs in the pool's actors. What is wrong with a dataset travels as a block of its own."""

    def __init__(self, packed: Any, plan: Plan, learners: int, cache: str | None) -> None:
        self._packed, self._plan, self._learners = packed, plan, learners
        if cache is not None:  # a cluster that runs already has its own environment
            os.environ.setdefault(CACHE_VARIABLE, cache)
        self._mixture: Mixture | None = None

    def __call__(self, rows: dict[str, NDArray[np.int64]]) -> Batch:
        number = int(rows[PIECE][0])
        samples = self._plan.piece(number, self._learners)
        try:
            if self._mixture is None:
                self._mixture = pickle.loads(ray.get(self._packed))
            batch = self._mixture.gather(samples)
        except LerayError as error:
            text = np.frombuffer(str(error).encode(), np.uint8)
            return {PIECE: np.array([number]), ERROR: text[None].copy()}
        return batch | {PIECE: np.full(len(samples), number)}


_open: WeakSet[Generator[Batch, None, None]] = WeakSet()
_AUTO_CONNECT = auto_init_hook.enable_auto_connect
_pipelines: set[int] = set()
"""Those that run in this process, in whatever threads."""


@atexit.register  # after Ray's own, so it is called before
def _close_open() -> None:
    for batches in list(_open):
        with suppress(ValueError):  # another thread is inside
            batches.close()


@contextmanager
def _running(blocks: Generator[Batch, None, None]) -> Iterator[None]:
    """Stop a pipeline at the end, also one that has outlived `ray.shutdown`.

    Ray Data's thread goes on after `ray.shutdown`, and its next call would start Ray anew, which
    hangs when the interpreter exits meanwhile. So while pipelines run, only `ray.init` starts Ray.
    """
    _pipelines.add(id(blocks))
    auto_init_hook.enable_auto_connect = False
    try:
        yield
    finally:
        try:
            blocks.close()
        except Exception:
            if ray.is_initialized():
                raise
        _pipelines.discard(id(blocks))
        auto_init_hook.enable_auto_connect = _AUTO_CONNECT and not _pipelines
