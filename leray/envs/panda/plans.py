"""Where the gripper should go next in each task, from the observation alone."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.kinematics import Float
from leray.envs.panda.pillar import Pillar, Side
from leray.envs.panda.tasks import CUBE_HALF_EDGE_M, TASKS

Observation = dict[str, NDArray[Any]]

OPEN, CLOSE = 1.0, -1.0
_WIDTH_INDEX = 6


class Target(NamedTuple):
    """What a plan wants next."""

    position: Float
    """Gripper position in metres, shape [3]."""
    gripper: float = CLOSE
    """Action of the fingers, from -1 (close) to 1 (open)."""
    stride_m: float = 0.06
    """Longest step towards the position."""


class Plan(Protocol):
    """Chooses gripper targets; remembers no more than the phase it is in."""

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the last episode; what is left to chance in the next is drawn from `rng`."""

    def target(self, observation: Observation) -> Target:
        """Return where the gripper should go."""


class ReachPlan:
    """Straight to the goal."""

    def reset(self, rng: np.random.Generator) -> None:
        """Nothing to forget."""

    def target(self, observation: Observation) -> Target:
        """Return the goal."""
        return Target(_vector(observation["desired_goal"]))


class PickAndPlacePlan:
    """Down a funnel over the cube, close, and carry the cube straight to the goal."""

    _HOVER_M = 0.06
    _ALIGNED_M = 0.01
    _HELD_WIDTH_M = 0.05
    _LOST_M = 0.035

    def __init__(self) -> None:
        self._holding = False

    def reset(self, rng: np.random.Generator) -> None:
        """Begin with open fingers."""
        self._holding = False

    def target(self, observation: Observation) -> Target:
        """Approach, grasp or carry."""
        state = _vector(observation["observation"])
        gripper, width = state[:3], float(state[_WIDTH_INDEX])
        cube, goal = _vector(observation["achieved_goal"]), _vector(observation["desired_goal"])
        offset = cube - gripper
        aside, apart = float(np.hypot(offset[0], offset[1])), float(np.linalg.norm(offset))
        self._holding = apart < (self._LOST_M if self._holding else self._ALIGNED_M)
        if not self._holding:
            height = np.clip(2.0 * (aside - self._ALIGNED_M), 0.0, self._HOVER_M)
            return Target(cube + np.array([0.0, 0.0, height]), OPEN)
        if width > self._HELD_WIDTH_M:
            return Target(cube, CLOSE)
        return Target(gripper + goal - cube, CLOSE)


class PushPlan:
    """Over the cube to the side away from the goal, down, and push along the line to the goal."""

    _BEHIND_M = 0.046
    _HOVER_M = 0.078
    _STEEPNESS = 4.0
    _ALIGNED_M = 0.02
    _PUSH_HEIGHT_M = CUBE_HALF_EDGE_M
    _PUSH_STRIDE_M = 0.028
    _CENTRING = 1.5

    def reset(self, rng: np.random.Generator) -> None:
        """Nothing to forget."""

    def target(self, observation: Observation) -> Target:
        """Approach or push."""
        gripper = _vector(observation["observation"])[:3]
        cube, goal = _vector(observation["achieved_goal"]), _vector(observation["desired_goal"])
        way = (goal - cube)[:2]
        way /= max(float(np.linalg.norm(way)), 1e-6)
        behind = cube.copy()
        behind[:2] -= self._BEHIND_M * way
        behind[2] = self._PUSH_HEIGHT_M
        to_cube = (cube - gripper)[:2]
        along, across = float(to_cube @ way), float(to_cube[0] * way[1] - to_cube[1] * way[0])
        in_line = along > 0.0 and abs(across) < self._ALIGNED_M
        low = gripper[2] < 2 * CUBE_HALF_EDGE_M
        if in_line and low:
            aim = behind.copy()
            forward = self._PUSH_STRIDE_M * (1.0 - abs(across) / self._ALIGNED_M)
            aim[:2] = gripper[:2] + forward * way
            aim[:2] += self._CENTRING * across * np.array([way[1], -way[0]])
            return Target(aim, stride_m=self._PUSH_STRIDE_M)
        aside = float(np.linalg.norm((behind - gripper)[:2]))
        behind[2] += np.clip(self._STEEPNESS * (aside - self._ALIGNED_M / 2), 0.0, self._HOVER_M)
        return Target(behind)


class DetourPlan:
    """Around the pillar on the left or on the right, whichever each episode's chance is.

    Args:
        pillar: what to get around.
        side: take always this side.
    """

    _ASIDE_M = 0.19
    _BEHIND_M = 0.05
    _PASSED_M = 0.03
    _STRIDE_M = 0.03

    def __init__(self, pillar: Pillar, side: Side | None = None) -> None:
        self._pillar, self._always = pillar, side
        self.side: Side = side or "left"
        """The side of this episode."""

    def reset(self, rng: np.random.Generator) -> None:
        """Choose a side."""
        self.side = self._always or ("left" if rng.random() < 0.5 else "right")

    def target(self, observation: Observation) -> Target:
        """Return a point beside and behind the pillar, and past it the goal."""
        goal, pillar = _vector(observation["desired_goal"]), self._pillar
        if observation["observation"][0] > pillar.x_m + self._PASSED_M:
            return Target(goal, stride_m=self._STRIDE_M)
        aside = self._ASIDE_M if self.side == "left" else -self._ASIDE_M
        beside = np.array([pillar.x_m + self._BEHIND_M, pillar.y_m + aside, goal[2]])
        return Target(beside, stride_m=self._STRIDE_M)


def make_plan(task: str) -> Plan:
    """Return the plan of a task of `TASKS`."""
    if (pillar := TASKS[task].pillar) is not None:
        return DetourPlan(pillar)
    plans: dict[str, type[Plan]] = {
        "reach": ReachPlan,
        "push": PushPlan,
        "pick_and_place": PickAndPlacePlan,
    }
    return plans[task]()


def _vector(values: NDArray[Any]) -> Float:
    return np.asarray(values, np.float64)
