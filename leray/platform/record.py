"""`leray record`: demonstrations by a scripted expert or a trained policy, as a LeRobot dataset."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.algorithms.imitation.inputs import is_picture
from leray.algorithms.processor import IMAGE_AXES
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

Actor = Callable[[Any, dict[str, NDArray[Any]]], NDArray[Any]]
"""From the environment's own and the mapped observation to an action."""
Add = Callable[[dict[str, Any]], None]
"""Takes a frame."""


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
        add = functools.partial(writer.add_frame, task=task)
        first = writer.num_episodes
        progress = Progress(total)
        tried, failures = 0, 0
        while (saved := writer.num_episodes - first) < total:
            number = writer.num_episodes + failures * RETRY_SEED_STRIDE
            seed = (FIRST_SEED + config.seed + number) % 2**31
            restart(seed)
            succeeded = _run_episode(env, mapping, act, seed=seed, add=add)
            tried += 1
            if config.dataset.only_successes and succeeded is False:
                writer.clear_episode_buffer()
                failures += 1
                if failures >= MAX_FAILURES:
                    raise ConfigError(
                        f"{failures} episodes in a row did not succeed: use a better policy, or "
                        "--dataset.only_successes=false"
                    )
                continue
            failures = 0
            writer.save_episode()
            saved += 1
            if progress.is_live or saved % max(1, total // 10) == 0:
                progress.update(saved, {})
        progress.close()
    print(
        f"{total} episodes saved ({tried} tried) in {config.dataset.root}, "
        f"now {writer.num_episodes} episodes, {writer.num_frames} frames"
    )


def _run_episode(
    env: gym.Env[Any, Any], mapping: ObservationMap, act: Actor, *, seed: int, add: Add
) -> bool | None:
    """Run one episode and hand over its frames one by one, so that pictures need not wait.

    Returns:
        Whether it succeeded; None where nothing is reported.
    """
    observation, _ = env.reset(seed=seed)
    ended, succeeded = False, None
    while not ended:
        named = {
            key: np.asarray(value, mapping.features[key].dtype)
            for key, value in mapping(observation).items()
        }
        action = np.asarray(act(observation, named), env.action_space.dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
        if "is_success" in info:
            succeeded = bool(succeeded) or bool(info["is_success"])
        add(
            {
                **named,
                ACTION: action,
                REWARD: np.float32(reward),
                DONE: np.bool_(terminated),
                TRUNCATED: np.bool_(truncated and not terminated),
                SUCCESS: np.bool_(info.get("is_success", False)),
            }
        )
    return succeeded


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

        def begin(seed: int) -> None:
            noise.restart(seed)
            policy.reset()
            policy.seed(_own_seed(seed))

        return act, begin
    if config.policy.type == "random":
        return (lambda _, __: space.sample()), lambda seed: _seed(space, seed)
    expert = make_expert(env)

    def restart(seed: int) -> None:
        noise.restart(seed)
        expert.reset(seed)

    return (lambda observation, _: noise.add(expert.act(observation))), restart


class _Noise:
    """Gaussian noise on actions, which are kept within their bounds."""

    def __init__(self, share: float, space: gym.spaces.Box) -> None:
        self._scale = share * (space.high - space.low) / 2
        self._space = space
        self._rng = np.random.default_rng()

    def restart(self, seed: int) -> None:
        """Begin the random numbers of an episode."""
        self._rng = np.random.default_rng(_own_seed(seed))

    def add(self, action: NDArray[Any]) -> NDArray[Any]:
        """Return an action with noise; the action itself where its scale is zero."""
        if not self._scale.any():
            return action
        noisy = action + self._scale * self._rng.standard_normal(action.shape)
        return np.asarray(np.clip(noisy, self._space.low, self._space.high))


def _seed(space: gym.spaces.Box, seed: int) -> None:
    space.seed(_own_seed(seed))


def _own_seed(seed: int) -> int:
    """Return a seed for who acts: with the environment's, actions would tell where the goal is."""
    return int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])


def _open_writer(config: RecordConfig, features: Features, fps: int) -> DatasetWriter:
    root = config.dataset.root
    if config.resume:
        return DatasetWriter.resume(root)
    stored = _stored(features, as_video=config.dataset.video)
    return DatasetWriter.create(root, fps=fps, features=stored, robot_type=_robot(config))


def _stored(features: Features, *, as_video: bool) -> Features:
    """Return features as a dataset holds them: pictures encoded."""
    dtype = "video" if as_video else "image"
    return Features(
        {
            name: Feature(dtype, feature.shape, IMAGE_AXES) if is_picture(feature) else feature
            for name, feature in features.items()
        }
    )


def _robot(config: RecordConfig) -> str | None:
    return "panda" if "Panda" in config.env.task else None


def _fps(env: gym.Env[Any, Any]) -> int:
    return int(env.metadata.get("render_fps") or 30)
