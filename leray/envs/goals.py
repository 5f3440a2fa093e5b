"""What relabelling needs to know of a goal task: where its goals lie and how it rewards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

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
    Gymnasium-Robotics; at best for many goals at once, else they are asked one by one. It must not
    be closed while the task is used.
    """
    source = env.unwrapped
    if layout is None or not hasattr(source, "compute_reward"):
        return None
    size = layout.achieved.stop - layout.achieved.start
    reward = _for_many(source.compute_reward, size)
    terminated = _for_many(getattr(source, "compute_terminated", _never), size)
    return GoalTask(
        layout=layout,
        reward=lambda achieved, desired: reward(achieved, desired).astype(np.float32),
        terminated=lambda achieved, desired: terminated(achieved, desired).astype(np.bool_),
    )


def _never(achieved: Array, desired: Array, info: Any) -> Array:
    return np.zeros(len(achieved), np.bool_)


def _for_many(method: Callable[[Array, Array, Any], Any], size: int) -> Callable[..., Array]:
    """Return a method's answers for goals [B, G] as an array [B], asked together if it can."""

    def together(achieved: Array, desired: Array) -> Array:
        return np.asarray(method(achieved, desired, {}))

    def one_by_one(achieved: Array, desired: Array) -> Array:
        pairs = zip(achieved, desired, strict=True)
        return np.array([method(one, other, {}) for one, other in pairs])

    probe = np.zeros((2, size), np.float32)
    try:
        return together if together(probe, probe).shape == (2,) else one_by_one
    except Exception:  # whatever it is, arrays of goals are not what it takes
        return one_by_one
