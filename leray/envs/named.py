"""Environments an RLlib config names: by LeRay's options, an id, or a creator of RLlib."""

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.registry import ENV_CREATOR, _global_registry

from leray.envs.config import EnvConfig, GymEnvConfig


def named_env(config: AlgorithmConfig, kwargs: dict[str, Any]) -> EnvConfig | None:
    """Return what LeRay builds a config's environment from, or None if RLlib has a creator for it.

    Args:
        config: its `env_options`, if not None, come before its `env`.
        kwargs: of the environment, where `env` is an id of Gymnasium.
    """
    options: EnvConfig | None = config.env_options
    if options is not None:
        return options
    if not isinstance(config.env, str) or _global_registry.contains(ENV_CREATOR, config.env):
        return None
    return GymEnvConfig(task=config.env, kwargs=dict(kwargs))
