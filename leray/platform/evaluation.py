"""Judging a checkpoint folder, in this process or on Ray actors, and LeRobot's `eval_info.json`."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from leray.algorithms.registry import load_policy
from leray.data.features import Features, check_compatible
from leray.data.names import ACTION
from leray.envs.config import EnvConfig
from leray.envs.episodes import EpisodeResult, run_episodes
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap
from leray.envs.panda.rendering import rendering_available
from leray.errors import LerayError
from leray.files import write_json
from leray.platform.config import EvalConfig

logger = logging.getLogger(__name__)

EVAL_TIMEOUT_S = 3600.0


@dataclass(slots=True)
class Evaluation:
    """The episodes of one evaluation."""

    episodes: list[EpisodeResult]
    seconds: float

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
        return metrics

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
        episodes = job.run(indices)
    else:
        episodes = _run_remotely(job, indices, config.num_env_runners)
    return Evaluation(episodes, time.monotonic() - began)


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

    def run(self, indices: Sequence[int]) -> list[EpisodeResult]:
        policy = load_policy(Path(self.folder), self.device)
        _check_env(policy.features, self.env)
        return run_episodes(
            self.env,
            lambda observations: policy.act(observations, deterministic=True),
            indices=list(indices),
            seed=self.seed,
            num_envs=self.num_envs,
            video_folder=self.video_folder,
            max_rendered=self.max_rendered,
        )


def _run_remotely(job: _Job, indices: list[int], num_runners: int) -> list[EpisodeResult]:
    """Deal the episodes out to Ray tasks; one that dies is tried again."""

    def run(part: list[int]) -> list[EpisodeResult]:
        torch.set_num_threads(1)
        return job.run(part)

    remote = ray.remote(num_cpus=1, max_retries=3)(run)
    parts = [indices[start::num_runners] for start in range(min(num_runners, len(indices)))]
    try:
        results = ray.get([remote.remote(part) for part in parts], timeout=EVAL_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:  # its own text is the remote traceback
        raise error.cause if isinstance(error.cause, LerayError) else error from error
    return sorted((episode for part in results for episode in part), key=lambda e: e.index)


def _check_env(features: Features, config: EnvConfig) -> None:
    """Compare what a policy reads with what the environment gives, before the first step."""
    env = make_env(config)
    try:
        offered = ObservationMap(env, goal_relative=config.goal_relative).features
    finally:
        env.close()
    check_compatible(
        features,
        offered,
        left_name="the policy",
        right_name=f"environment {config.task}",
        keys=[key for key in features if key != ACTION],
    )
