"""`leray record`: demonstrations by a scripted expert or a trained policy, as a LeRobot dataset."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features
from leray.data.lerobot.writer import DatasetWriter
from leray.data.names import ACTION, DONE, REWARD, SUCCESS, TRUNCATED
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap, action_feature
from leray.envs.panda.expert import make_expert
from leray.errors import ConfigError
from leray.platform.config import RecordConfig
from leray.platform.progress import Progress
from leray.platform.run_directory import resolve_pretrained_model

MAX_FAILURES = 100
"""Episodes in a row without success after which recording gives up."""

Episode = dict[str, NDArray[Any]]
Actor = Callable[[Any, dict[str, NDArray[Any]]], NDArray[Any]]
"""From the environment's own and the mapped observation to an action."""


def run(config: RecordConfig) -> None:
    """Record episodes until enough are saved.

    Raises:
        LerayError: the environment has no expert, the folder is in use, or nothing succeeds.
    """
    env = make_env(config.env)
    mapping = ObservationMap(env, goal_relative=config.env.goal_relative)
    act, restart = _actor(config, env)
    features = Features(
        {
            **mapping.features,
            ACTION: action_feature(env),
            REWARD: Feature("float32", (1,)),
            DONE: Feature("bool", (1,)),
            TRUNCATED: Feature("bool", (1,)),
            SUCCESS: Feature("bool", (1,)),
        }
    )
    task = str(getattr(env.unwrapped, "task_description", config.env.task))
    total = config.dataset.num_episodes
    with _open_writer(config, features, _fps(env)) as writer:
        first = writer.num_episodes
        progress = Progress(total)
        tried, failures = first, 0
        while writer.num_episodes - first < total:
            restart()
            episode = _run_episode(env, mapping, act, seed=config.seed + tried)
            tried += 1
            if config.dataset.only_successes and not episode[SUCCESS].any() and _reports(env):
                failures += 1
                if failures >= MAX_FAILURES:
                    raise ConfigError(
                        f"{failures} episodes in a row did not succeed: use a better policy, or "
                        "--dataset.only_successes=false"
                    )
                continue
            failures = 0
            writer.add_episode(episode, task)
            saved = writer.num_episodes - first
            if progress.is_live or saved % max(1, total // 10) == 0:
                progress.update(saved, {})
        progress.close()
    env.close()
    print(
        f"{total} episodes saved ({tried - first} tried) in {config.dataset.root}, "
        f"now {writer.num_episodes} episodes, {writer.num_frames} frames"
    )


def _run_episode(
    env: gym.Env[Any, Any], mapping: ObservationMap, act: Actor, *, seed: int
) -> Episode:
    """Run one episode and return its columns, [frames, ...]."""
    rows: dict[str, list[Any]] = {}
    observation, _ = env.reset(seed=seed)
    ended = False
    while not ended:
        named = mapping(observation)
        action = np.asarray(act(observation, named), env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        row = {
            **named,
            ACTION: action,
            REWARD: np.float32(reward),
            DONE: terminated,
            TRUNCATED: truncated and not terminated,
            SUCCESS: bool(info.get("is_success", False)),
        }
        for key, value in row.items():
            rows.setdefault(key, []).append(value)
    return {key: np.stack(values) for key, values in rows.items()}


def _actor(config: RecordConfig, env: gym.Env[Any, Any]) -> tuple[Actor, Callable[[], None]]:
    """Return who acts, and what prepares it for a new episode."""
    rng = np.random.default_rng(config.seed)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)

    def noisy(action: NDArray[Any]) -> NDArray[Any]:
        if not config.policy.noise:
            return action
        scale = config.policy.noise * (space.high - space.low) / 2
        return np.clip(action + scale * rng.standard_normal(action.shape), space.low, space.high)

    if config.policy.path is not None:
        policy = load_policy(resolve_pretrained_model(config.policy.path))

        def act(_: Any, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
            batch = {key: value[None] for key, value in named.items()}
            return noisy(policy.act(batch, deterministic=True)[0])

        return act, lambda: None
    if config.policy.type == "random":
        space.seed(config.seed)
        return (lambda _, __: space.sample()), lambda: None
    expert = make_expert(env)
    return (lambda observation, _: noisy(expert.act(observation))), expert.reset


def _open_writer(config: RecordConfig, features: Features, fps: int) -> DatasetWriter:
    root = config.dataset.root
    if config.resume:
        return DatasetWriter.resume(root)
    return DatasetWriter.create(root, fps=fps, features=features, robot_type=_robot(config))


def _robot(config: RecordConfig) -> str | None:
    return "panda" if "Panda" in config.env.task else None


def _fps(env: gym.Env[Any, Any]) -> int:
    return int(env.metadata.get("render_fps") or 30)


def _reports(env: gym.Env[Any, Any]) -> bool:
    """Tell whether the environment reports success at all."""
    return hasattr(env.unwrapped, "task_description") or hasattr(env.unwrapped, "compute_reward")
