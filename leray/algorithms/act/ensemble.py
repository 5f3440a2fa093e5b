"""Temporal ensembling: every step's action is an average of all predictions made for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TemporalEnsemble:
    """Averages the predictions for each step with weights exp(-coeff * i), the oldest being i = 0.

    Zhao et al. 2023 (arXiv 2304.13705), algorithm 2. Averages are kept up to date prediction by
    prediction, for each environment by itself.

    Args:
        coeff: 0 weighs all predictions the same; the larger, the more the older ones count.
        chunk_size: actions K of each prediction.
    """

    def __init__(self, coeff: float, chunk_size: int) -> None:
        self._weights = np.exp(np.float32(-coeff) * np.arange(chunk_size, dtype=np.float32))
        self._sums = np.concatenate([np.zeros(1, np.float32), np.cumsum(self._weights)])
        self._counts = np.zeros((0, chunk_size), np.int64)
        self._averages = np.zeros((0, chunk_size, 0), np.float32)

    def forget(self, envs: Sequence[int] | None) -> None:
        """Forget some environments; None is all."""
        rows = slice(None) if envs is None else [env for env in envs if env < len(self._counts)]
        self._counts[rows] = 0

    def due(self, envs: Sequence[int]) -> list[int]:
        """Return all of them: there is a prediction at every step."""
        return list(envs)

    def add(self, envs: Sequence[int], chunks: NDArray[Any]) -> None:
        """Take chunks [len(envs), K, A] into the averages."""
        rows = np.asarray(envs)
        self._make_room(int(rows.max()) + 1, chunks.shape[-1])
        counts = self._counts[rows]
        sums, weights = self._sums[counts, None], self._weights[counts, None]
        total = self._averages[rows] * sums + chunks * weights
        self._averages[rows] = total / self._sums[counts + 1, None]
        self._counts[rows] = counts + 1

    def take(self, envs: Sequence[int]) -> NDArray[Any]:
        """Return the next action of each environment [len(envs), A], and go on by a step."""
        rows = np.asarray(envs)
        averages, counts = self._averages[rows], self._counts[rows]
        self._averages[rows] = np.roll(averages, -1, axis=1)
        counts[:, 0] = 0
        self._counts[rows] = np.roll(counts, -1, axis=1)
        actions: NDArray[np.float32] = averages[:, 0]
        return actions

    def _make_room(self, num_envs: int, action_size: int) -> None:
        more = num_envs - len(self._counts)
        if more > 0:
            wider = action_size - self._averages.shape[-1]  # there are no columns at first
            self._counts = np.pad(self._counts, ((0, more), (0, 0)))
            self._averages = np.pad(self._averages, ((0, more), (0, 0), (0, wider)))
