"""From a batch of named features to the one vector that policy and critic networks read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leray.data.features import Features
from leray.errors import FeatureMismatchError

STD_FLOOR = 5e-2
"""Smallest standard deviation divided by: what hardly moves in demonstrations may move online."""


CLIP = 10.0
"""Largest normalised observation: one that leaves the demonstrations' range must not blow up."""


class Affine:
    """x -> x * scale + shift, element by element; nothing at all where it is the identity."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        self.scale = scale
        self.shift = shift
        self.is_identity = bool((scale == 1).all() and (shift == 0).all())

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to a tensor of shape [..., D]."""
        return x if self.is_identity else torch.addcmul(self.shift, x, self.scale)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `__call__`."""
        return y if self.is_identity else (y - self.shift) / self.scale

    def to(self, device: torch.device) -> "Affine":
        """Return a copy on another device."""
        return Affine(self.scale.to(device), self.shift.to(device))

    @classmethod
    def identity(cls, size: int) -> "Affine":
        """Return the identity for vectors of `size` elements."""
        return cls(torch.ones(size), torch.zeros(size))

    @classmethod
    def mean_std(cls, mean: Any, std: Any) -> "Affine":
        """Map mean and standard deviation to 0 and 1."""
        scale = 1.0 / torch.as_tensor(np.asarray(std, np.float32).reshape(-1)).clamp_min(STD_FLOOR)
        return cls(scale, -torch.as_tensor(np.asarray(mean, np.float32).reshape(-1)) * scale)

    @classmethod
    def min_max(cls, low: Any, high: Any) -> "Affine":
        """Map low and high to -1 and 1; where a range is empty or infinite, keep as is."""
        low_array = np.asarray(low, np.float64).reshape(-1)
        high_array = np.asarray(high, np.float64).reshape(-1)
        usable = np.isfinite(low_array) & np.isfinite(high_array) & (high_array > low_array)
        low_array, high_array = np.where(usable, low_array, -1.0), np.where(usable, high_array, 1.0)
        scale = 2.0 / (high_array - low_array)
        shift = -1.0 - low_array * scale
        return cls(
            torch.tensor(scale, dtype=torch.float32), torch.tensor(shift, dtype=torch.float32)
        )


class VectorEncoder:
    """Concatenates the vector observations of a batch and normalises them.

    Args:
        features: observations to read, in this order.
        normalizers: by feature name; a missing one is the identity.

    Raises:
        FeatureMismatchError: an observation is not a vector of numbers.
    """

    def __init__(self, features: Features, normalizers: Mapping[str, Affine]) -> None:
        for key, feature in features.items():
            if not feature.is_numeric or len(feature.shape) != 1:
                raise FeatureMismatchError(
                    f"{key} is {feature.dtype}{list(feature.shape)}; this policy reads vectors of "
                    "numbers: leave it out of the environment's or dataset's features"
                )
        if not features:
            raise FeatureMismatchError(
                "no observation.* feature is given; a policy needs at least one"
            )
        self.features = features
        self.keys = list(features)
        self.size = sum(feature.size for feature in features.values())
        parts = [normalizers.get(key, Affine.identity(features[key].size)) for key in self.keys]
        self.normalizer = Affine(
            torch.cat([part.scale for part in parts]), torch.cat([part.shift for part in parts])
        )

    def to(self, device: torch.device) -> "VectorEncoder":
        """Move the normaliser to a device, in place."""
        self.normalizer = self.normalizer.to(device)
        return self

    def __call__(self, batch: Mapping[str, Tensor], prefix: str = "") -> Tensor:
        """Return vectors of shape [B, size], float32.

        Args:
            batch: tensors of shape [B, ...] by feature name.
            prefix: what stands before each name in the batch, for example `next.`.
        """
        parts = [batch[prefix + key] for key in self.keys]
        if len(parts) == 1 and parts[0].dim() == 2:
            vector = parts[0].to(torch.float32)
        else:
            vector = torch.cat(
                [part.reshape(part.shape[0], -1).to(torch.float32) for part in parts], -1
            )
        if self.normalizer.is_identity:
            return vector
        return self.normalizer(vector).clamp_(-CLIP, CLIP)
