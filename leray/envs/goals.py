"""What relabelling needs to know of a goal task: where its goals lie and how it rewards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.errors import EnvError

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GoalLayout:
    """Where `ObservationMap` puts the goals in one feature."""

    key: str
    """The feature, a vector."""
    achieved: slice
    """What has been achieved."""
    desired: slice
    """What is asked for."""
    offset: slice | None
    """Desired minus achieved, if it is appended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoalTask:
    """A goal task's rewards as functions of many goals at once."""

    layout: GoalLayout
    reward: Callable[[Array, Array], NDArray[np.float32]]
    """Rewards [B] of goals achieved [B, G] where others were desired [B, G]."""
    terminated: Callable[[Array, Array], NDArray[np.bool_]]
    """Whether that ends an episode, [B]."""


def goal_task(env: gym.Env[Any, Any], layout: GoalLayout | None) -> GoalTask | None:
    """Return an environment's goal task, or None if its observations hold no goals.

    The environment answers through `compute_reward(achieved, desired, info)`, and, where reaching
    the goal ends an episode, `compute_terminated(achieved, desired, info)`, as in
    Gymnasium-Robotics. It must not be closed while the task is used.

    Raises:
        EnvError: `compute_reward` does not take many goals at once.
    """
    source = env.unwrapped
    if layout is None or not hasattr(source, "compute_reward"):
        return None

    def reward(achieved: Array, desired: Array) -> NDArray[np.float32]:
        return np.asarray(source.compute_reward(achieved, desired, {}), np.float32)

    def terminated(achieved: Array, desired: Array) -> NDArray[np.bool_]:
        if not hasattr(source, "compute_terminated"):
            return np.zeros(len(achieved), np.bool_)
        ended = source.compute_terminated(achieved, desired, {})
        return np.broadcast_to(np.asarray(ended, np.bool_), len(achieved))

    size = layout.achieved.stop - layout.achieved.start
    probe = np.zeros((2, size), np.float32)
    try:
        shape = reward(probe, probe).shape
    except Exception as error:
        raise EnvError(_not_batched(source, f"{type(error).__name__}: {error}")) from error
    if shape != (2,):
        raise EnvError(_not_batched(source, f"a result of shape {shape} for 2 goals"))
    return GoalTask(layout=layout, reward=reward, terminated=terminated)


def _not_batched(env: gym.Env[Any, Any], what: str) -> str:
    return (
        f"compute_reward of {type(env).__name__} does not take many goals at once ({what}): "
        "let it accept arrays [B, G], or give --policy.her_ratio=0"
    )
