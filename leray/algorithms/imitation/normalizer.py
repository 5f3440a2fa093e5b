"""Raw features to what networks read and back, with LeRobot's arithmetic to the last bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leray.algorithms.processor import (
    IDENTITY,
    MEAN_STD,
    RANGES,
    Processor,
    Stats,
    feature_type,
)
from leray.data.features import Features
from leray.errors import DatasetError

EPS = 1e-8
"""Added to standard deviations, and taken for ranges that are empty."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of the pictures that backbones are pretrained on, within 0 and 1 (torchvision's weights)."""


class Normalizer:
    """Normalises tensors by feature name; a feature without statistics stays as it is.

    Mean and standard deviation: (x - mean) / (std + eps). Ranges: 2 (x - low) / (high - low) - 1,
    where an empty range counts as eps. Nothing is clipped.

    Args:
        processor: features, modes and statistics.
        device: of the tensors.
    """

    def __init__(self, processor: Processor, device: torch.device) -> None:
        self._terms: dict[str, tuple[str, Tensor, Tensor]] = {}
        for name, feature in processor.features.items():
            mode = processor.norm_map.get(feature_type(name, feature), IDENTITY)
            first, second = ("mean", "std") if mode == MEAN_STD else RANGES.get(mode, ("", ""))
            stats = processor.stats.get(name, {})
            if first in stats and second in stats:
                low, high = (
                    torch.as_tensor(np.asarray(stats[stat], np.float32), device=device)
                    for stat in (first, second)
                )
                self._terms[name] = (mode, low, high)

    def __call__(self, name: str, values: Tensor) -> Tensor:
        """Return a feature's values normalised.

        Args:
            name: of the feature.
            values: [..., size], or [..., channels, height, width].
        """
        if name not in self._terms:
            return values
        mode, first, second = self._terms[name]
        if mode == MEAN_STD:
            return (values - first) / (second + EPS)
        return 2 * (values - first) / _width(first, second) - 1

    def inverse(self, name: str, values: Tensor) -> Tensor:
        """Undo `__call__`."""
        if name not in self._terms:
            return values
        mode, first, second = self._terms[name]
        if mode == MEAN_STD:
            return values * second + first
        return (values + 1) / 2 * _width(first, second) + first


def dataset_processor(
    features: Features,
    norm_map: Mapping[str, str],
    stats: Mapping[str, Mapping[str, Any]],
    *,
    use_imagenet_stats: bool,
) -> Processor:
    """Return the processor of a policy that is trained on a dataset.

    Args:
        features: of the policy.
        norm_map: mode by feature type.
        stats: of the dataset, by feature name; all of them are kept.
        use_imagenet_stats: pictures of three channels are normalised as those of ImageNet.

    Raises:
        DatasetError: a statistic that a mode needs is missing.
    """
    kept: Stats = {}
    for name, feature in features.items():
        known = {key: np.asarray(value, np.float32) for key, value in stats.get(name, {}).items()}
        kind = feature_type(name, feature)
        if kind == "VISUAL":
            channels = feature.shape[2]
            if use_imagenet_stats and channels == len(IMAGENET["mean"]):
                known |= {key: np.asarray(value, np.float32) for key, value in IMAGENET.items()}
            known = {
                key: value.reshape(channels, 1, 1) if value.size == channels else value
                for key, value in known.items()
            }
        mode = norm_map.get(kind, IDENTITY)
        needed = ("mean", "std") if mode == MEAN_STD else RANGES.get(mode, ())
        if lacking := [stat for stat in needed if stat not in known]:
            raise DatasetError(
                f"the dataset has no {lacking[0]} of {name}, which {mode} needs: "
                "`leray dataset check --repair=true` computes statistics, or choose another "
                "--policy.normalization_mapping"
            )
        kept[name] = known
    return Processor(features=features, norm_map=norm_map, stats=kept)


def _width(low: Tensor, high: Tensor) -> Tensor:
    width = high - low
    return torch.where(width == 0, torch.full_like(width, EPS), width)
