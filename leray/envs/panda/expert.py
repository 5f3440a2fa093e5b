"""Scripted experts: demonstrations without a person, and proof that each task can be solved."""

from collections.abc import Callable
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.kinematics import ArmPose, Float, arm_pose, pointing_down_error
from leray.envs.panda.plans import Observation, Plan, Target, make_plan
from leray.envs.panda.tasks import EE_STEP_M, JOINT_STEP_RAD, TASKS
from leray.errors import EnvError

_RESPONSE = 0.85
"""Share of a commanded step that the arm has made when the next action is due."""
_COAST_S = np.array([0.008, 0.008, 0.025])
"""How far the gripper runs on, per speed: gravity makes the way down the longest."""
_CORRECTION_DAMPING = 1e-3
_STEP_DAMPING = 0.1
_STREAM = 1
"""Sets the expert's chance apart from that of an environment with the same seed, which would
otherwise draw the same numbers: the goal would tell what the expert does."""


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

    Args:
        start_joints: angles in radians at the start of each episode.
    """

    def __init__(self, start_joints: tuple[float, ...]) -> None:
        self._start = start_joints
        self.reset()

    def reset(self) -> None:
        """Begin at the start's joint angles."""
        self._angles = np.array(self._start)
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
    """Solves one task.

    Args:
        plan: where the gripper should go.
        controller: how to get there.
        has_fingers: whether the action's last number is the fingers'.
        noise: standard deviation of normal noise on the arm's actions, for varied demonstrations.
        seed: seed of what is left to chance.
        state: returns the environment's goal dictionary, for experts of environments whose
            observations do not hold it.
    """

    def __init__(
        self,
        plan: Plan,
        controller: Controller,
        *,
        has_fingers: bool,
        noise: float = 0.0,
        seed: int | None = None,
        state: Callable[[], Observation] | None = None,
    ) -> None:
        self._plan, self._controller = plan, controller
        self._has_fingers, self._noise = has_fingers, noise
        self._rng = _generator(seed)
        self._state = state
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode; call it after the environment's reset.

        Args:
            seed: restarts the random generator; without it the generator goes on.
        """
        if seed is not None:
            self._rng = _generator(seed)
        self._plan.reset(self._rng)
        self._controller.reset()

    def act(self, observation: Observation) -> NDArray[np.float32]:
        """Return the next action in -1..1, shape [A].

        Args:
            observation: the environment's goal dictionary; any other where `state` returns that.
        """
        if self._state is not None:
            observation = self._state()
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
        task: a `PandaEnv`, wrapped or not, whatever it observes, or the name of a task: `reach`,
            `push`, `pick_and_place`, `detour`.
        control_type: `ee` or `joints`; by default the environment's, or `ee` for a name.
        noise: standard deviation of normal noise on the arm's actions.
        seed: seed of what is left to chance.

    Raises:
        EnvError: the task or the control type is unknown.
    """
    state = None
    if not isinstance(task, str):
        env = task.unwrapped
        control_type = control_type or getattr(env, "control_type", None)
        task = getattr(getattr(env, "task", None), "name", str(task))
        if getattr(env, "obs_type", "state") != "state":
            state = env.goal_observation
    control_type = control_type or "ee"
    if task not in TASKS or control_type not in ("ee", "joints"):
        raise EnvError(
            f"no expert for task {task!r} with control_type={control_type!r}; tasks are "
            f"{', '.join(TASKS)}, control types ee, joints"
        )
    definition = TASKS[task]
    joints = control_type == "joints"
    return Expert(
        make_plan(task),
        JointController(definition.start_joints) if joints else EndEffectorController(),
        has_fingers=not definition.gripper_blocked,
        noise=noise,
        seed=seed,
        state=state,
    )


def _limited(step: Float, longest: float) -> Float:
    """Shorten a step to a length, keeping its direction."""
    return step * min(1.0, longest / max(float(np.linalg.norm(step)), 1e-9))


def _least_squares(jacobian: Float, error: Float, damping: float) -> Float:
    """Return the damped least-squares joint step for a small pose error."""
    square = jacobian @ jacobian.T + damping**2 * np.eye(len(error))
    return np.asarray(jacobian.T @ np.linalg.solve(square, error))


def _generator(seed: int | None) -> np.random.Generator:
    return np.random.default_rng(None if seed is None else (seed, _STREAM))
