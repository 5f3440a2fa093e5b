"""`leray record`: demonstrations by a scripted expert or a trained policy, as a LeRobot dataset."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features, check_compatible
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

FIRST_SEED = 1_000_000_000
"""Added to the seeds of recorded episodes, so that none begins like one a policy is judged on."""
RETRY_SEED_STRIDE = 1_000_003
"""What each failed episode adds to the seed of the next try, clear of those of later episodes."""
_STEP_FEATURES = {
    REWARD: Feature("float32", (1,)),
    DONE: Feature("bool", (1,)),
    TRUNCATED: Feature("bool", (1,)),
    SUCCESS: Feature("bool", (1,)),
}

Episode = dict[str, NDArray[Any]]
Actor = Callable[[Any, dict[str, NDArray[Any]]], NDArray[Any]]
"""From the environment's own and the mapped observation to an action."""


def run(config: RecordConfig) -> None:
    """Record episodes until enough are saved.

    Raises:
        LerayError: the environment has no expert, the folder is in use, or nothing succeeds.
    """
    env = make_env(config.env)
    try:
        _record(config, env)
    finally:
        env.close()


def _record(config: RecordConfig, env: gym.Env[Any, Any]) -> None:
    mapping = ObservationMap(env, goal_relative=config.env.goal_relative)
    features = Features({**mapping.features, ACTION: action_feature(env), **_STEP_FEATURES})
    act, restart = _actor(config, env, features)
    task = str(getattr(env.unwrapped, "task_description", config.env.task))
    total = config.dataset.num_episodes
    with _open_writer(config, features, _fps(env)) as writer:
        first = writer.num_episodes
        progress = Progress(total)
        tried, failures = 0, 0
        while (saved := writer.num_episodes - first) < total:
            number = writer.num_episodes + failures * RETRY_SEED_STRIDE
            seed = (FIRST_SEED + config.seed + number) % 2**31
            restart(seed)
            episode, succeeded = _run_episode(env, mapping, act, seed=seed)
            tried += 1
            if config.dataset.only_successes and succeeded is False:
                failures += 1
                if failures >= MAX_FAILURES:
                    raise ConfigError(
                        f"{failures} episodes in a row did not succeed: use a better policy, or "
                        "--dataset.only_successes=false"
                    )
                continue
            failures = 0
            writer.add_episode(episode, task)
            saved += 1
            if progress.is_live or saved % max(1, total // 10) == 0:
                progress.update(saved, {})
        progress.close()
    print(
        f"{total} episodes saved ({tried} tried) in {config.dataset.root}, "
        f"now {writer.num_episodes} episodes, {writer.num_frames} frames"
    )


def _run_episode(
    env: gym.Env[Any, Any], mapping: ObservationMap, act: Actor, *, seed: int
) -> tuple[Episode, bool | None]:
    """Run one episode.

    Returns:
        Its columns, [frames, ...], and whether it succeeded; None where nothing is reported.
    """
    rows: dict[str, list[Any]] = {}
    observation, _ = env.reset(seed=seed)
    ended, succeeded = False, None
    while not ended:
        named = mapping(observation)
        action = np.asarray(act(observation, named), env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        if "is_success" in info:
            succeeded = bool(succeeded) or bool(info["is_success"])
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
    return {key: np.stack(values) for key, values in rows.items()}, succeeded


def _actor(
    config: RecordConfig, env: gym.Env[Any, Any], features: Features
) -> tuple[Actor, Callable[[int], None]]:
    """Return who acts, and what prepares it for a new episode from its seed."""
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    noise = _Noise(config.policy.noise, space)
    if config.policy.path is not None:
        policy = load_policy(resolve_pretrained_model(config.policy.path))
        check_compatible(
            policy.features,
            features,
            left_name="the policy",
            right_name=f"environment {config.env.task}",
            keys=list(policy.features),
        )

        def act(_: Any, named: dict[str, NDArray[Any]]) -> NDArray[Any]:
            batch = {key: value[None] for key, value in named.items()}
            return noise.add(policy.act(batch, deterministic=True)[0])

        return act, noise.restart
    if config.policy.type == "random":
        return (lambda _, __: space.sample()), lambda seed: _seed(space, seed)
    expert = make_expert(env)

    def restart(seed: int) -> None:
        noise.restart(seed)
        expert.reset()

    return (lambda observation, _: noise.add(expert.act(observation))), restart


class _Noise:
    """Gaussian noise on actions, which are kept within their bounds."""

    def __init__(self, share: float, space: gym.spaces.Box) -> None:
        self._scale = share * (space.high - space.low) / 2
        self._space = space
        self._rng = np.random.default_rng()

    def restart(self, seed: int) -> None:
        """Begin the random numbers of an episode."""
        self._rng = np.random.default_rng(seed)

    def add(self, action: NDArray[Any]) -> NDArray[Any]:
        """Return an action with noise; the action itself where its scale is zero."""
        if not self._scale.any():
            return action
        noisy = action + self._scale * self._rng.standard_normal(action.shape)
        return np.asarray(np.clip(noisy, self._space.low, self._space.high))


def _seed(space: gym.spaces.Box, seed: int) -> None:
    space.seed(seed)


def _open_writer(config: RecordConfig, features: Features, fps: int) -> DatasetWriter:
    root = config.dataset.root
    if config.resume:
        return DatasetWriter.resume(root)
    return DatasetWriter.create(root, fps=fps, features=features, robot_type=_robot(config))


def _robot(config: RecordConfig) -> str | None:
    return "panda" if "Panda" in config.env.task else None


def _fps(env: gym.Env[Any, Any]) -> int:
    return int(env.metadata.get("render_fps") or 30)
