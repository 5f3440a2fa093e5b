"""Normalisation of observations and actions, kept in LeRobot's processor files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from leray.algorithms.networks.encoder import STD_FLOOR, Affine
from leray.data.features import Feature, Features
from leray.data.names import ACTION, ENVIRONMENT_STATE
from leray.errors import CheckpointError, ConfigError
from leray.files import write_json

IDENTITY, MEAN_STD, MIN_MAX = "IDENTITY", "MEAN_STD", "MIN_MAX"
RANGES = {MIN_MAX: ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""Modes that map a range of a feature to -1 .. 1, by the statistics that bound it."""
MODES = (IDENTITY, MEAN_STD, *RANGES)
Stats = dict[str, dict[str, NDArray[np.float32]]]

IMAGE_AXES = ("height", "width", "channels")
"""Order of the axes of pictures everywhere in a policy but in its files and networks."""

_STATS = ("mean", "std", *(bound for bounds in RANGES.values() for bound in bounds))
_PRE_STATE = "policy_preprocessor_step_3_normalizer_processor.safetensors"
_POST_STATE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


def feature_type(name: str, feature: Feature) -> str:
    """Return LeRobot's type of a policy feature: ACTION, VISUAL, ENV or STATE."""
    if name.startswith(ACTION):
        return "ACTION"
    if feature.is_visual or feature.dtype == "uint8":
        return "VISUAL"
    return "ENV" if name == ENVIRONMENT_STATE else "STATE"


