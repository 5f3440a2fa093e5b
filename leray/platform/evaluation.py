"""Judging a checkpoint folder, in this process or on Ray actors, and LeRobot's `eval_info.json`."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
from numpy.typing import NDArray

from leray.algorithms.policy import Policy
from leray.algorithms.registry import load_policy
from leray.data.features import Feature, Features, check_compatible
from leray.data.names import ACTION
from leray.envs.config import EnvConfig
from leray.envs.episodes import EpisodeResult, run_episodes
from leray.envs.make import make_env
from leray.envs.observation import Observation, ObservationMap
from leray.envs.panda.rendering import rendering_available
from leray.errors import LerayError
from leray.files import write_json
from leray.platform.sections import EvalConfig

logger = logging.getLogger(__name__)

EVAL_TIMEOUT_S = 3600.0
_Outcome = tuple[list[EpisodeResult], list[float]]
"""Episodes, and how long each call of the policy took in seconds."""


@dataclass(slots=True)
class Evaluation:
    """The episodes of one evaluation."""

    episodes: list[EpisodeResult]
    seconds: float
    act_s: list[float] = field(default_factory=list)
    """How long each call of the policy took, for all environments that ran beside each other."""

    @property
    def metrics(self) -> dict[str, float]:
        """Figures under the names every algorithm shares."""
        metrics = {
            "eval/return_mean": float(np.mean([e.sum_reward for e in self.episodes])),
            "eval/episode_length": float(np.mean([e.length for e in self.episodes])),
        }
        success = [e.success for e in self.episodes if e.success is not None]
        if success:
            metrics["eval/success_rate"] = float(np.mean(success))
        for name, seconds in self._act_percentiles().items():
            metrics[f"eval/act_ms_{name}"] = 1000 * seconds
        return metrics

    def _act_percentiles(self) -> dict[str, float]:
        """Return the median and the 95th percentile of `act_s`, in seconds."""
        if not self.act_s:
            return {}
        return {f"p{percent}": float(np.percentile(self.act_s, percent)) for percent in (50, 95)}

    def info(self, env: EnvConfig) -> dict[str, Any]:
        """Return `eval_info.json` as LeRobot lays it out, with each episode beside it."""
        success = [bool(e.success) for e in self.episodes]
        videos = [e.video_path for e in self.episodes if e.video_path is not None]
        count = len(self.episodes)
        overall = {
            "avg_sum_reward": float(np.mean([e.sum_reward for e in self.episodes])),
            "avg_max_reward": float(np.mean([e.max_reward for e in self.episodes])),
            "pc_success": 100.0 * float(np.mean(success)),
            "n_episodes": count,
            "eval_s": self.seconds,
            "eval_ep_s": self.seconds / count,
            "video_paths": videos,
            **{f"act_s_{name}": value for name, value in self._act_percentiles().items()},
        }
        metrics = {
            "sum_rewards": [e.sum_reward for e in self.episodes],
            "max_rewards": [e.max_reward for e in self.episodes],
            "successes": success,
            "video_paths": videos,
        }
        return {
            "per_task": [{"task_group": env.type, "task_id": 0, "metrics": metrics}],
            "per_group": {env.type: overall},
            "overall": overall,
            "per_episode": [asdict(e) for e in self.episodes],
        }

    def save(self, folder: Path, env: EnvConfig) -> Path:
        """Write `eval_info.json` and return its path."""
        path = folder / "eval_info.json"
        write_json(path, self.info(env))
        return path


def evaluate_checkpoint(
    folder: Path,
    env: EnvConfig,
    config: EvalConfig,
    *,
    seed: int,
    video_folder: Path | None,
    device: str | None = None,
) -> Evaluation:
    """Run the deterministic policy of a checkpoint folder.

    What it draws at random, as a diffusion policy does, is drawn from the seed.

    Args:
        folder: the `pretrained_model` folder.
        env: where to act.
        config: how many episodes, and on how many Ray actors.
        seed: seed of the first episode.
        video_folder: where videos go; None records none.
        device: torch device.

    Raises:
        CheckpointError: the folder is damaged.
        FeatureMismatchError: the environment does not offer what the policy reads.
    """
    began = time.monotonic()
    rendered = config.max_episodes_rendered if video_folder is not None else 0
    if rendered and not rendering_available():
        logger.warning(
            "no EGL or OSMesa found: evaluating without video "
            "(apt-get install libegl1 libosmesa6 brings it)"
        )
        rendered = 0
    job = _Job(str(folder), env, config.batch_size, seed, video_folder, rendered, device)
    indices = list(range(config.n_episodes))
    if config.num_env_runners == 0:
        episodes, act_s = job.run(indices)
    else:
        episodes, act_s = _run_remotely(job, indices, config.num_env_runners)
    return Evaluation(episodes, time.monotonic() - began, act_s)


def check_env(features: Features, config: EnvConfig, *, name: str) -> None:
    """Compare what a policy reads and does with what an environment gives and takes.

    Args:
        features: observations and action of the policy.
        config: the environment.
        name: what an error calls the policy.

    Raises:
        FeatureMismatchError: they do not fit together.
        EnvError: the environment cannot be built.
    """
    env = make_env(config)
    try:
        offered = dict(ObservationMap(env, goal_relative=config.goal_relative).features)
        space = env.action_space
    finally:
        env.close()
    keys = [key for key in features if key != ACTION]
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1:
        offered[ACTION] = Feature(str(space.dtype), space.shape)
        keys.append(ACTION)
    check_compatible(
        features,
        Features(offered),
        left_name=name,
        right_name=f"environment {config.task}",
        keys=keys,
    )


@dataclass(slots=True)
class _Job:
    """One evaluation, as it is sent to whoever runs a part of it."""

    folder: str
    env: EnvConfig
    num_envs: int
    seed: int
    video_folder: Path | None
    max_rendered: int
    device: str | None

    def run(self, indices: Sequence[int]) -> _Outcome:
        policy = load_policy(Path(self.folder), self.device)
        check_env(policy.features, self.env, name="the policy")
        policy.reset()
        policy.seed(self.seed + indices[0])
        timed = _TimedPolicy(policy)
        episodes = run_episodes(
            self.env,
            timed.act,
            indices=list(indices),
            seed=self.seed,
            num_envs=self.num_envs,
            on_begin=lambda slot: policy.reset([slot]),
            video_folder=self.video_folder,
            max_rendered=self.max_rendered,
        )
        return episodes, timed.seconds


class _TimedPolicy:
    """Acts deterministically and notes how long each call took."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds: list[float] = []

    def act(self, observations: Observation, slots: list[int]) -> NDArray[Any]:
        began = time.perf_counter()
        actions = self._policy.act(observations, deterministic=True, envs=slots)
        self.seconds.append(time.perf_counter() - began)
        return actions


def _run_remotely(job: _Job, indices: list[int], num_runners: int) -> _Outcome:
    """Deal the episodes out to Ray tasks; one that dies is tried again."""

    def run(part: list[int]) -> _Outcome:
        torch.set_num_threads(1)
        return job.run(part)

    remote = ray.remote(num_cpus=1, max_retries=3)(run)
    parts = [indices[start::num_runners] for start in range(min(num_runners, len(indices)))]
    try:
        results = ray.get([remote.remote(part) for part in parts], timeout=EVAL_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:  # its own text is the remote traceback
        raise error.cause if isinstance(error.cause, LerayError) else error from error
    episodes = [episode for part, _ in results for episode in part]
    return sorted(episodes, key=lambda e: e.index), [s for _, part in results for s in part]
