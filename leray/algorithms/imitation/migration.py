"""Checkpoints of LeRobot 0.3 and older, which keep their statistics among the weights.

They have no processor files. Each feature that is normalised has tensors in the weights file, under
its name with `_` for each `.`. That cannot be undone (`observation_images_left_wrist` is what?), so
features are looked up by the names that the config has.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.pretrained import WEIGHTS_FILE, read_tensors
from leray.algorithms.processor import (
    EPS,
    IDENTITY,
    MEAN_STD,
    Processor,
    feature_type,
    needed_stats,
)
from leray.algorithms.processor_files import PREPROCESSOR, Stats
from leray.data.features import Features
from leray.data.names import ACTION
from leray.errors import CheckpointError

INPUTS, TARGETS, OUTPUTS = "normalize_inputs.", "normalize_targets.", "unnormalize_outputs."
"""What the names of statistics begin with: of observations, of actions on their way in and out."""
COMPILED = "_orig_mod."
"""What torch.compile puts before the names within a network."""


def read_processor(folder: Path, features: Features, norm_map: Mapping[str, str]) -> Processor:
    """Return the processor of a checkpoint, whichever version of LeRobot wrote it.

    Args:
        folder: the checkpoint.
        features: of the policy.
        norm_map: mode by feature type, which counts where there are no processor files.

    Raises:
        CheckpointError: the processor files, or the statistics in the weights, are missing, damaged
            or do not fit the features.
    """
    if (folder / f"{PREPROCESSOR}.json").is_file():
        return Processor.load(folder, features, plain=False)
    tensors = read_tensors(folder, prefixes=(INPUTS, TARGETS, OUTPUTS))
    into: Stats = {}
    back: Stats = {}
    for name, feature in features.items():
        mode = norm_map.get(feature_type(name, feature), IDENTITY)
        if not needed_stats(mode):
            continue
        known = _statistics(folder, tensors, TARGETS if name == ACTION else INPUTS, name, mode)
        into[name] = known if mode == MEAN_STD else _widened(known)
        if name == ACTION:
            back[name] = _statistics(folder, tensors, OUTPUTS, name, mode)
    processor = Processor(features=features, norm_map=norm_map, stats=into)
    output = Processor(features=features.select([ACTION]), norm_map=norm_map, stats=back)
    for one in (processor, output):
        one.check_sizes(folder)
    processor.set_output(output)
    return processor


def network_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a network alone: no statistics, and no names that compiling adds."""
    return {
        name.replace(COMPILED, ""): tensor
        for name, tensor in tensors.items()
        if not name.startswith((INPUTS, TARGETS, OUTPUTS))
    }


def _statistics(
    folder: Path, tensors: Mapping[str, Tensor], prefix: str, name: str, mode: str
) -> dict[str, NDArray[np.float32]]:
    buffer = f"{prefix}buffer_{name.replace('.', '_')}"
    stats = {}
    for stat in needed_stats(mode):
        key = f"{buffer}.{stat}"
        if key not in tensors:
            raise CheckpointError(
                f"{folder} has neither {PREPROCESSOR}.json nor {key} in {WEIGHTS_FILE}, so there "
                f"is no telling how {name} is normalised: the checkpoint is incomplete"
            )
        stats[stat] = np.asarray(tensors[key].float().numpy(), np.float32)
        if not np.isfinite(stats[stat]).all():
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: {key} is not finite, as in a policy that was saved "
                "before it was given a dataset: use one that was trained"
            )
    return stats


def _widened(stats: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return a range that gives the old arithmetic, which adds eps to the width of every range.

    That counts for features that hardly move. On the way back nothing was added.
    """
    low, high = stats["min"], stats["max"]
    return {"min": low, "max": low + ((high - low) + np.float32(EPS))}
