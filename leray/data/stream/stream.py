"""The front of the stream: open datasets, choose where work is done, give batches."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from leray.data.lerobot.reader import DatasetReader
from leray.data.stream.local import gathered_ahead, local_batches
from leray.data.stream.memory import share_memory
from leray.data.stream.mixture import Mixture
from leray.data.stream.plan import Plan, StreamConfig
from leray.data.stream.samples import Batch, Samples, SampleSpec, stream_names
from leray.errors import ConfigError, FeatureMismatchError

if TYPE_CHECKING:
    from leray.data.stream.ray_stream import RayStream


class DatasetStream:
    """Batches of one dataset, or of several mixed by weight.

    The batches are a pure function of the datasets, the config and a batch's number: a consumer
    that kept the number of batches it has used goes on with exactly those that are left.

    Example:
        >>> reader = DatasetReader.open("outputs/demonstrations")  # doctest: +SKIP
        >>> spec = SampleSpec(delta_timestamps=action_chunk(100, reader.fps))  # doctest: +SKIP
        >>> stream = DatasetStream([reader], spec, StreamConfig(batch_size=8))  # doctest: +SKIP
        >>> for batch in stream.batches(start=0):  # doctest: +SKIP
        ...     batch["action"]  # [8, 100, actions]  # doctest: +SKIP

    Args:
        readers: the datasets.
        spec: what a sample holds, one for all or one per dataset (to rename features, say).
        config: of the stream.
        weights: shares of the batches, one per dataset; by number of frames when None.
        workers: actors of a Ray Data pool that gather and decode; 0 does it in this process.

    Raises:
        ConfigError: the memory limit is too small, a weight or a window is wrong, or there is no
            dataset, or one without frames.
        FeatureMismatchError: the datasets have no feature in common, or in different shapes.
        DatasetError: a dataset is damaged.
    """

    def __init__(
        self,
        readers: Sequence[DatasetReader],
        spec: SampleSpec | Sequence[SampleSpec],
        config: StreamConfig,
        *,
        weights: Sequence[float] | None = None,
        workers: int = 0,
    ) -> None:
        if workers < 0:
            raise ConfigError(f"workers={workers}: give 0 to work in this process, or more")
        specs = [spec] * len(readers) if isinstance(spec, SampleSpec) else list(spec)
        if not readers or len(specs) != len(readers):
            raise ConfigError(
                f"{len(readers)} datasets were given with {len(specs)} SampleSpecs; give at least "
                "one dataset, and one SampleSpec for all or one for each"
            )
        self.config, self.workers = config, workers
        self.memory = share_memory(config.memory_limit_mb, workers) if workers else None
        limit = None if self.memory is None else self.memory.arrays // len(readers)
        keys = _keys(readers, specs)
        self.mixture = Mixture(
            [
                Samples(reader, replace(one, keys=keys), memory_limit_bytes=limit)
                for reader, one in zip(readers, specs, strict=True)
            ],
            weights,
        )
        self.plan = Plan(self.mixture, config, gop=[_gop(part) for part in self.mixture.parts])
        if workers:
            self.memory = share_memory(config.memory_limit_mb, workers, self.plan.chunk_bytes)

    def batches(self, *, start: int = 0, rank: int = 0, learners: int = 1) -> Iterator[Batch]:
        """Yield batches without end, from the n-th one on.

        Args:
            start: number of batches that were used before.
            rank: of the learner; each learner reads for itself.
            learners: how many share each batch, in equal parts.

        Raises:
            ConfigError: start or rank is out of range, or the learners cannot share a batch.
            DatasetError: a file is missing or damaged.
        """
        if start < 0 or not 0 <= rank < learners:
            raise ConfigError(
                f"start={start}, rank={rank}, learners={learners}: start must be >= 0 and rank "
                "one of 0 to learners - 1"
            )
        self.plan.share(learners)
        if self.workers:
            return self.ray().batches(start=start, rank=rank, learners=learners)
        return local_batches(self.mixture, self.plan, start=start, rank=rank, learners=learners)

    def once(self, *, rank: int = 0, learners: int = 1) -> Iterator[Batch]:
        """Yield every sample once in stored order, as for validation; the last batch is smaller.

        It is done in this process, pictures are decoded ahead by a few threads.

        Args:
            rank: of the learner; it gets the batches rank, rank + learners, rank + 2 learners, ...
            learners: how many share the batches.

        Raises:
            DatasetError: a file is missing or damaged.
        """
        size, total = self.config.batch_size, len(self.mixture)
        batches = (
            np.arange(first, min(first + size, total))
            for first in range(rank * size, total, learners * size)
        )
        if self.plan.decodes:
            return gathered_ahead(self.mixture, batches)
        return map(self.mixture.gather, batches)

    def ray(self) -> "RayStream":
        """Return the Ray Data pipeline, to iterate it or to split it for learners.

        Raises:
            ConfigError: the stream has no workers.
        """
        if self.memory is None:
            raise ConfigError("this stream has workers=0; give at least 1 to go through Ray Data")
        from leray.data.stream.ray_stream import RayStream

        return RayStream(self.mixture, self.plan, workers=self.workers, memory=self.memory)


def _keys(readers: Sequence[DatasetReader], specs: Sequence[SampleSpec]) -> list[str]:
    """Return the features of the stream: those asked for, else those that all datasets have."""
    asked = [list(one.keys) for one in specs if one.keys is not None]
    if any(set(keys) != set(asked[0]) for keys in asked):
        raise ConfigError(f"the SampleSpecs ask for different keys, {asked}; give all the same")
    if asked:
        return asked[0]
    named = [stream_names(reader, one) for reader, one in zip(readers, specs, strict=True)]
    keys = [key for key in named[0] if all(key in other for other in named)]
    if not keys:
        listed = (f"{r.root} has {', '.join(n)}" for r, n in zip(readers, named, strict=True))
        raise FeatureMismatchError(f"the datasets have no feature in common: {'; '.join(listed)}")
    return keys


def _gop(samples: Samples) -> int:
    """Return the frames between key frames of the dataset's first videos; 1 without videos."""
    reader = samples.reader
    return max((reader.gop(samples.stored_name(key)) for key in samples.cameras), default=1)
