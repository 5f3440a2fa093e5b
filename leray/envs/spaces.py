"""Features as Gymnasium spaces and back: the form in which RLlib carries them."""

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
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    lows = np.full(feature.shape, low) if feature.low is None else np.reshape(feature.low, feature.shape)
    highs = (
        np.full(feature.shape, high) if feature.high is None else np.reshape(feature.high, feature.shape)
    )
    return gym.spaces.Box(lows.astype(dtype), highs.astype(dtype), feature.shape, dtype.type)


def _feature(space: gym.Space) -> Feature:
    assert isinstance(space, gym.spaces.Box)
    bounded = space.is_bounded()
    low, high = (tuple(float(x) for x in bound.reshape(-1)) for bound in (space.low, space.high))
    return Feature(
        str(space.dtype), space.shape, low=low if bounded else None, high=high if bounded else None
    )
