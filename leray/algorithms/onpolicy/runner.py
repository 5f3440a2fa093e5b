"""RLlib's own env runner, with episodes from known seeds and a record of each."""

import math
from typing import Any

import numpy as np
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.debug import update_global_seed_if_necessary

from leray.envs.flat import EPISODE, FlatEnv

ENV_NAME = "leray/flat"
"""Under which RLlib finds the environment."""
EPISODES = "leray_episodes"
"""Metric of RLlib's env runners: one record per episode that ended."""


class SeededEnvRunner(SingleAgentEnvRunner):  # type: ignore[misc]
    """The stock runner; only `restart` is added."""

    def restart(self, step: int) -> None:
        """Begin new episodes and random numbers that depend on the seed, the runner and `step`."""
        self._seed = seed_of(self.config.seed, step, 1 + (self.worker_index or 0))
        update_global_seed_if_necessary("torch", self._seed)
        self._needs_initial_reset = True


def seed_of(seed: int | None, step: int, who: int) -> int:
    """Return a seed below 2^31 that differs by run, step and process."""
    return int(np.random.SeedSequence([seed or 0, step, who]).generate_state(1)[0]) >> 1


def make_flat_env(context: EnvContext) -> FlatEnv:
    """Build the environment that `env_config` names, for RLlib's registry."""
    return FlatEnv(context["env"])


def record_episode(*, episode: Any, metrics_logger: Any, **_: Any) -> None:
    """Log return, length and success of an episode that ended (RLlib's `on_episode_end`).

    They are the environment's own count: RLlib's learner prolongs chunks of episodes in place.
    """
    record = episode.get_infos(-1)[EPISODE]
    success = float(record["success"])
    metrics_logger.log_value(
        EPISODES,
        {
            "return": float(record["return"]),
            "length": int(record["length"]),
            "success": None if math.isnan(success) else success,
        },
        reduce="item_series",
    )
