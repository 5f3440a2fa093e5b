"""Which samples come when: a pure function of (seed, epoch), for one dataset or a weighted mix.

The samples form one endless sequence, cut into chunks of equal size. A dataset's epochs follow
each other in it without a gap; each shows every frame once. Nothing is stored: any chunk is
computed from its number alone, so a run resumes at the exact sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leray.data.stream.permutation import Permutation
from leray.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """What the order has to know about one dataset."""

    num_frames: int
    weight: float = 1.0
    """Share of the mix, relative to the other parts'."""
    runs: NDArray[np.int64] | None = None
    """First frames of runs that decode together [runs], ascending from 0; None: frame by frame."""
    samples_per_run: int = 1
    """How many samples are taken each time a run is visited. 1 is a uniform shuffle; more saves
    decoding where key frames are far apart, and brings that many frames of a run near each other.
    """


class Order:
    """The endless sequence of samples.

    Args:
        parts: the datasets. Sample numbers count through all of them, one after the other.
        chunk_size: samples per chunk.
        seed: of the shuffle.
        shuffle: False takes each dataset's frames in stored order, from all in turn by weight.

    Raises:
        ConfigError: a part is empty, or a weight is not positive.
    """

    def __init__(
        self, parts: Sequence[Part], *, chunk_size: int, seed: int = 0, shuffle: bool = True
    ) -> None:
        if not parts or any(part.num_frames < 1 for part in parts):
            raise ConfigError("a dataset to stream has no frames; give one with episodes")
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        if not np.isfinite(weights).all() or (weights <= 0).any():
            raise ConfigError(
                f"weights of datasets must be positive numbers, not {weights.tolist()}"
            )
        if chunk_size < len(parts) ** 2:
            raise ConfigError(
                f"chunks of {chunk_size} samples cannot mix {len(parts)} datasets; at least "
                f"{len(parts) ** 2} are needed: raise batch_size or chunk_mb"
            )
        self.chunk_size = chunk_size
        self.shuffled = shuffle
        self._seed = seed
        self._weights = weights / weights.sum()
        self._largest = int(weights.argmax())
        sizes = [part.num_frames for part in parts]
        self._first = np.cumsum([0, *sizes[:-1]])
        self._sequences = [
            _Sequence(part, (seed, number), shuffle=shuffle) for number, part in enumerate(parts)
        ]

    def chunk(self, number: int) -> NDArray[np.int64]:
        """Return the sample numbers [chunk_size] of the n-th chunk, counted from 0."""
        before, after = self._taken(number), self._taken(number + 1)
        drawn = [
            first + sequence.take(start, stop)
            for first, sequence, start, stop in zip(
                self._first, self._sequences, before, after, strict=True
            )
        ]
        samples = np.concatenate(drawn)
        if self.shuffled:
            shuffle = Permutation(len(samples), self._seed, number)
            places = shuffle(np.arange(len(samples)))
        else:
            shares = [(np.arange(len(part)) + 0.5) / len(part) for part in drawn if len(part)]
            places = np.argsort(np.concatenate(shares), kind="stable")
        mixed: NDArray[np.int64] = samples[places]
        return mixed

    def epoch(self, samples: int) -> float:
        """Return how many times the first dataset was seen after so many samples."""
        return samples * float(self._weights[0]) / self._sequences[0].size

    def _taken(self, chunks: int) -> list[int]:
        """Return how many samples of each part the first chunks hold."""
        total = chunks * self.chunk_size
        taken = [int(total * float(weight)) for weight in self._weights]
        taken[self._largest] += total - sum(taken)  # what rounding left over
        return taken


class _Sequence:
    """One dataset's endless sequence: its epochs one after the other."""

    def __init__(self, part: Part, key: tuple[int, int], *, shuffle: bool) -> None:
        self.size = part.num_frames
        self._key, self._shuffle = key, shuffle
        self._grouped = (
            _Groups(part)
            if shuffle and part.runs is not None and part.samples_per_run > 1
            else None
        )
        self._cached: tuple[int, Permutation, NDArray[np.int64]] | None = None

    def take(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return frames `start` to `stop` of the endless sequence."""
        pieces = []
        while start < stop:
            epoch, first = divmod(start, self.size)
            count = min(stop - start, self.size - first)
            pieces.append(self._take(epoch, first, first + count))
            start += count
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def _take(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        positions = np.arange(start, stop, dtype=np.int64)
        if not self._shuffle:
            return positions
        permutation, ends = self._epoch(epoch)
        if self._grouped is None:
            return permutation(positions)
        group = np.searchsorted(ends, positions, side="right")
        chosen = permutation(group)
        return self._grouped.frame(chosen, positions - (ends[group] - self._grouped.sizes[chosen]))

    def _epoch(self, epoch: int) -> tuple[Permutation, NDArray[np.int64]]:
        """Return an epoch's permutation, and where its groups end when there are any."""
        if self._cached is None or self._cached[0] != epoch:
            count = self.size if self._grouped is None else len(self._grouped.sizes)
            permutation = Permutation(count, *self._key, epoch)
            ends = np.zeros(0, dtype=np.int64)
            if self._grouped is not None:
                ends = np.cumsum(self._grouped.sizes[permutation(np.arange(count))])
            self._cached = (epoch, permutation, ends)
        return self._cached[1], self._cached[2]


class _Groups:
    """Frames of one run that are visited together: every k-th of it, so that groups interleave."""

    def __init__(self, part: Part) -> None:
        assert part.runs is not None
        lengths = np.diff(np.append(part.runs, part.num_frames))
        groups = -(-lengths // part.samples_per_run)
        run = np.repeat(np.arange(len(lengths)), groups)
        within = np.arange(len(run)) - np.repeat(np.cumsum(groups) - groups, groups)
        self._first = part.runs[run] + within
        self._step = groups[run]
        self.sizes = -(-(lengths[run] - within) // self._step)
        """Frames of each group."""

    def frame(self, group: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frames at some places of some groups."""
        frames: NDArray[np.int64] = self._first[group] + place * self._step[group]
        return frames
