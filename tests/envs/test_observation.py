"""Observation spaces as LeRobot features."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from leray.envs.config import GymEnvConfig
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap, action_feature
from leray.errors import EnvError

Box = gym.spaces.Box


class Spaces(gym.Env[Any, Any]):
    """Nothing but spaces."""

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any] | None = None) -> None:
        self.observation_space = observation
        self.action_space = action or Box(-1, 1, (2,))


def shapes(mapping: ObservationMap) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {key: (feature.dtype, feature.shape) for key, feature in mapping.features.items()}


def test_a_vector_is_the_state():
    mapping = ObservationMap(Spaces(Box(-1, 1, (5,), np.float64)), goal_relative=True)
    assert shapes(mapping) == {"observation.state": ("float32", (5,))}
    assert mapping(np.arange(5.0))["observation.state"].tolist() == [0, 1, 2, 3, 4]


def test_a_single_number_has_shape_one():
    mapping = ObservationMap(Spaces(Box(-1, 1, ())), goal_relative=True)
    assert shapes(mapping) == {"observation.state": ("float32", (1,))}


def test_a_picture_stays_uint8():
    mapping = ObservationMap(Spaces(Box(0, 255, (8, 6, 3), np.uint8)), goal_relative=True)
    assert shapes(mapping) == {"observation.image": ("uint8", (8, 6, 3))}


def test_a_float_array_of_three_axes_is_no_picture():
    mapping = ObservationMap(Spaces(Box(0, 1, (8, 6, 3), np.float32)), goal_relative=True)
    assert list(mapping.features) == ["observation.state"]


def test_gyms_robot_dictionary_is_renamed():
    camera = Box(0, 255, (8, 6, 3), np.uint8)
    space = gym.spaces.Dict(
        {
            "agent_pos": Box(-1, 1, (4,)),
            "environment_state": Box(-1, 1, (2,)),
            "pixels": gym.spaces.Dict({"top": camera, "wrist": camera}),
            "touch": Box(0, 1, (3,)),
            "observation.force": Box(0, 1, (6,)),
        }
    )
    mapping = ObservationMap(Spaces(space), goal_relative=True)
    assert shapes(mapping) == {
        "observation.state": ("float32", (4,)),
        "observation.environment_state": ("float32", (2,)),
        "observation.images.top": ("uint8", (8, 6, 3)),
        "observation.images.wrist": ("uint8", (8, 6, 3)),
        "observation.touch": ("float32", (3,)),
        "observation.force": ("float32", (6,)),
    }
    sample = space.sample()
    named = mapping(sample)
    assert np.array_equal(named["observation.images.wrist"], sample["pixels"]["wrist"])
    assert np.array_equal(named["observation.state"], sample["agent_pos"])


def test_pictures_beside_goals():
    point, camera = Box(-1, 1, (2,), np.float32), Box(0, 255, (8, 6, 3), np.uint8)
    names = ("observation", "achieved_goal", "desired_goal")
    for pixels, key in (
        (camera, "observation.image"),
        (gym.spaces.Dict({"top": camera}), "observation.images.top"),
    ):
        space = gym.spaces.Dict({**dict.fromkeys(names, point), "pixels": pixels})
        mapping = ObservationMap(Spaces(space), goal_relative=True)
        assert shapes(mapping) == {
            "observation.state": ("float32", (2,)),
            "observation.environment_state": ("float32", (6,)),
            key: ("uint8", (8, 6, 3)),
        }
        assert mapping.goals is not None
        sample = space.sample()
        frame = sample["pixels"] if pixels is camera else sample["pixels"]["top"]
        np.testing.assert_array_equal(mapping(sample)[key], frame)


def test_a_dictionary_with_one_picture():
    space = gym.spaces.Dict({"pixels": Box(0, 255, (8, 6, 3), np.uint8)})
    assert list(ObservationMap(Spaces(space), goal_relative=True).features) == ["observation.image"]


@pytest.mark.parametrize("goal_relative", [True, False])
def test_reach_has_achieved_desired_and_their_difference(goal_relative):
    env = make_env(GymEnvConfig(task="PandaReach-v3"))
    mapping = ObservationMap(env, goal_relative=goal_relative)
    first, _ = env.reset(seed=3)
    named = mapping(first)
    env.close()
    achieved, desired = first["achieved_goal"], first["desired_goal"]
    expected = [achieved, desired]
    if goal_relative:  # the achieved goal is the gripper itself
        gripper = first["observation"][:3]
        expected += [desired - achieved, achieved - gripper]
    np.testing.assert_array_equal(named["observation.state"], first["observation"])
    np.testing.assert_allclose(named["observation.environment_state"], np.concatenate(expected))
    assert mapping.features["observation.environment_state"].shape == (12 if goal_relative else 6,)
    assert named["observation.environment_state"].dtype == np.float32


def test_pick_and_place_ends_with_the_object_seen_from_the_gripper():
    env = make_env(GymEnvConfig(task="PandaPickAndPlace-v3"))
    mapping = ObservationMap(env, goal_relative=True)
    env.reset(seed=3)
    observation, *_ = env.step(np.array([0.5, -0.5, 0.2, 1.0], np.float32))
    named = mapping(observation)["observation.environment_state"]
    env.close()
    thing, goal = observation["achieved_goal"], observation["desired_goal"]
    np.testing.assert_allclose(named[:3], thing, atol=1e-7)
    np.testing.assert_allclose(named[3:6], goal, atol=1e-7)
    np.testing.assert_allclose(named[6:9], goal - thing, atol=1e-7)
    np.testing.assert_allclose(named[9:12], thing - observation["observation"][:3], atol=1e-7)
    assert np.linalg.norm(named[9:12]) > 0.01


def test_another_goal_task_has_no_gripper_offset():
    point = Box(-1, 1, (2,))
    names = ("observation", "achieved_goal", "desired_goal")
    space = gym.spaces.Dict(dict.fromkeys(names, point))
    mapping = ObservationMap(Spaces(space), goal_relative=True)
    named = mapping(
        {
            "observation": np.array([9.0, 9.0]),
            "achieved_goal": np.array([1.0, 2.0]),
            "desired_goal": np.array([5.0, 4.0]),
        }
    )
    assert named["observation.environment_state"].tolist() == [1, 2, 5, 4, 4, 2]


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Discrete(4),
        gym.spaces.Tuple([Box(-1, 1, (2,))]),
        gym.spaces.Dict({"instruction": gym.spaces.Text(8)}),
        gym.spaces.Dict({"deep": gym.spaces.Dict({"position": Box(-1, 1, (2,))})}),
        gym.spaces.Dict({"pixels": gym.spaces.Dict({"top": gym.spaces.Text(8)})}),
    ],
    ids=["discrete", "tuple", "text", "nested", "text-pixels"],
)
def test_other_spaces_are_refused_with_advice(space):
    with pytest.raises(EnvError, match=r"Spaces has observations of .*allowed are Box and Dict"):
        ObservationMap(Spaces(space), goal_relative=True)


def test_the_action_has_its_bounds():
    space = Box(np.array([-1, -2]), np.array([3, 4]), dtype=np.float32)
    feature = action_feature(Spaces(Box(-1, 1, (1,)), space))
    assert (feature.dtype, feature.shape) == ("float32", (2,))
    assert (feature.low, feature.high) == ((-1, -2), (3, 4))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym.spaces.Discrete(3), "policy.type=ppo for discrete"),
        (Box(-1, 1, (2, 2)), "a Box with one axis"),
        (Box(-np.inf, np.inf, (2,)), "unbounded actions.*RescaleAction"),
        (Box(np.array([-1, -np.inf]), np.array([1, 1]), dtype=np.float64), "unbounded actions"),
    ],
    ids=["discrete", "matrix", "unbounded", "half-bounded"],
)
def test_other_actions_are_refused_with_advice(space, message):
    with pytest.raises(EnvError, match=message):
        action_feature(Spaces(Box(-1, 1, (1,)), space))
