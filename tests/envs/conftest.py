"""A small environment whose every number can be told beforehand."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest


class ScriptedEnv(gym.Env[Any, Any]):
    """Observes (episode, step, a random number of the episode); the reward is the step's number.

    Args:
        length: steps per episode.
        terminates: end by termination, else by truncation.
        crash: asked at every step with (episode, step); raises where it says True.
        crash_reset: asked at every reset with the episode's number; raises where it says True.
        change: turns an observation and a reward into what is returned instead.
        success: step from which `is_success` is reported true; None reports nothing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's form

    def __init__(
        self,
        *,
        length: int = 3,
        terminates: bool = True,
        crash: Callable[[int, int], bool] = lambda _, __: False,
        crash_reset: Callable[[int], bool] = lambda _: False,
        change: Callable[[Any, Any], tuple[Any, Any]] = lambda observation, reward: (
            observation,
            reward,
        ),
        success: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self._length, self._terminates, self._success = length, terminates, success
        self._crash, self._crash_reset, self._change = crash, crash_reset, change
        self._episode, self._step = -1, 0
        self.is_closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._episode, self._step = self._episode + 1, 0
        if self._crash_reset(self._episode):
            raise RuntimeError("the world cannot be reset")
        self._random = self.np_random.random()
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._step += 1
        if self._crash(self._episode, self._step):
            raise RuntimeError("the world fell apart")
        observation, reward = self._change(self._observe(), float(self._step))
        over = self._step >= self._length
        info = {} if self._success is None else {"is_success": self._step >= self._success}
        return observation, reward, over and self._terminates, over and not self._terminates, info

    def render(self) -> Any:
        return np.full((16, 24, 3), 20 * self._step, np.uint8)

    def close(self) -> None:
        self.is_closed = True

    def _observe(self) -> Any:
        return np.array([self._episode, self._step, self._random], np.float32)


@pytest.fixture
def scripted_env() -> type[ScriptedEnv]:
    return ScriptedEnv
