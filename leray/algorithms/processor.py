"""Normalisation of observations and actions, kept in LeRobot's processor files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from leray.algorithms.networks.encoder import STD_FLOOR, Affine
from leray.algorithms.processor_files import (
    BATCH,
    DEVICE,
    NORMALIZER,
    POSTPROCESSOR,
    PREPROCESSOR,
    RENAME,
    UNNORMALIZER,
    Stats,
    Step,
    damage_told,
    read_pipeline,
    write_pipeline,
)
from leray.data.features import Feature, Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, PAD_SUFFIX
from leray.errors import CheckpointError, ConfigError

IDENTITY, MEAN_STD, MIN_MAX = "IDENTITY", "MEAN_STD", "MIN_MAX"
RANGES = {MIN_MAX: ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""Modes that map a range of a feature to -1 .. 1, by the statistics that bound it."""
MODES = (IDENTITY, MEAN_STD, *RANGES)
T = TypeVar("T")

IMAGE_AXES = ("height", "width", "channels")
"""Order of the axes of pictures everywhere in a policy but in its files and networks."""

EPS = 1e-8
"""Added to standard deviations, and taken for ranges that are empty, where no file says more."""

_STATS = ("mean", "std", *(bound for bounds in RANGES.values() for bound in bounds))


def needed_stats(mode: str) -> tuple[str, ...]:
    """Return the names of the two statistics that a mode needs; none for IDENTITY."""
    return ("mean", "std") if mode == MEAN_STD else RANGES.get(mode, ())


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
    """Observations and action of the policy, under the names that its network knows."""
    norm_map: Mapping[str, str]
    """Mode by feature type, one of `MODES`; a missing type is not normalised."""
    stats: Stats = field(default_factory=dict)
    """What the modes need (`mean`, `std`, `min`, `max`, `q01`, ...), by feature name; a feature
    without any stays as it is. Others are only kept."""
    eps: float = EPS
    """Added to standard deviations, and taken for ranges that are empty."""
    normalize_observation_keys: Collection[str] | None = None
    """The only observations that are normalised; None is all."""
    rename_map: Mapping[str, str] = field(default_factory=dict)
    """Names in environments and datasets, and the policy's for the same observation."""
    output: "Processor | None" = None
    """How actions come back, where it is not the inverse of how they go in."""

    def __post_init__(self) -> None:
        """Check the modes."""
        for kind, mode in self.norm_map.items():
            if mode not in MODES:
                raise ConfigError(
                    f"normalization_mapping {kind}={mode}: allowed are {', '.join(MODES)}"
                )

    @property
    def source_features(self) -> Features:
        """The same features under the names that environments and datasets have."""
        names = {ours: theirs for theirs, ours in self.rename_map.items()}
        return Features({names.get(name, name): f for name, f in self.features.items()})

    def renamed(self, batch: Mapping[str, T]) -> dict[str, T]:
        """Return a batch under the policy's names, masks `<name>_is_pad` too."""
        names = dict(self.rename_map)
        names |= {old + PAD_SUFFIX: new + PAD_SUFFIX for old, new in self.rename_map.items()}
        return {names.get(name, name): values for name, values in batch.items()}

    def mode(self, name: str) -> str:
        """Return how a feature is normalised; one without statistics is not, as in LeRobot."""
        keys = self.normalize_observation_keys
        left_out = name != ACTION and keys is not None and name not in keys
        if left_out or not self.stats.get(name):
            return IDENTITY
        return self.norm_map.get(feature_type(name, self.features[name]), IDENTITY)

    def normalizer(self, name: str) -> Affine:
        """Return the map from raw to normalised values of a feature."""
        mode, stats = self.mode(name), self.stats.get(name, {})
        if mode == MEAN_STD and {"mean", "std"} <= stats.keys():
            return Affine.mean_std(stats["mean"], stats["std"])
        if mode in RANGES and set(RANGES[mode]) <= stats.keys():
            low, high = RANGES[mode]
            return Affine.min_max(stats[low], stats[high])
        return Affine.identity(self.features[name].size)

    def save(self, folder: Path, device: str = "cpu") -> None:
        """Write the processor files into a checkpoint folder, as LeRobot has them.

        Args:
            folder: the checkpoint.
            device: where LeRobot moves observations to, unless it is told otherwise.
        """
        back = self.output or self
        into = self._step_config(self.features)
        if self.normalize_observation_keys is not None:
            into["normalize_observation_keys"] = sorted(self.normalize_observation_keys)
        pre = [
            Step(RENAME, {"rename_map": dict(self.rename_map)}),
            Step(BATCH),
            Step(DEVICE, {"device": device, "float_dtype": None}),
            Step(NORMALIZER, into, self.stats),
        ]
        out_of = back._step_config(_action(self.features))  # noqa: SLF001 - its own kind
        post = [
            Step(UNNORMALIZER, out_of, back.stats),
            Step(DEVICE, {"device": "cpu", "float_dtype": None}),
        ]
        write_pipeline(folder, PREPROCESSOR, pre)
        write_pipeline(folder, POSTPROCESSOR, post)

    def set_output(self, output: "Processor") -> None:
        """Say how actions come back; that is not kept where it only undoes how they go in."""
        self.output = None if _same_action(self, output) else output

    def check_sizes(self, folder: Path) -> None:
        """Check that statistics fit the features.

        Raises:
            CheckpointError: they are of another size; `folder` is what they were read from.
        """
        for name, feature in self.features.items():
            for stat, value in self.stats.get(name, {}).items():
                expected = _stat_size(feature)
                if stat in _STATS and value.size != expected:
                    raise CheckpointError(
                        f"{folder}: {name}.{stat} has {value.size} values where this run's {name} "
                        f"has {expected}: use the environment or dataset it was trained with"
                    )

    @classmethod
    def load(cls, folder: Path, features: Features, *, plain: bool = True) -> "Processor":
        """Read what `save` wrote, or a folder of LeRobot's.

        Args:
            folder: the checkpoint.
            features: of the policy, under its own names.
            plain: refuse renamed observations, and actions that come back in another way than they
                go in: the caller does not look for them.

        Raises:
            CheckpointError: a file is missing or damaged, does not fit the features, or holds what
                is not known here.
        """
        pre, post = (read_pipeline(folder, name) for name in (PREPROCESSOR, POSTPROCESSOR))
        with damage_told(folder / f"{PREPROCESSOR}.json"):
            processor = cls._of(pre[NORMALIZER], features)
            rename = pre.get(RENAME, Step(RENAME)).config.get("rename_map")
            processor.rename_map = dict(rename or {})
        with damage_told(folder / f"{POSTPROCESSOR}.json"):
            output = cls._of(post[UNNORMALIZER], _action(features))
        for one in (processor, output):
            one.check_sizes(folder)
        processor.set_output(output)
        names = processor.rename_map
        if len(set(names.values())) < len(names):
            raise CheckpointError(
                f"{folder}: rename_map {names} gives two observations one name; write one of them"
            )
        if plain and (names or processor.output is not None):
            raise CheckpointError(
                f"{folder}: its processors rename observations, or undo the normalisation of "
                "actions in another way than they do it, which this type of policy cannot"
            )
        return processor

    @classmethod
    def _of(cls, step: Step, features: Features) -> "Processor":
        keys = step.config.get("normalize_observation_keys")
        listed = step.config.get("features", features)
        if any(name not in listed for name in features):
            keys = [name for name in listed if keys is None or name in keys]
        return cls(
            features=features,
            norm_map=dict(step.config["norm_map"]),
            stats=step.stats,
            eps=float(step.config.get("eps", EPS)),
            normalize_observation_keys=keys,
        )

    def _step_config(self, features: Features) -> dict[str, Any]:
        return {
            "eps": self.eps,
            "features": policy_features(features),
            "norm_map": dict(self.norm_map),
        }


def _action(features: Features) -> Features:
    return features.select([name for name in features if name == ACTION])


def _same_action(first: Processor, second: Processor) -> bool:
    """Tell whether two processors normalise actions alike."""
    if ACTION not in first.features:
        return True
    modes, values = [], []
    for processor in (first, second):
        mode, stats = processor.mode(ACTION), processor.stats.get(ACTION, {})
        modes.append((mode, processor.eps))
        values.append([stats[stat].tolist() for stat in needed_stats(mode) if stat in stats])
    return modes[0] == modes[1] and values[0] == values[1]


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


def to_tensor(array: NDArray[Any]) -> torch.Tensor:
    """Return a tensor that shares the array's memory."""
    return torch.from_numpy(np.ascontiguousarray(array))
