"""A shuffle of any size without a table: the place of each item is computed.

A Feistel network over the next even number of bits, walked until the result lies inside the range
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). So the n-th item of any epoch is
known at once, which is what exact resume and many learners need.
"""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Permutation:
    """A bijection of 0 .. size - 1 that looks random.

    Args:
        size: number of items, at least 1 and below 2^62.
        key: integers that name the permutation, such as (seed, epoch).
    """

    def __init__(self, size: int, *key: int) -> None:
        self.size = size
        self._half = max((max(size - 1, 1).bit_length() + 1) // 2, 1)
        self._mask = np.uint64((1 << self._half) - 1)
        # Their count is part of it, since a key that ends in zeros is the same without them.
        seeds = np.random.SeedSequence([len(key), *(part & 0xFFFF_FFFF_FFFF_FFFF for part in key)])
        self._keys = seeds.generate_state(_ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the items at some positions [n], each in 0 .. size - 1."""
        values = self._encrypt(positions.astype(np.uint64))
        while (outside := np.flatnonzero(values >= np.uint64(self.size))).size:
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        shift = np.uint64(self._half)
        left, right = values >> shift, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << shift) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of 64-bit integers (the finaliser of splitmix64)."""
    add, first, second = (np.uint64(number) for number in _MULTIPLIERS)
    with np.errstate(over="ignore"):
        values = values + add
        values = (values ^ (values >> np.uint64(30))) * first
        values = (values ^ (values >> np.uint64(27))) * second
    return values ^ (values >> np.uint64(31))
