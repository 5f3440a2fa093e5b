"""How the endless order is cut for its consumers: chunks, batches, learners, memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leray.data.stream.mixture import Mixture
from leray.data.stream.order import Order, Part
from leray.errors import ConfigError

_INDEX_CHUNK = 4096
"""Samples per chunk where nothing is decoded: the cost of ordering is spread over these."""

_CHUNK_SAMPLES = 256
"""Samples per chunk with pictures, at most."""

_LEAST_RUNS = 4
"""Runs of frames that a chunk mixes, at least."""


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How samples are streamed.

    Raises:
        ConfigError: a value is out of range.
    """

    batch_size: int
    """Samples per batch, of all learners together."""
    seed: int = 0
    shuffle: bool = True
    samples_per_run: int | None = None
    """Samples taken each time a run of frames between two key frames is visited; 1 is a uniform
    shuffle of all frames. None takes 1 where key frames are close, an eighth of the run where they
    are far apart (decoding a sample then costs at most 8 frames), but no more than a quarter of a
    chunk, so that several runs mix."""
    chunk_mb: int = 32
    """MiB of the samples that are gathered and mixed together, at most; one batch at least. A part
    of the order, so that this depends neither on the memory nor on the number of workers."""
    memory_limit_mb: int | None = None
    """Bound in MiB of what all processes of a stream with workers hold; None: 1024 for each of
    them and 1024 for the rest, more where chunks need it. Without workers it has no effect."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "samples_per_run", "chunk_mb", "memory_limit_mb"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: give a whole number >= 1")


class Plan:
    """Which samples make up each batch; can be pickled, and computes the same anywhere.

    Args:
        mixture: the datasets.
        config: of the stream.
        gop: frames between key frames of each dataset's videos; 1 where there are none.

    Raises:
        ConfigError: a dataset has no frames, a weight is not positive, or chunks are too small for
            so many datasets.
    """

    def __init__(self, mixture: Mixture, config: StreamConfig, *, gop: Sequence[int]) -> None:
        self.batch_size = config.batch_size
        self.decodes = any(feature.is_visual for feature in mixture.features.values())
        fitting = config.chunk_mb * 2**20 // mixture.sample_bytes
        wanted = min(fitting, _CHUNK_SAMPLES if self.decodes else _INDEX_CHUNK)
        self.chunk_batches = max(wanted // config.batch_size, 1)
        mixed = self.chunk_batches * config.batch_size // _LEAST_RUNS
        parts = [
            _part(samples.episode_ends, weight, run, config.samples_per_run or min(run // 8, mixed))
            for samples, weight, run in zip(mixture.parts, mixture.weights, gop, strict=True)
        ]
        self.samples_per_run = [part.samples_per_run for part in parts]
        self._order = Order(
            parts,
            chunk_size=self.chunk_batches * self.batch_size,
            seed=config.seed,
            shuffle=config.shuffle,
        )
        self.chunk_bytes = self.chunk_size * mixture.sample_bytes
        """Memory of a chunk's samples."""
        self._cached: tuple[int, NDArray[np.int64]] | None = None

    @property
    def chunk_size(self) -> int:
        """Samples per chunk."""
        return self._order.chunk_size

    def chunk(self, number: int) -> NDArray[np.int64]:
        """Return the sample numbers of a chunk [chunk_size]."""
        if self._cached is None or self._cached[0] != number:
            self._cached = (number, self._order.chunk(number))
        return self._cached[1]

    def share(self, learners: int) -> int:
        """Return the samples of each batch that one of so many learners gets.

        Raises:
            ConfigError: a batch cannot be dealt out evenly.
        """
        if self.batch_size % learners:
            raise ConfigError(
                f"batch_size={self.batch_size} cannot be shared by {learners} learners: give a "
                f"multiple of {learners}"
            )
        return self.batch_size // learners

    def piece(self, number: int, learners: int = 1) -> NDArray[np.int64]:
        """Return the sample numbers [chunk_size / learners] that one learner gets of a chunk.

        Pieces are numbered chunk by chunk, in each by the learners' ranks.
        """
        chunk, rank = divmod(number, learners)
        dealt = self.chunk(chunk).reshape(self.chunk_batches, learners, self.share(learners))
        return dealt[:, rank].reshape(-1)

    def place(self, batch: int, rank: int = 0, learners: int = 1) -> tuple[int, int]:
        """Return the piece that holds a learner's part of the n-th batch, and its number there.

        Learner r of n takes the pieces r, r + n, r + 2n, ...; its part of a batch is the r-th of n
        equal ones, so that a batch is the same whatever number of learners share it.
        """
        chunk, within = divmod(batch, self.chunk_batches)
        return chunk * learners + rank, within

    def batch(self, batch: int, rank: int = 0, learners: int = 1) -> NDArray[np.int64]:
        """Return the sample numbers [batch_size / learners] of a learner's part of a batch."""
        piece, within = self.place(batch, rank, learners)
        share = self.share(learners)
        return self.piece(piece, learners)[within * share : (within + 1) * share]

    def epoch(self, batches: int) -> float:
        """Return how many times the first dataset was seen after so many batches."""
        return self._order.epoch(batches * self.batch_size)

    def describe(self) -> str:
        """Say how well the stream is shuffled, in one line."""
        if not self._order.shuffled:
            return "stored order"
        if max(self.samples_per_run) == 1:
            return "uniform shuffle of all frames"
        return (
            f"shuffle of runs between key frames, {max(self.samples_per_run)} frames of a run "
            f"within {self.chunk_size} samples"
        )


def _part(ends: NDArray[np.int64], weight: float, gop: int, samples_per_run: int) -> Part:
    """Cut episodes into runs of `gop` frames, counted from each one's start."""
    taken = min(max(samples_per_run, 1), gop)
    runs = None
    if taken > 1 and len(ends):
        starts = [0, *ends[:-1].tolist()]
        runs = np.concatenate(
            [np.arange(first, last, gop) for first, last in zip(starts, ends, strict=True)]
        )
    return Part(
        num_frames=int(ends[-1]) if len(ends) else 0,
        weight=weight,
        runs=runs,
        samples_per_run=taken,
    )
