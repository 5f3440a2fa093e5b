"""Raw features to what networks read and back, with LeRobot's arithmetic to the last bit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.processor import (
    IDENTITY,
    MEAN_STD,
    Processor,
    feature_type,
    needed_stats,
)
from leray.algorithms.processor_files import Stats
from leray.data.features import Features
from leray.errors import ConfigError, DatasetError

COUNT = "count"
"""Statistic that is no value of the feature: how many there were."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Of the pictures that backbones are pretrained on, within 0 and 1 (torchvision's weights)."""


class Normalizer:
    """Normalises tensors by feature name; a feature without statistics stays as it is.

    Mean and standard deviation: (x - mean) / (std + eps). Ranges: 2 (x - low) / (high - low) - 1,
    where an empty range counts as eps. Nothing is clipped.

    Args:
        processor: features, modes and statistics.
        device: of the tensors.

    Raises:
        ConfigError: a feature has statistics, but not those that its mode needs.
    """

    def __init__(self, processor: Processor, device: torch.device) -> None:
        self._into = _terms(processor, device)
        self._back = self._into if processor.output is None else _terms(processor.output, device)

    def __call__(self, name: str, values: Tensor) -> Tensor:
        """Return a feature's values normalised.

        Args:
            name: of the feature.
            values: [..., size], or [..., channels, height, width].
        """
        if name not in self._into:
            return values
        mode, first, second, eps = self._into[name]
        if mode == MEAN_STD:
            return (values - first) / (second + eps)
        return 2 * (values - first) / _width(first, second, eps) - 1

    def inverse(self, name: str, values: Tensor) -> Tensor:
        """Return what was normalised in its own units; of actions also where those differ."""
        if name not in self._back:
            return values
        mode, first, second, eps = self._back[name]
        if mode == MEAN_STD:
            return values * second + first
        return (values + 1) / 2 * _width(first, second, eps) + first


def _terms(
    processor: Processor, device: torch.device
) -> dict[str, tuple[str, Tensor, Tensor, float]]:
    """Return mode, its two statistics, and eps of each feature that is normalised."""
    terms = {}
    for name in processor.features:
        mode, stats = processor.mode(name), processor.stats.get(name, {})
        if mode == IDENTITY:
            continue
        if lacking := [stat for stat in needed_stats(mode) if stat not in stats]:
            raise ConfigError(
                f"there is no {lacking[0]} of {name}, which {mode} needs: choose another "
                "normalization_mapping, or a checkpoint or dataset that has it"
            )
        first, second = (
            torch.as_tensor(np.asarray(stats[stat], np.float32), device=device)
            for stat in needed_stats(mode)
        )
        terms[name] = (mode, first, second, processor.eps)
    return terms


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
        stats: of the dataset, by feature name; all are kept, those of other features too.
        use_imagenet_stats: pictures of three channels are normalised as those of ImageNet.

    Raises:
        DatasetError: a statistic that a mode needs is missing.
    """
    kept: Stats = {
        name: {stat: np.asarray(value, np.float32) for stat, value in values.items()}
        for name, values in stats.items()
    }
    for name, feature in features.items():
        known = kept.setdefault(name, {})
        kind = feature_type(name, feature)
        if kind == "VISUAL":
            known |= _of_pictures(known, feature.shape[2], use_imagenet_stats=use_imagenet_stats)
        mode = norm_map.get(kind, IDENTITY)
        if lacking := [stat for stat in needed_stats(mode) if stat not in known]:
            raise DatasetError(
                f"the dataset has no {lacking[0]} of {name}, which {mode} needs: "
                "`leray dataset check --repair=true` computes statistics, or choose another "
                "--policy.normalization_mapping"
            )
    return Processor(features=features, norm_map=norm_map, stats=kept)


def _of_pictures(
    known: Mapping[str, NDArray[np.float32]], channels: int, *, use_imagenet_stats: bool
) -> dict[str, NDArray[np.float32]]:
    """Return statistics of pictures, those by channel as [channels, 1, 1]."""
    stats = dict(known)
    if use_imagenet_stats and channels == len(IMAGENET["mean"]):
        stats |= {stat: np.asarray(value, np.float32) for stat, value in IMAGENET.items()}
    return {
        stat: value.reshape(channels, 1, 1) if stat != COUNT and value.size == channels else value
        for stat, value in stats.items()
    }


def _width(low: Tensor, high: Tensor, eps: float) -> Tensor:
    width = high - low
    return torch.where(width == 0, torch.full_like(width, eps), width)
