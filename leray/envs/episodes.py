"""Whole episodes with fixed seeds, several environments at once: how a policy is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leray.envs.config import EnvConfig
from leray.envs.make import make_env
from leray.envs.observation import Observation, ObservationMap
from leray.envs.video import write_video
from leray.errors import EnvError

Act = Callable[[Observation, list[int]], NDArray[Any]]
"""From observations of shape [n, ...] by name, and the slot that each row is of, to actions [n, A].

A slot is one of the environments stepped together; it runs one episode after another.
"""


@dataclass(kw_only=True, slots=True)
class EpisodeResult:
    """What came of one episode."""

    index: int
    seed: int
    sum_reward: float
    max_reward: float
    length: int
    success: bool | None
    """None where the environment does not report it."""
    video_path: str | None = None


def run_episodes(
    config: EnvConfig,
    act: Act,
    *,
    indices: list[int],
    seed: int,
    num_envs: int,
    on_begin: Callable[[int], None] | None = None,
    video_folder: Path | None = None,
    max_rendered: int = 0,
) -> list[EpisodeResult]:
    """Run episodes; episode k begins from seed `seed + k`, whatever runs beside it.

    Args:
        config: the environment.
        act: chooses actions for the n environments still running.
        indices: which episodes k to run.
        seed: seed of episode 0.
        num_envs: environments stepped together.
        on_begin: called with the slot at the start of each of its episodes, before any action.
        video_folder: where videos of episodes below `max_rendered` go; None records none.
        max_rendered: how many episodes are recorded.

    Returns:
        The results in the order of `indices`.

    Raises:
        EnvError: the environment cannot be built, or returns something that is not a number.
    """
    waiting = list(indices)
    slots = [
        _Slot(config, seed, number, video_folder if indices[number] < max_rendered else None)
        for number in range(min(num_envs, len(indices)))
    ]
    results: dict[int, EpisodeResult] = {}

    def begin(slot: _Slot) -> bool:
        began = slot.begin(waiting, max_rendered, video_folder)
        if began and on_begin is not None:
            on_begin(slot.number)
        return began

    try:
        running = [slot for slot in slots if begin(slot)]
        while running:
            keys = running[0].observation
            batch = {key: np.stack([slot.observation[key] for slot in running]) for key in keys}
            actions = act(batch, [slot.number for slot in running])
            finished = [slot.step(action) for slot, action in zip(running, actions, strict=True)]
            for result in finished:
                if result is not None:
                    results[result.index] = result
            running = [
                slot
                for slot, result in zip(running, finished, strict=True)
                if result is None or begin(slot)
            ]
    finally:
        for slot in slots:
            slot.close()
    return [results[index] for index in indices]


class _Slot:
    """One environment that runs one episode after another."""

    def __init__(
        self, config: EnvConfig, seed: int, number: int, video_folder: Path | None
    ) -> None:
        self.number = number
        self._config = config
        self._seed = seed
        self._rendering = video_folder is not None
        self._env = make_env(config, render_mode="rgb_array" if self._rendering else None)
        self._map = ObservationMap(self._env, goal_relative=config.goal_relative)
        self._video_folder: Path | None = None
        self._frames: list[NDArray[np.uint8]] = []
        self.observation: dict[str, NDArray[Any]] = {}

    def begin(self, waiting: list[int], max_rendered: int, video_folder: Path | None) -> bool:
        """Begin the next waiting episode; False when none waits."""
        if not waiting:
            return False
        index = waiting.pop(0)
        rendered = video_folder is not None and index < max_rendered
        if rendered != self._rendering:
            self.close()
            self._rendering = rendered
            self._env = make_env(self._config, render_mode="rgb_array" if rendered else None)
        self._video_folder = video_folder if rendered else None
        self._result = EpisodeResult(
            index=index,
            seed=self._seed + index,
            sum_reward=0.0,
            max_reward=-np.inf,
            length=0,
            success=None,
        )
        first, _ = self._env.reset(seed=self._result.seed)
        self._observe(first)
        self._frames = []
        self._render()
        return True

    def step(self, action: NDArray[Any]) -> EpisodeResult | None:
        """Step once; return the result if the episode ended."""
        observation, reward, terminated, truncated, info = self._env.step(action)
        if not np.isfinite(float(reward)):
            raise EnvError(
                f"environment {self._config.task} returned {reward} as next.reward where a finite "
                "number is expected: fix the environment"
            )
        result = self._result
        self._observe(observation)
        result.sum_reward += float(reward)
        result.max_reward = max(result.max_reward, float(reward))
        result.length += 1
        if "is_success" in info:
            result.success = bool(result.success) or bool(info["is_success"])
        self._render()
        if not (terminated or truncated):
            return None
        if self._video_folder is not None:
            path = self._video_folder / f"eval_episode_{result.index}.mp4"
            write_video(path, self._frames, fps=self._env.metadata.get("render_fps") or 30)
            result.video_path = str(path)
        return result

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, observation: Any) -> None:
        self.observation = self._map(observation)
        for key, value in self.observation.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise EnvError(
                    f"environment {self._config.task} returned {value[~np.isfinite(value)][0]} in "
                    f"{key} where a finite number is expected: fix the environment"
                )

    def _render(self) -> None:
        if self._rendering:
            self._frames.append(np.asarray(self._env.render(), np.uint8))


def random_act(config: EnvConfig, seed: int) -> tuple[Act, Callable[[], None]]:
    """Return a policy of uniformly random actions, and what closes its environment."""
    env = make_env(config)
    env.action_space.seed(seed)

    def act(_: Observation, slots: list[int]) -> NDArray[Any]:
        return np.stack([env.action_space.sample() for _ in slots])

    return act, env.close
