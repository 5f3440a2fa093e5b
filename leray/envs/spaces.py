"""Features as Gymnasium spaces and back: the form in which RLlib carries them."""

from typing import Any

import gymnasium as gym
import numpy as np

from leray.data.features import Feature, Features
from leray.data.names import ACTION


def to_spaces(features: Features) -> tuple[gym.spaces.Dict, gym.spaces.Box]:
    """Return the observation and the action space of a stream's features."""
    observations = {key: _box(feature) for key, feature in features.items() if key != ACTION}
    return gym.spaces.Dict(observations), _box(features[ACTION])


def from_spaces(observation: gym.spaces.Dict, action: gym.spaces.Box) -> Features:
    """Return the features that `to_spaces` was given, without element names."""
    features = {key: _feature(space) for key, space in observation.spaces.items()}
    return Features({**features, ACTION: _feature(action)})


def _box(feature: Feature) -> gym.spaces.Box:
    dtype = np.dtype("uint8" if feature.is_visual else feature.dtype)
    bounds = (
        np.broadcast_to(natural, feature.shape)
        if bound is None
        else np.reshape(bound, feature.shape)
        for bound, natural in zip((feature.low, feature.high), _range(dtype), strict=True)
    )
    low, high = (bound.astype(dtype) for bound in bounds)
    return gym.spaces.Box(low, high, feature.shape, dtype.type)


def _feature(space: gym.Space[Any]) -> Feature:
    assert isinstance(space, gym.spaces.Box)
    low, high = _range(space.dtype)
    natural = bool((space.low == low).all() and (space.high == high).all())
    lows, highs = (tuple(float(x) for x in bound.reshape(-1)) for bound in (space.low, space.high))
    return Feature(
        str(space.dtype),
        space.shape,
        low=None if natural else lows,
        high=None if natural else highs,
    )


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least and the greatest value of a dtype."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    if dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype)
    return limits.min, limits.max
