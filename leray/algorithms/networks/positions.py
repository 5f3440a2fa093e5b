"""Fixed positions for transformers: sinusoids of one axis, and of the two axes of a picture."""

import functools
import math

import torch
from torch import Tensor

BASE = 10_000.0
"""The slowest wave is about so many times longer than the fastest."""
EPS = 1e-6
"""Keeps the end of an axis just below a full turn (Carion et al. 2020, in the code)."""


def sinusoids(length: int, size: int) -> Tensor:
    """Return positions 0 .. length - 1 as vectors, float32 [length, size].

    Even entries 2i are sin(p / BASE^(2i / size)), odd ones the cosine of the same angle (Vaswani
    et al. 2017, arXiv 1706.03762, section 3.5).
    """
    steps = torch.arange(length, dtype=torch.float64)
    return _waves(steps, size).to(torch.float32)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(mode=False)
def picture_sinusoids(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """Return the positions of a map's pixels row by row, float32 [height * width, size].

    The first half of each vector tells the row, the second half the column, both counted from 1 as
    parts of a full turn (Carion et al. 2020, DETR, arXiv 2005.12872, appendix A.4).

    Args:
        height: of the map.
        width: of the map.
        size: of the vectors, a multiple of 4.
        device: of the result, which is kept for the next call: do not change it.
    """
    rows, columns = (
        _waves(torch.arange(1, length + 1) / (length + EPS) * (2 * math.pi), size // 2)
        for length in (height, width)
    )
    grid = torch.cat(
        [
            rows.unsqueeze(1).expand(-1, width, -1),
            columns.unsqueeze(0).expand(height, -1, -1),
        ],
        dim=-1,
    )
    return grid.flatten(0, 1).to(device)


def _waves(positions: Tensor, size: int) -> Tensor:
    """Return sines and cosines in turns, [len(positions), size], of the positions' dtype."""
    exponents = 2 * (torch.arange(size, dtype=positions.dtype) // 2) / size
    angles = positions.unsqueeze(-1) / BASE**exponents
    angles[:, 0::2].sin_()
    angles[:, 1::2].cos_()
    return angles
