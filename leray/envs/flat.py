"""An environment as RLlib's own modules like it: one flat float32 vector, Box or Discrete."""

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.data.features import Feature, Features
from leray.data.names import ACTION
from leray.envs.config import EnvConfig
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap
from leray.errors import EnvError

EPISODE = "leray_episode"
"""Key of an episode's record in the info of its last step: `return`, `length` in steps, and
`success` (1 or 0; NaN where the environment does not report it)."""


class FlatEnv(gym.Env[NDArray[np.float32], Any]):  # type: ignore[misc]
    """One environment whose named observations are concatenated, in the order of its features.

    Args:
        config: which environment.

    Raises:
        EnvError: it cannot be built, an observation is not a vector, or its actions are neither
            a `Box` with one axis of floats nor `Discrete` from 0 on.
    """

    def __init__(self, config: EnvConfig) -> None:
        self._task = config.task
        self._env = make_env(config)
        self._map = ObservationMap(self._env, goal_relative=config.goal_relative)
        observations = self._map.features
        _check_observations(observations, config.task)
        self.num_actions = _num_actions(self._env.action_space, config.task)
        """How many actions to choose from; None where actions are vectors."""
        self.features = Features({**observations, ACTION: _action_feature(self._env.action_space)})
        """Observations by name, and the action; a discrete action is int64 of shape [1]."""
        size = sum(feature.size for feature in observations.values())
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = self._env.action_space
        self.metadata = self._env.metadata
        self._return, self._length, self._success = 0.0, 0, np.nan

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode (Gymnasium's name)."""
        observation, info = self._env.reset(seed=seed, options=options)
        self._return, self._length, self._success = 0.0, 0, np.nan
        return self._flatten(observation), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take a step (Gymnasium's name).

        Raises:
            EnvError: the environment fails, or returns something that is not a number.
        """
        try:
            observation, reward, terminated, truncated, info = self._env.step(action)
        except Exception as error:
            raise EnvError(
                f"environment {self._task} crashed ({type(error).__name__}: {error}): "
                "fix the environment"
            ) from error
        if not np.isfinite(float(reward)):
            raise EnvError(f"environment {self._task} returned a reward of {reward}")
        self._return += float(reward)
        self._length += 1
        if "is_success" in info:
            self._success = float(np.fmax(self._success, float(info["is_success"])))
        if terminated or truncated:
            record = {"return": self._return, "length": self._length, "success": self._success}
            info = {**info, EPISODE: record}
        return self._flatten(observation), float(reward), bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _flatten(self, observation: Any) -> NDArray[np.float32]:
        named = self._map(observation)
        flat = np.concatenate(
            [np.asarray(named[key], np.float32).reshape(-1) for key in self._map.features]
        )
        if not np.isfinite(flat).all():
            raise EnvError(
                f"environment {self._task} returned an observation that is not finite: "
                "fix the environment"
            )
        return flat


def _check_observations(features: Features, task: str) -> None:
    for key, feature in features.items():
        if not feature.is_numeric or len(feature.shape) != 1:
            raise EnvError(
                f"environment {task} has {key} of {feature.dtype}{list(feature.shape)}; this "
                "policy reads vectors of numbers: use an environment without images"
            )


def _num_actions(space: gym.Space[Any], task: str) -> int | None:
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return int(space.n)
    vector = isinstance(space, gym.spaces.Box) and len(space.shape) == 1
    if vector and np.issubdtype(space.dtype, np.floating):
        return None
    raise EnvError(
        f"environment {task} has actions of {space}; allowed are a Box with one axis of floats "
        "and Discrete(n): wrap it, for example with gymnasium's FlattenAction"
    )


def _action_feature(space: gym.Space[Any]) -> Feature:
    if isinstance(space, gym.spaces.Discrete):
        return Feature("int64", (1,))
    assert isinstance(space, gym.spaces.Box)
    if not space.is_bounded():
        return Feature(str(space.dtype), space.shape)
    low, high = (tuple(float(x) for x in bound) for bound in (space.low, space.high))
    return Feature(str(space.dtype), space.shape, low=low, high=high)
