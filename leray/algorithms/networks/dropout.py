"""Dropout that is fast on CPUs, where torch spends most of it on making random numbers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 1 << 16
"""Random numbers are of 16 bits: the share that is dropped is a multiple of 1 / LEVELS."""
_PER_DRAW = 4
"""How many such numbers are in one of the generator's draws of 64 bits."""


class Dropout(nn.Module):
    """Sets elements to zero at random while training, and scales the others up (Srivastava 2014).

    Args:
        p: share of elements that is dropped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x with elements dropped, a new tensor unless there is nothing to drop."""
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, p: float) -> Tensor:
    """Return x where each element is 0 with probability p, and multiplied with 1 / (1 - p) else."""
    if p == 0 or not x.is_cpu:
        return functional.dropout(x, p)
    return x * _factors(x.shape, p, x.dtype)


def _factors(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    count = shape.numel()
    draws = torch.empty(-(-count // _PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[:count].view(shape)  # uniform from -LEVELS / 2
    dropped = min(round(p * LEVELS), LEVELS - 1)
    kept = (numbers >= dropped - LEVELS // 2).to(dtype)
    return kept.mul_(LEVELS / (LEVELS - dropped))
