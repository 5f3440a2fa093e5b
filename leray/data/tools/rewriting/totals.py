"""Statistics of a whole dataset, gathered episode by episode in bounded memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.data import statistics
from leray.data.statistics import FeatureStatistics, Statistics

KEPT_BYTES = 256 * 2**20
"""Numbers kept in memory, of all features together."""

_PENDING = 100


class TotalStatistics:
    """Exact statistics of numeric features as long as their numbers fit into memory.

    When they do not, the largest features are combined from those of the episodes instead: all but
    the quantiles is exact then, too.

    Args:
        kept_bytes: how much to keep.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._left = kept_bytes
        self._kept: dict[str, list[NDArray[Any]]] = {}
        self._dropped: set[str] = set()
        self._combined: Statistics = {}
        self._pending: list[Statistics] = []

    def add(self, numbers: dict[str, NDArray[Any]], stats: Statistics) -> None:
        """Take one episode.

        Args:
            numbers: its numeric columns [frames, ...]; they are kept, not copied.
            stats: its statistics, those of pictures included.
        """
        for name, array in numbers.items():
            if name not in self._dropped:
                self._kept.setdefault(name, []).append(array)
                self._left -= array.nbytes
        while self._left < 0:
            largest = max(self._kept, key=self._size)
            self._left += self._size(largest)
            self._dropped.add(largest)
            del self._kept[largest]
        self._pending.append(stats)
        if len(self._pending) == _PENDING:
            self._combine()

    def result(self) -> Statistics:
        """Return the statistics of everything; to be called once, it frees what was kept."""
        self._combine()
        for name in list(self._kept):
            self._combined[name] = _exact(np.concatenate(self._kept.pop(name)))
        return self._combined

    def _size(self, name: str) -> int:
        return sum(array.nbytes for array in self._kept[name])

    def _combine(self) -> None:
        self._combined = statistics.aggregate([self._combined, *self._pending])
        self._pending = []


def _exact(array: NDArray[Any]) -> FeatureStatistics:
    """Compute one dimension at a time, which takes a fraction of the memory."""
    columns = array.reshape(len(array), -1)
    parts = [statistics.compute(columns[:, number]) for number in range(columns.shape[1])]
    entry: FeatureStatistics = {
        key: np.concatenate([part[key] for part in parts]).reshape(array.shape[1:] or (1,))
        for key in parts[0]
        if key != "count"
    }
    return {**entry, "count": parts[0]["count"]}
