"""Scripted experts: demonstrations without a person, and proof that each task can be solved."""

from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.kinematics import (
    NEUTRAL_JOINTS,
    ArmPose,
    Float,
    arm_pose,
    pointing_down_error,
)
from leray.envs.panda.plans import Observation, Plan, Target, make_plan
from leray.envs.panda.tasks import EE_STEP_M, JOINT_STEP_RAD, TASKS
from leray.errors import EnvError

_RESPONSE = 0.85
"""Share of a commanded step that the arm has made when the next action is due."""
_COAST_S = np.array([0.008, 0.008, 0.025])
"""How far the gripper runs on, per speed: gravity makes the way down the longest."""
_CORRECTION_DAMPING = 1e-3
_STEP_DAMPING = 0.1


class Controller(Protocol):
    """Turns a gripper target into the arm's part of an action."""

    def reset(self) -> None:
        """Forget the last episode."""

    def arm_action(self, gripper: Float, velocity: Float, target: Target) -> Float:
        """Return actions in -1..1 from the gripper's measured position and velocity, shape [3]."""


class EndEffectorController:
    """Actions are displacements of the gripper."""

    def reset(self) -> None:
        """Nothing to forget."""

    def arm_action(self, gripper: Float, velocity: Float, target: Target) -> Float:
        """Return the displacement towards the target, shape [3]."""
        step = _limited(target.position - gripper - _COAST_S * velocity, target.stride_m)
        return np.clip(step / (_RESPONSE * EE_STEP_M), -1.0, 1.0)


class JointController:
    """Actions are displacements of the joints, whose angles are not observed.

    The angles are known at the start of an episode; from then on they are followed by what was
    commanded, and corrected by where the gripper is seen to be.
    """

    def __init__(self) -> None:
        self._angles = np.array(NEUTRAL_JOINTS)
        self._commanded = np.zeros(7)

    def reset(self) -> None:
        """Begin at the neutral joint angles."""
        self._angles = np.array(NEUTRAL_JOINTS)
        self._commanded = np.zeros(7)

    def arm_action(self, gripper: Float, velocity: Float, target: Target) -> Float:
        """Return the joint displacements towards the target, shape [7]."""
        pose = self._follow(gripper)
        turn = pointing_down_error(pose.rotation.ravel().tolist())
        error = np.concatenate([_limited(target.position - gripper, target.stride_m), turn])
        step = _least_squares(pose.jacobian, error, _STEP_DAMPING) / _RESPONSE
        step /= max(1.0, float(np.abs(step).max()) / JOINT_STEP_RAD)
        self._commanded = step
        return step / JOINT_STEP_RAD

    def _follow(self, gripper: Float) -> ArmPose:
        """Update the estimated angles and return the pose they give."""
        self._angles += _RESPONSE * self._commanded
        pose = arm_pose(self._angles)
        for _ in range(2):
            missing = gripper - pose.position
            self._angles += _least_squares(pose.jacobian[:3], missing, _CORRECTION_DAMPING)
            pose = arm_pose(self._angles)
        return pose


class Expert:
    """Solves one task; needs the observation only.

    Args:
        plan: where the gripper should go.
        controller: how to get there.
        has_fingers: whether the action's last number is the fingers'.
        noise: standard deviation of normal noise on the arm's actions, for varied demonstrations.
        seed: seed of the noise.
    """

    def __init__(
        self,
        plan: Plan,
        controller: Controller,
        *,
        has_fingers: bool,
        noise: float = 0.0,
        seed: int | None = None,
    ) -> None:
        self._plan, self._controller = plan, controller
        self._has_fingers, self._noise = has_fingers, noise
        self._rng = np.random.default_rng(seed)

    def reset(self) -> None:
        """Begin an episode; call it after the environment's reset."""
        self._plan.reset()
        self._controller.reset()

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next action in -1..1, shape [A].

        Args:
            observation: the environment's dictionary.
        """
        gripper, velocity = np.asarray(observation["observation"][:6], np.float64).reshape(2, 3)
        target = self._plan.target(observation)
        arm = self._controller.arm_action(gripper, velocity, target)
        if self._noise:
            arm = np.clip(arm + self._noise * self._rng.standard_normal(arm.shape), -1.0, 1.0)
        fingers = [target.gripper] if self._has_fingers else []
        return np.concatenate([arm, fingers]).astype(np.float32)


def make_expert(
    task: gym.Env[Any, Any] | str,
    control_type: str | None = None,
    *,
    noise: float = 0.0,
    seed: int | None = None,
) -> Expert:
    """Build the expert of a task.

    Args:
        task: a `PandaEnv`, wrapped or not, or a task's name: `reach`, `push`, `pick_and_place`.
        control_type: `ee` or `joints`; by default the environment's, or `ee` for a name.
        noise: standard deviation of normal noise on the arm's actions.
        seed: seed of the noise.

    Raises:
        EnvError: the task or the control type is unknown.
    """
    if not isinstance(task, str):
        control_type = control_type or getattr(task.unwrapped, "control_type", None)
        task = getattr(getattr(task.unwrapped, "task", None), "name", str(task))
    control_type = control_type or "ee"
    controllers: dict[str, type[Controller]] = {
        "ee": EndEffectorController,
        "joints": JointController,
    }
    if task not in TASKS or control_type not in controllers:
        raise EnvError(
            f"no expert for task {task!r} with control_type={control_type!r}; tasks are "
            f"{', '.join(TASKS)}, control types {', '.join(controllers)}"
        )
    return Expert(
        make_plan(task),
        controllers[control_type](),
        has_fingers=not TASKS[task].gripper_blocked,
        noise=noise,
        seed=seed,
    )


def _limited(step: Float, longest: float) -> Float:
    """Shorten a step to a length, keeping its direction."""
    return step * min(1.0, longest / max(float(np.linalg.norm(step)), 1e-9))


def _least_squares(jacobian: Float, error: Float, damping: float) -> Float:
    """Return the damped least-squares joint step for a small pose error."""
    square = jacobian @ jacobian.T + damping**2 * np.eye(len(error))
    return np.asarray(jacobian.T @ np.linalg.solve(square, error))
