"""How an environment's observation and action spaces become LeRobot features."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature, Features
from leray.data.names import (
    ENVIRONMENT_STATE,
    OBSERVATION_IMAGE,
    OBSERVATION_IMAGES,
    OBSERVATION_STATE,
)
from leray.envs.goals import GoalLayout
from leray.errors import EnvError

Observation = dict[str, NDArray[Any]]
_GOAL_KEYS = {"observation", "achieved_goal", "desired_goal"}
_PIXELS = "pixels"
_RENAMED = {"agent_pos": OBSERVATION_STATE, "environment_state": ENVIRONMENT_STATE}


class ObservationMap:
    """Names the parts of an environment's observation as LeRobot does.

    * a vector becomes `observation.state`, an image `observation.image`;
    * a goal dictionary becomes `observation.state` and `observation.environment_state` (achieved
      and desired goal, then, if asked for, their difference and the gripper's offset), and pictures
      beside the goals are named as below;
    * any other dictionary keeps its keys, with gym's `agent_pos` and `pixels` renamed: one picture
      is `observation.image`, those of several cameras are `observation.images.<camera>`.

    Args:
        env: the environment; `end_effector_slice` on it tells where the gripper's position lies.
        goal_relative: whether to append goal-relative features.

    Raises:
        EnvError: the observation space is of another kind.
    """

    def __init__(self, env: gym.Env[Any, Any], *, goal_relative: bool) -> None:
        space = env.observation_space
        self.goals: GoalLayout | None = None
        """Where the goals of a goal task lie, else None."""
        self._map: Callable[[Any], Observation]
        if isinstance(space, gym.spaces.Dict) and set(space.spaces) - {_PIXELS} == _GOAL_KEYS:
            self._gripper = getattr(env.unwrapped, "end_effector_slice", None)
            self._goal_relative = goal_relative
            self._map = self._goal
            size = space["achieved_goal"].shape[0]
            parts = [slice(start, start + size) for start in range(0, 3 * size, size)]
            self.goals = GoalLayout(
                key=ENVIRONMENT_STATE,
                achieved=parts[0],
                desired=parts[1],
                offset=parts[2] if goal_relative else None,
            )
        elif isinstance(space, gym.spaces.Dict):
            self._map = self._dictionary
        elif isinstance(space, gym.spaces.Box):
            key = OBSERVATION_IMAGE if _is_image(space) else OBSERVATION_STATE
            self._map = lambda observation: {key: np.asarray(observation)}
        else:
            raise EnvError(_unsupported(env, type(space).__name__))
        example = self._map(space.sample())
        for key, value in example.items():
            if value.dtype.kind not in "biuf" or 0 in value.shape:
                raise EnvError(_unsupported(env, f"{space} ({key} is not an array of numbers)"))
        self.features = Features(
            {key: Feature(_dtype(value), value.shape or (1,)) for key, value in example.items()}
        )

    def __call__(self, observation: Any) -> Observation:
        """Return the named parts of one observation."""
        return self._map(observation)

    def _goal(self, observation: Mapping[str, NDArray[Any]]) -> Observation:
        achieved, desired = observation["achieved_goal"], observation["desired_goal"]
        parts = [achieved, desired]
        if self._goal_relative:
            parts.append(desired - achieved)
            if self._gripper is not None:
                parts.append(achieved - observation["observation"][slice(*self._gripper)])
        named = {
            OBSERVATION_STATE: np.asarray(observation["observation"], np.float32),
            ENVIRONMENT_STATE: np.concatenate(parts, dtype=np.float32),
        }
        return named | _pictures(observation[_PIXELS]) if _PIXELS in observation else named

    def _dictionary(self, observation: Mapping[str, Any]) -> Observation:
        named: Observation = {}
        for key, value in observation.items():
            if key == _PIXELS:
                named |= _pictures(value)
            elif key.startswith("observation."):
                named[key] = np.asarray(value)
            else:
                named[_RENAMED.get(key, f"observation.{key}")] = np.asarray(value)
        return named


def _pictures(pixels: Any) -> Observation:
    """Name gym's `pixels`: one picture, or several by camera."""
    if not isinstance(pixels, Mapping):
        return {OBSERVATION_IMAGE: np.asarray(pixels)}
    return {f"{OBSERVATION_IMAGES}.{camera}": np.asarray(frame) for camera, frame in pixels.items()}


def action_feature(env: gym.Env[Any, Any]) -> Feature:
    """Return the action's feature with its bounds.

    Raises:
        EnvError: the action is not a vector of bounded numbers.
    """
    space = env.action_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise EnvError(
            f"{_name(env)} has actions of {space}; this policy needs a Box with one axis: "
            "use --policy.type=ppo for discrete actions"
        )
    if not space.is_bounded():
        raise EnvError(
            f"{_name(env)} has unbounded actions ({space}): wrap it with gymnasium's RescaleAction "
            "or ClipAction, so that low and high are finite"
        )
    low, high = (tuple(float(x) for x in bound) for bound in (space.low, space.high))
    return Feature(str(space.dtype), space.shape, low=low, high=high)


def _unsupported(env: gym.Env[Any, Any], what: str) -> str:
    return (
        f"{_name(env)} has observations of {what}; allowed are Box and Dict of Box: "
        "wrap it, for example with gymnasium's FlattenObservation"
    )


def _is_image(space: gym.spaces.Box) -> bool:
    return space.dtype == np.uint8 and len(space.shape) == 3


def _dtype(value: NDArray[Any]) -> str:
    """Keep images as uint8 and narrow numbers to float32."""
    return "uint8" if value.dtype == np.uint8 else "float32"


def _name(env: gym.Env[Any, Any]) -> str:
    return env.spec.id if env.spec is not None else type(env.unwrapped).__name__
