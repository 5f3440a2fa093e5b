"""What each Panda task is: sizes, initial states, goals and rewards.

The figures of reach, push and pick-and-place are those panda-gym 3.0.7 publishes, and random
numbers are drawn in its order, so a seed gives the same goal and the same cube here as there.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.kinematics import NEUTRAL_JOINTS, Float
from leray.envs.panda.pillar import Pillar

RewardType = Literal["sparse", "dense"]

DISTANCE_THRESHOLD_M = 0.05
EE_STEP_M = 0.05
"""Displacement of the gripper's target from its measured position at a full action."""
JOINT_STEP_RAD = 0.05
"""Displacement of a joint's target from its measured angle at a full action."""
GRIPPER_STEP_M = 0.2
"""Change of the gripper's width from the measured one at a full action."""
CUBE_HALF_EDGE_M = 0.02
GOAL_ON_TABLE_PROBABILITY = 0.3
TOUCH_REWARD = -50.0
"""Reward of touching the pillar, which ends the episode: what fifty steps off the goal cost."""
_XY_RANGE_M = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDefinition:
    """One task.

    Attributes:
        name: value of `PandaEnv(task=...)`.
        description: the instruction in words, for language-conditioned policies.
        scene: file of the MuJoCo model in `assets/`.
        has_object: whether there is a cube, whose position is then the achieved goal.
        gripper_blocked: whether the fingers stay closed and have no action.
        goal_height_m: goals lie between `goal_base_m` and this much above it.
        goal_base_m: lowest height of a goal.
        goal_on_table_probability: how often the goal's height is `goal_base_m` exactly.
        goal_center_m: x and y of the middle of the square that goals lie in.
        goal_range_m: half the edge of that square.
        start_joints: joint angles in radians at the start of each episode.
        pillar: what must not be touched, if anything.
    """

    name: str
    description: str
    scene: str
    has_object: bool
    gripper_blocked: bool
    goal_base_m: float
    goal_height_m: float
    goal_on_table_probability: float = 0.0
    goal_center_m: tuple[float, float] = (0.0, 0.0)
    goal_range_m: float = _XY_RANGE_M
    start_joints: tuple[float, ...] = NEUTRAL_JOINTS
    pillar: Pillar | None = None

    @property
    def proprioception_size(self) -> int:
        """How many of the first numbers of `observation` tell of the robot itself."""
        return 6 + (not self.gripper_blocked)

    @property
    def observation_size(self) -> int:
        """Length of `observation`: gripper pose and speed, then width, then the cube's state."""
        return self.proprioception_size + 12 * self.has_object

    def sample_goal(self, rng: np.random.Generator) -> Float:
        """Draw a goal position in metres, shape [3]."""
        (x, y), reach = self.goal_center_m, self.goal_range_m
        goal = rng.uniform((x - reach, y - reach, 0.0), (x + reach, y + reach, self.goal_height_m))
        if self.goal_on_table_probability and rng.random() < self.goal_on_table_probability:
            goal[2] = 0.0
        goal[2] += self.goal_base_m
        return goal

    def sample_object(self, rng: np.random.Generator) -> Float:
        """Draw the cube's initial position in metres, shape [3]: lying on the table."""
        low, high = (-_XY_RANGE_M, -_XY_RANGE_M, 0.0), (_XY_RANGE_M, _XY_RANGE_M, 0.0)
        position = rng.uniform(low, high)
        position[2] = CUBE_HALF_EDGE_M
        return position


TASKS = {
    task.name: task
    for task in (
        TaskDefinition(
            name="reach",
            description="move the gripper to the goal",
            scene="reach.xml",
            has_object=False,
            gripper_blocked=True,
            goal_base_m=0.0,
            goal_height_m=0.3,
        ),
        TaskDefinition(
            name="push",
            description="push the cube to the goal",
            scene="cube.xml",
            has_object=True,
            gripper_blocked=True,
            goal_base_m=CUBE_HALF_EDGE_M,
            goal_height_m=0.0,
        ),
        TaskDefinition(
            name="pick_and_place",
            description="pick up the cube and place it at the goal",
            scene="cube.xml",
            has_object=True,
            gripper_blocked=False,
            goal_base_m=CUBE_HALF_EDGE_M,
            goal_height_m=0.2,
            goal_on_table_probability=GOAL_ON_TABLE_PROBABILITY,
        ),
        TaskDefinition(
            name="detour",
            description="move the gripper around the pillar to the goal",
            scene="detour.xml",
            has_object=False,
            gripper_blocked=True,
            goal_base_m=0.04,
            goal_height_m=0.04,
            goal_center_m=(0.05, 0.0),
            goal_range_m=0.03,
            start_joints=(0.0, 0.1148, 0.0, -2.8635, 0.0, 2.9782, 0.7854),
            pillar=Pillar(x_m=-0.1, y_m=0.0, radius_m=0.055, height_m=0.1),
        ),
    )
}


def distance(achieved: NDArray[Any], desired: NDArray[Any]) -> Float:
    """Return the Euclidean distance in metres over the last axis: [..., 3] -> [...].

    Summed in a fixed order, so that it equals `distance_of_one` bit for bit.
    """
    offset = np.asarray(achieved, np.float64) - np.asarray(desired, np.float64)
    x, y, z = offset[..., 0], offset[..., 1], offset[..., 2]
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def distance_of_one(achieved: list[float], desired: list[float]) -> float:
    """Return the distance in metres between two points given as plain numbers."""
    x, y, z = achieved[0] - desired[0], achieved[1] - desired[1], achieved[2] - desired[2]
    return math.sqrt(x * x + y * y + z * z)
