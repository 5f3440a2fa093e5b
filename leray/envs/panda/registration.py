"""Gymnasium ids of the Panda tasks."""

import itertools
from typing import Any

import gymnasium as gym

NAMESPACE = "leray"
MAX_EPISODE_STEPS = 50
_TASKS = {
    "Reach": "reach",
    "Push": "push",
    "PickAndPlace": "pick_and_place",
    "PickPlace": "pick_and_place",
    "Detour": "detour",
}


def task_ids() -> dict[str, dict[str, Any]]:
    """Return each id without namespace, and the keyword arguments of `PandaEnv` it stands for."""
    variants = itertools.product(_TASKS.items(), ("", "Pixels"), ("", "Joints"), ("", "Dense"))
    return {
        f"Panda{name}{pixels}{control}{reward}-v3": {
            "task": task,
            "obs_type": "pixels_agent_pos" if pixels else "state",
            "control_type": "joints" if control else "ee",
            "reward_type": "dense" if reward else "sparse",
        }
        for (name, task), pixels, control, reward in variants
    }


def register_all() -> None:
    """Register every id that Gymnasium does not know yet, with and without the namespace."""
    for name, kwargs in task_ids().items():
        for env_id in (f"{NAMESPACE}/{name}", name):
            if env_id not in gym.registry:
                gym.register(
                    env_id,
                    entry_point="leray.envs.panda.env:PandaEnv",
                    kwargs=kwargs,
                    max_episode_steps=MAX_EPISODE_STEPS,
                    order_enforce=False,
                    disable_env_checker=True,
                )