@dataclass(kw_only=True)
class Processor:
    """How each feature of a policy is normalised."""

    features: Features
    """Observations and action of the policy."""
    norm_map: Mapping[str, str]
    """Mode by feature type, one of `MODES`; a missing type is not normalised."""
    stats: Stats = field(default_factory=dict)
    """What the modes need (`mean`, `std`, `min`, `max`, `q01`, ...), by feature name; a feature
    without it stays as it is."""

    def __post_init__(self) -> None:
        """Check the modes."""
        for kind, mode in self.norm_map.items():
            if mode not in MODES:
                raise ConfigError(
                    f"normalization_mapping {kind}={mode}: allowed are {', '.join(MODES)}"
                )

    def normalizer(self, name: str) -> Affine:
        """Return the map from raw to normalised values of a feature."""
        feature = self.features[name]
        mode = self.norm_map.get(feature_type(name, feature), IDENTITY)
        stats = self.stats.get(name, {})
        if mode == MEAN_STD and {"mean", "std"} <= stats.keys():
            return Affine.mean_std(stats["mean"], stats["std"])
        if mode in RANGES and set(RANGES[mode]) <= stats.keys():
            low, high = RANGES[mode]
            return Affine.min_max(stats[low], stats[high])
        return Affine.identity(feature.size)

    def save(self, folder: Path) -> None:
        """Write the four processor files into a checkpoint folder."""
        flat = {
            f"{name}.{stat}": np.ascontiguousarray(value, np.float32)
            for name, stats in self.stats.items()
            for stat, value in stats.items()
        }
        save_file(flat, folder / _PRE_STATE)
        save_file(flat, folder / _POST_STATE)
        config = {
            "eps": 1e-8,
            "features": policy_features(self.features),
            "norm_map": dict(self.norm_map),
        }
        device = {"device": "cpu", "float_dtype": None}
        pre = [
            _step("rename_observations_processor", {"rename_map": {}}),
            _step("to_batch_processor", {}),
            _step("device_processor", device),
            _step("normalizer_processor", config, _PRE_STATE),
        ]
        post = [
            _step("unnormalizer_processor", config, _POST_STATE),
            _step("device_processor", device),
        ]
        for name, steps in (("policy_preprocessor", pre), ("policy_postprocessor", post)):
            write_json(folder / f"{name}.json", {"name": name, "steps": steps})

    @classmethod
    def load(cls, folder: Path, features: Features) -> "Processor":
        """Read what `save` wrote, or a folder of LeRobot's with the same steps.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        path = folder / "policy_preprocessor.json"
        try:
            steps = json.loads(path.read_text())["steps"]
            step = next(s for s in steps if s.get("registry_name") == "normalizer_processor")
            flat = load_file(folder / step["state_file"]) if step.get("state_file") else {}
            norm_map = dict(step["config"]["norm_map"])
        except (OSError, ValueError, KeyError, StopIteration, TypeError) as error:
            raise CheckpointError(
                f"{path} or its state file cannot be read ({type(error).__name__}: {error}): "
                "the checkpoint is incomplete; use another one"
            ) from error
        except Exception as error:  # safetensors raises its own type
            raise CheckpointError(f"{folder}: processor state is damaged ({error})") from error
        stats: Stats = {}
        for key, value in flat.items():
            name, _, stat = key.rpartition(".")
            stats.setdefault(name, {})[stat] = value
            expected = _stat_size(features[name]) if name in features else value.size
            if stat in _STATS and value.size != expected:
                raise CheckpointError(
                    f"{folder}: {key} has {value.size} values where this run's {name} has "
                    f"{expected}: use the environment or dataset it was trained with"
                )
        return cls(features=features, norm_map=norm_map, stats=stats)


def make_processor(
    features: Features, norm_map: Mapping[str, str], dataset_stats: Mapping[str, Any] | None
) -> Processor:
    """Choose statistics: a dataset's, but an action's declared bounds where there are any.

    Args:
        features: observations and action of the policy; `low` and `high` of the action are used.
        norm_map: mode by feature type.
        dataset_stats: statistics of a dataset by feature name, or None.
    """
    stats: Stats = {}
    for name, feature in features.items():
        known = dict((dataset_stats or {}).get(name, {}))
        if name == ACTION and feature.low is not None and feature.high is not None:
            known |= dict.fromkeys(("min", "q01", "q10"), feature.low)
            known |= dict.fromkeys(("max", "q90", "q99"), feature.high)
        kept = {
            stat: np.asarray(known[stat], np.float32).reshape(-1)
            for stat in _STATS
            if stat in known
        }
        if "std" in kept:
            kept["std"] = np.maximum(kept["std"], STD_FLOOR)
        if kept:
            stats[name] = kept
    return Processor(features=features, norm_map=norm_map, stats=stats)


def policy_features(features: Features) -> dict[str, dict[str, Any]]:
    """Return features as a policy's `config.json` lists them: of pictures, channels come first."""
    entries = {}
    for name, feature in features.items():
        kind, shape = feature_type(name, feature), list(feature.shape)
        if kind == "VISUAL" and len(shape) == 3:
            height, width, channels = feature.image_shape if feature.is_visual else shape
            shape = [channels, height, width]
        entries[name] = {"type": kind, "shape": shape}
    return entries


def features_from_policy(entries: Mapping[str, Mapping[str, Any]]) -> Features:
    """Read features from a policy's `config.json`; pictures become [height, width, channels]."""
    features = {}
    for name, entry in entries.items():
        shape = tuple(entry["shape"])
        if entry["type"] == "VISUAL" and len(shape) == 3:
            shape = (*shape[1:], shape[0])
            features[name] = Feature("uint8", shape, IMAGE_AXES)
        else:
            features[name] = Feature("uint8" if entry["type"] == "VISUAL" else "float32", shape)
    return Features(features)


def _stat_size(feature: Feature) -> int:
    """Return how many values a statistic has: one per channel of a picture, else per element."""
    visual = feature.dtype == "uint8" and len(feature.shape) == 3
    return feature.shape[2] if visual else feature.size


def _step(name: str, config: dict[str, Any], state_file: str | None = None) -> dict[str, Any]:
    step: dict[str, Any] = {"registry_name": name, "config": config}
    return step if state_file is None else step | {"state_file": state_file}


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor that shares the array's memory."""
    return torch.from_numpy(np.ascontiguousarray(array))
