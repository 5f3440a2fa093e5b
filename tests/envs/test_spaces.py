"""Features as Gymnasium spaces and back."""

import numpy as np
import pytest

from leray.data.features import Feature, Features
from leray.envs.spaces import from_spaces, to_spaces

ACTION = Feature("float32", (2,), low=(-1.0, -2.0), high=(1.0, 2.0))


def same(left: Features, right: Features) -> bool:
    return {**left} == {**right}


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64", "bool"])
def test_features_survive_the_way_through_spaces(dtype):
    features = Features({"observation.state": Feature(dtype, (3,)), "action": ACTION})
    assert same(from_spaces(*to_spaces(features)), features)


def test_bounds_of_an_observation_survive_even_if_one_sided():
    state = Feature("float32", (2,), low=(0.0, -np.inf), high=(1.0, np.inf))
    features = Features({"observation.state": state, "action": ACTION})
    assert same(from_spaces(*to_spaces(features)), features)


def test_the_observation_space_is_a_dictionary_without_the_action():
    picture = Feature("uint8", (4, 4, 3))
    state = Feature("float32", (3,))
    observation, action = to_spaces(
        Features({"observation.image": picture, "action": ACTION, "observation.state": state})
    )
    assert list(observation.spaces) == ["observation.image", "observation.state"]
    assert observation["observation.image"].dtype == np.uint8
    assert (observation["observation.image"].high == 255).all()
    assert not observation["observation.state"].is_bounded()
    assert action.low.tolist() == [-1, -2]
    assert action.high.tolist() == [1, 2]


def test_a_dataset_picture_becomes_a_uint8_box():
    picture = Feature("video", (4, 4, 3), ("height", "width", "channels"))
    observation, _ = to_spaces(Features({"observation.image": picture, "action": ACTION}))
    assert observation["observation.image"].dtype == np.uint8
    assert observation["observation.image"].shape == (4, 4, 3)
