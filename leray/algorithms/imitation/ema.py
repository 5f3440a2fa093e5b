"""A moving average of weights, which acts in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class MovingAverage:
    """An exponential moving average of weights that follows quickly at first.

    After update t, counted from 1:
    `average += (1 - min(decay, (1 + t) / (10 + t))) * (weights - average)`.

    Args:
        weights: by name; they are updated in place by their optimiser.
        decay: the share of the average that each update keeps, at most.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self._decay = decay
        self._weights = dict(weights)
        self.tensors = {name: tensor.detach().clone() for name, tensor in weights.items()}
        """The average by name."""

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Follow the weights.

        Args:
            num_updates: t, how many updates there were, the newest included.
        """
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        weights = [tensor.detach() for tensor in self._weights.values()]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - decay)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Put the average in the place of the weights, and those back after the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, tensor in self._weights.items():
            tensor.data, self.tensors[name] = self.tensors[name], tensor.data
