"""Environments by name: any Gymnasium id, LeRay's own tasks, panda-gym's."""

import difflib
import importlib.util
from typing import Any

import gymnasium as gym

from leray.envs.config import EnvConfig, PandaGymEnvConfig
from leray.errors import EnvError


def make_env(config: EnvConfig, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Build one environment.

    Args:
        config: which environment; a bare id such as `PandaReach-v3` means LeRay's own task if it
            has one of that name.
        render_mode: `rgb_array` for an environment that can return frames.

    Raises:
        EnvError: the id is unknown, its package is not installed, or its constructor fails.
    """
    env_id = _resolve(config)
    kwargs = dict(config.kwargs)
    if render_mode is not None:
        kwargs["render_mode"] = render_mode
    try:
        return gym.make(
            env_id,
            max_episode_steps=config.max_episode_steps,
            disable_env_checker=True,
            **kwargs,
        )
    except gym.error.UnregisteredEnv as error:
        raise EnvError(_unknown(config)) from error
    except EnvError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EnvError(
            f"--env.task={config.task} could not be built with kwargs {kwargs}: {reason}"
        ) from error


def _resolve(config: EnvConfig) -> str:
    """Return the Gymnasium id a config means, registering what it needs."""
    from leray.envs import panda

    panda.register()
    if isinstance(config, PandaGymEnvConfig):
        if importlib.util.find_spec("panda_gym") is None:
            raise EnvError(
                "--env.type=panda_gym needs the package panda-gym: pip install 'leray[panda-gym]', "
                "or use --env.type=gym for LeRay's own Panda tasks"
            )
        return f"panda_gym:{config.task}"
    own = f"leray/{config.task}"
    return own if own in gym.registry else config.task


def _unknown(config: EnvConfig) -> str:
    """Say that an id does not exist and which one may have been meant."""
    near = difflib.get_close_matches(config.task, list(gym.registry), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "see gymnasium.pprint_registry()"
    return f"--env.task={config.task}: no such environment is registered; {hint}"
