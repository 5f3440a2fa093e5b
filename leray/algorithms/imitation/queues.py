"""What a policy remembers of each environment: past observations, and actions still to take."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class History:
    """The newest observations of each environment.

    Args:
        length: observations T that are kept; one that is not full repeats its first one.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._kept: dict[int, deque[dict[str, NDArray[Any]]]] = {}

    def forget(self, envs: Sequence[int] | None) -> None:
        """Forget some environments; None is all."""
        _forget(self._kept, envs)

    def add(self, envs: Sequence[int], observations: Arrays) -> None:
        """Add one observation of each environment, row by row."""
        for row, env in enumerate(envs):
            newest = {key: np.array(values[row]) for key, values in observations.items()}
            kept = self._kept.setdefault(env, deque(maxlen=self.length))
            kept.extend([newest] * (1 if kept else self.length))

    def windows(self, envs: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return arrays [len(envs), T, ...], oldest first."""
        return {
            key: np.stack([np.stack([one[key] for one in self._kept[env]]) for env in envs])
            for key in self._kept[envs[0]][0]
        }


class Actions(Protocol):
    """Turns the chunks of actions that a policy predicts into one action at a time."""

    def forget(self, envs: Sequence[int] | None) -> None:
        """Forget some environments; None is all."""
        ...

    def due(self, envs: Sequence[int]) -> list[int]:
        """Return those environments that need a chunk before their next action."""
        ...

    def add(self, envs: Sequence[int], chunks: NDArray[Any]) -> None:
        """Take over chunks [len(envs), K, A]."""
        ...

    def take(self, envs: Sequence[int]) -> NDArray[Any]:
        """Return the next action of each environment [len(envs), A]."""
        ...


class ActionQueues:
    """Plays a chunk to its end before the next one is asked for.

    Args:
        length: actions of a chunk that are played, at most.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._left: dict[int, deque[NDArray[Any]]] = {}

    def forget(self, envs: Sequence[int] | None) -> None:
        """Forget some environments; None is all."""
        _forget(self._left, envs)

    def due(self, envs: Sequence[int]) -> list[int]:
        """Return those environments whose chunk is used up."""
        return [env for env in envs if not self._left.get(env)]

    def add(self, envs: Sequence[int], chunks: NDArray[Any]) -> None:
        """Take over chunks [len(envs), K, A]; what is left of earlier ones is dropped."""
        for env, chunk in zip(envs, chunks, strict=True):
            self._left[env] = deque(chunk[: self._length])

    def take(self, envs: Sequence[int]) -> NDArray[Any]:
        """Return the next action of each environment [len(envs), A]."""
        return np.stack([self._left[env].popleft() for env in envs])


def _forget(kept: dict[int, Any], envs: Sequence[int] | None) -> None:
    if envs is None:
        kept.clear()
    else:
        for env in envs:
            kept.pop(env, None)
