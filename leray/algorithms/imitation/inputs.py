"""What imitation policies read of a stream, and how it becomes tensors for their networks."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from leray.algorithms.imitation.normalizer import Normalizer
from leray.algorithms.processor import IMAGE_AXES, to_tensor
from leray.data.features import Feature, Features
from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE, PAD_SUFFIX
from leray.errors import FeatureMismatchError

Batch = dict[str, Tensor]
RawBatch = Mapping[str, NDArray[Any] | Tensor]
"""A batch of a dataset stream, before it is normalised."""

_VECTORS = (OBSERVATION_STATE, ENVIRONMENT_STATE)


def policy_inputs(features: Features) -> Features:
    """Return the features of a dataset that imitation policies read, and its action.

    Those are `observation.state`, `observation.environment_state` and all pictures, in the
    dataset's order, which is that of the cameras in the network.

    Raises:
        FeatureMismatchError: there is no action vector, or nothing to observe.
    """
    chosen = {}
    for name, feature in features.items():
        if name in _VECTORS and feature.is_numeric and len(feature.shape) == 1:
            chosen[name] = Feature("float32", feature.shape, feature.names)
        elif name.startswith("observation.") and is_picture(feature):
            chosen[name] = Feature("uint8", feature.image_shape, IMAGE_AXES)
    action = features.get(ACTION)
    if not chosen or action is None or not action.is_numeric or len(action.shape) != 1:
        raise FeatureMismatchError(
            f"there are {', '.join(features) or 'no features'}; an imitation policy needs an "
            f"`action` vector, and {', '.join(_VECTORS)} or pictures"
        )
    bounded = Feature("float32", action.shape, action.names, low=action.low, high=action.high)
    return Features({**chosen, ACTION: bounded})


def vector_inputs(features: Features) -> Features:
    """Return all observations of a dataset that are vectors, and its action.

    Raises:
        FeatureMismatchError: there is no action vector, or nothing to observe.
    """
    chosen = [
        name
        for name, feature in features.items()
        if name.startswith("observation.") and feature.is_numeric and len(feature.shape) == 1
    ]
    action = features.get(ACTION)
    if not chosen or action is None or not action.is_numeric or len(action.shape) != 1:
        raise FeatureMismatchError(
            f"there are {', '.join(features) or 'no features'}; the policy needs an `action` "
            "vector, and at least one observation.* vector"
        )
    return features.select([*chosen, ACTION])


def check_features(features: Features, kind: str) -> None:
    """Check what all imitation policies take for granted.

    Args:
        features: of the policy.
        kind: its type.

    Raises:
        FeatureMismatchError: there is no action, nothing to observe, or one of the vectors is none.
    """
    listed = ", ".join(f"{name} {list(f.shape)}" for name, f in features.items()) or "none"
    vectors = [name for name in (*_VECTORS, ACTION) if name in features]
    for name in vectors:
        if len(features[name].shape) != 1:
            raise FeatureMismatchError(
                f"{kind} needs {name} as a vector; the features are {listed}"
            )
    if ACTION not in features or len(features) < 2:
        raise FeatureMismatchError(
            f"{kind} needs an `action` and something to observe; the features are {listed}"
        )


def is_picture(feature: Feature) -> bool:
    """Tell whether a feature is a picture, encoded or as bytes."""
    return feature.is_visual or (feature.dtype == "uint8" and len(feature.shape) == 3)


def pictures(features: Features) -> list[str]:
    """Return the names of the features that are pictures, in order."""
    return [name for name, feature in features.items() if is_picture(feature)]


def prepare(
    batch: RawBatch,
    features: Features,
    normalizer: Normalizer,
    device: torch.device,
    transforms: Callable[[Tensor], Tensor] | None = None,
) -> Batch:
    """Return the normalised tensors of a batch on a device.

    Args:
        batch: arrays by feature name, [B, ...] or [B, T, ...]; pictures as bytes
            [..., height, width, channels]. Features that are not there are left out, as the action
            is when a policy acts; masks `<feature>_is_pad` are kept.
        features: of the policy.
        normalizer: of the same features.
        device: of the result.
        transforms: changes of pictures before they are normalised.

    Returns:
        float32, pictures as [..., channels, height, width] of numbers that were within 0 and 1;
        masks are bool.
    """
    prepared: Batch = {}
    for name, feature in features.items():
        if name in batch:
            values = _on_device(batch[name], device)
            if is_picture(feature):
                values = as_pictures(values)
                values = values if transforms is None else transforms(values)
            prepared[name] = normalizer(name, values.to(torch.float32))
        mask = name + PAD_SUFFIX
        if mask in batch:
            prepared[mask] = _on_device(batch[mask], device)
    return prepared


def as_pictures(values: Tensor) -> Tensor:
    """Return bytes [..., height, width, channels] as float32 [..., channels, height, width]."""
    return values.movedim(-1, -3).contiguous().to(torch.float32).div_(255)


def _on_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    tensor = values if isinstance(values, Tensor) else to_tensor(values)
    return tensor.to(device, non_blocking=True)
