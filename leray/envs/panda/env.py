"""The Panda tasks as Gymnasium environments."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.cameras import Cameras
from leray.envs.panda.kinematics import damped_step, pointing_down_error
from leray.envs.panda.model import ARM_JOINTS, FINGER_OPEN_M, load_model
from leray.envs.panda.rendering import require_rendering
from leray.envs.panda.tasks import (
    DISTANCE_THRESHOLD_M,
    EE_STEP_M,
    GRIPPER_STEP_M,
    JOINT_STEP_RAD,
    TASKS,
    TOUCH_REWARD,
    RewardType,
    distance,
    distance_of_one,
)
from leray.errors import EnvError

ControlType = Literal["ee", "joints"]
ObsType = Literal["state", "pixels_agent_pos", "pixels_state"]
Observation = dict[str, Any]
"""Vectors by name, and under `pixels` pictures by camera."""

CONTROL_HZ = 25
SUBSTEPS = 20
OBSERVATION_BOUND = 10.0


class PandaEnv(gym.Env[Observation, NDArray[np.float32]]):  # type: ignore[misc] # untyped to mypy
    """A Franka Panda on a table, with a goal to reach by the gripper or by a cube.

    The state is a dictionary of float32 vectors: `observation` (gripper position and velocity; with
    free fingers their width; with a cube its position, Euler angles, linear and angular velocity),
    `achieved_goal` [3] and `desired_goal` [3]. Positions are metres in a frame whose origin lies on
    the table top, 0.6 m before the robot's base. Actions lie in -1..1.

    Observations are the state, or pictures with what the robot knows of itself: `pixels` (uint8
    [height, width, 3] by camera) and `agent_pos` (gripper position and velocity, width of free
    fingers). Where goal and cube are is then in the pictures only. In `detour` a pillar stands in
    the way, always at the same place; touching it ends the episode without success.

    The state is a function of the seed of the last seeded `reset` and of the actions since, and
    pictures are one of the state.

    Args:
        task: `reach`, `push`, `pick_and_place` or `detour`.
        control_type: `ee` moves the gripper's position, `joints` the seven joints; both relative to
            the measured pose. Free fingers add one more action, their width.
        reward_type: `sparse` is -1 until success and 0 with it, `dense` the negative distance.
        obs_type: what is observed: the `state`, `pixels_agent_pos` for pictures, or `pixels_state`
            for the state and pictures.
        cameras: which cameras' pictures are observed: `front`, `wrist`, `overview`.
        observation_width: width of observed pictures.
        observation_height: height of observed pictures.
        render_mode: `rgb_array` to use `render()`.
        render_width: width of `render()` in pixels.
        render_height: height of `render()` in pixels.

    Raises:
        EnvError: an argument is unknown, or rendering is asked for and does not work here.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012 - Gymnasium's form
    end_effector_slice = (0, 3)
    """Where the gripper's position lies in `observation`."""

    def __init__(
        self,
        task: str = "reach",
        control_type: ControlType = "ee",
        reward_type: RewardType = "sparse",
        obs_type: ObsType = "state",
        cameras: Sequence[str] = ("front",),
        observation_width: int = 64,
        observation_height: int = 64,
        render_mode: str | None = None,
        render_width: int = 480,
        render_height: int = 480,
    ) -> None:
        _check("task", task, tuple(TASKS))
        _check("control_type", control_type, get_args(ControlType))
        _check("reward_type", reward_type, get_args(RewardType))
        _check("obs_type", obs_type, get_args(ObsType))
        _check("render_mode", render_mode, (None, "rgb_array"))
        if render_mode is not None:
            require_rendering()
        self.task = TASKS[task]
        self.task_description = self.task.description
        self.control_type, self.reward_type = control_type, reward_type
        self.obs_type: ObsType = obs_type
        self.render_mode = render_mode
        self._render_size = (render_height, render_width)
        self.model = load_model(self.task.scene)
        self.data = mujoco.MjData(self.model)
        cameras = (cameras,) if isinstance(cameras, str) else tuple(cameras)
        self._observed_cameras = cameras if obs_type != "state" else ()
        self._observed_size = (observation_height, observation_width)
        self._make_spaces()
        self._make_views()

    def _make_spaces(self) -> None:
        actions = (3 if self.control_type == "ee" else ARM_JOINTS) + (not self.task.gripper_blocked)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        sizes = {
            "observation": self.task.observation_size,
            "achieved_goal": 3,
            "desired_goal": 3,
        }
        if self.obs_type == "pixels_agent_pos":
            sizes = {"agent_pos": self.task.proprioception_size}
        spaces: dict[str, gym.Space[Any]] = {
            key: gym.spaces.Box(-OBSERVATION_BOUND, OBSERVATION_BOUND, (size,), np.float32)
            for key, size in sizes.items()
        }
        if self.obs_type != "state":
            spaces["pixels"] = self._make_pictures()
        self.observation_space = gym.spaces.Dict(spaces)

    def _make_pictures(self) -> gym.spaces.Dict:
        """Make ready for observed pictures and return their space."""
        if not self._observed_cameras:
            raise EnvError(f"obs_type={self.obs_type!r} needs cameras; cameras is empty")
        pictures = self._pictures
        for camera in self._observed_cameras:
            pictures.check(camera, *self._observed_size)
        frame = gym.spaces.Box(0, 255, (*self._observed_size, 3), np.uint8)
        return gym.spaces.Dict(dict.fromkeys(self._observed_cameras, frame))

    @functools.cached_property
    def _pictures(self) -> Cameras:
        """The cameras, in the quality of observations."""
        return Cameras(self.model, plain=True)

    @functools.cached_property
    def _views(self) -> Cameras:
        """The cameras, in the quality of videos."""
        return Cameras(self.model)

    def _make_views(self) -> None:
        """Bind views of MuJoCo's arrays and the buffers that `step` reuses."""
        data, arm = self.data, ARM_JOINTS
        self._arm_angles, self._arm_targets = data.qpos[:arm], data.ctrl[:arm]
        self._arm_speeds = data.qvel[:arm]
        self._fingers, self._finger_targets = data.qpos[arm : arm + 2], data.ctrl[arm : arm + 2]
        self._site = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, "end_effector")
        self._gripper = data.site_xpos[self._site]
        self._gripper_rotation = data.site_xmat[self._site]
        self._jacobian = np.zeros((6, self.model.nv))
        self._translation, self._rotation = self._jacobian[:3], self._jacobian[3:]
        self._arm_jacobian = self._jacobian[:, :arm]
        if self.task.has_object:
            cube = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, "cube")
            self._cube_pose = data.qpos[arm + 2 :]
            self._cube_speed, self._cube_spin = data.qvel[arm + 2 : arm + 5], data.qvel[arm + 5 :]
            self._cube_rotation = data.xmat[cube]
        self._action = np.zeros(self.action_space.shape or ())
        self._error = np.zeros(6)
        self._numbers = np.zeros(self.task.observation_size + 6)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: arm in its start pose, closed fingers, new goal and cube.

        Args:
            seed: restarts the environment's random generator; without it the generator goes on.
            options: none exist.

        Returns:
            The first observation, and `is_success` in the info.
        """
        super().reset(seed=seed)
        goal = self.task.sample_goal(self.np_random)
        mujoco.mj_resetData(self.model, self.data)
        self._arm_angles[:] = self._arm_targets[:] = self.task.start_joints
        if self.task.has_object:
            self._cube_pose[:3] = self.task.sample_object(self.np_random)
        self.data.mocap_pos[0] = goal
        self._numbers[-3:] = goal
        state, achieved, desired = self._observe()
        success = distance_of_one(achieved, desired) < DISTANCE_THRESHOLD_M
        return self._observation(state), {"is_success": success}

    def step(self, action: NDArray[Any]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Act for 40 ms.

        Args:
            action: in -1..1 (clipped), shape [3] or [7], one more with free fingers.

        Returns:
            Observation, reward, whether the goal is reached or the pillar touched, False, and
            `is_success` in the info.

        Raises:
            EnvError: the action has another shape or is not finite.
        """
        self._set_targets(action)
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        state, achieved, desired = self._observe()
        apart = distance_of_one(achieved, desired)
        success = terminated = apart < DISTANCE_THRESHOLD_M
        if self.reward_type == "dense":
            reward = -apart
        else:
            reward = -1.0 if apart > DISTANCE_THRESHOLD_M else 0.0
        if self.task.pillar is not None and self.task.pillar.touched_by(achieved):
            success, terminated, reward = False, True, TOUCH_REWARD
        return self._observation(state), reward, terminated, False, {"is_success": success}

    def compute_reward(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Any
    ) -> NDArray[np.float64] | float:
        """Return the reward of having achieved something, for goal relabelling.

        Args:
            achieved_goal: positions in metres, shape [..., 3].
            desired_goal: positions in metres, shape [..., 3].
            info: unused; part of the goal environments' interface.

        Returns:
            The same numbers as `step`, shape [...]; a float for single goals.
        """
        apart = distance(achieved_goal, desired_goal)
        dense = self.reward_type == "dense"
        reward = -apart if dense else np.where(apart > DISTANCE_THRESHOLD_M, -1.0, 0.0)
        if self.task.pillar is not None:
            reward = np.where(self.task.pillar.touched(achieved_goal), TOUCH_REWARD, reward)
        return float(reward) if reward.ndim == 0 else reward

    def compute_terminated(
        self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Any
    ) -> NDArray[np.bool_] | bool:
        """Return whether having achieved something ends an episode; arguments as `compute_reward`.

        Returns:
            The same flags as `step`, shape [...]; a bool for single goals.
        """
        ended = distance(achieved_goal, desired_goal) < DISTANCE_THRESHOLD_M
        if self.task.pillar is not None:
            ended |= self.task.pillar.touched(achieved_goal)
        return bool(ended) if ended.ndim == 0 else ended

    def goal_observation(self) -> Observation:
        """Return the state of the last `reset` or `step`, whatever is observed."""
        return self._state

    def render(self) -> NDArray[np.uint8] | None:
        """Return the overview camera's frame, uint8, shape [height, width, 3].

        Without render mode it returns None.
        """
        if self.render_mode is None:
            return None
        return self.render_camera("overview", *self._render_size)

    def render_camera(self, name: str, height: int, width: int) -> NDArray[np.uint8]:
        """Return a camera's frame, uint8, shape [height, width, 3].

        Args:
            name: `overview`, `front` or `wrist`.
            height: in pixels.
            width: in pixels.

        Raises:
            EnvError: there is no such camera, the size is not possible, or rendering does not work.
        """
        return self._views.render(self.data, name, height, width)

    def _set_targets(self, action: NDArray[Any]) -> None:
        """Turn an action into motor targets."""
        values = self._action
        if np.shape(action) != values.shape:
            raise EnvError(
                f"action of shape {np.shape(action)} given to {self.task.name} with "
                f"control_type={self.control_type}; it takes {values.shape}"
            )
        np.maximum(action, -1.0, out=values)
        np.minimum(values, 1.0, out=values)
        if not math.isfinite(values.sum()):
            raise EnvError(f"action {action} is not finite; actions lie between -1 and 1")
        if self.control_type == "ee":
            self._arm_targets[:] = self._arm_angles + self._towards(values[:3].tolist())
        else:
            np.multiply(values[:ARM_JOINTS], JOINT_STEP_RAD, out=self._arm_targets)
            self._arm_targets += self._arm_angles
        if not self.task.gripper_blocked:
            left, right = self._fingers.tolist()
            target = 0.5 * (left + right + GRIPPER_STEP_M * float(values[-1]))
            self._finger_targets[:] = min(max(target, 0.0), FINGER_OPEN_M)

    def _towards(self, action: list[float]) -> NDArray[np.float64]:
        """Return the joint step that moves the measured gripper by an action, pointing down."""
        height = float(self._gripper[2])
        rise = max(height + EE_STEP_M * action[2], 0.0) - height
        turn = pointing_down_error(self._gripper_rotation.tolist())
        self._error[:] = (EE_STEP_M * action[0], EE_STEP_M * action[1], rise, *turn)
        return damped_step(self._arm_jacobian, self._error)

    def _observe(self) -> tuple[Observation, list[float], list[float]]:
        """Measure: the observation, and its goals as plain numbers."""
        model, data, numbers = self.model, self.data, self._numbers
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._translation, self._rotation, self._site)
        numbers[:3] = self._gripper
        np.dot(self._arm_jacobian[:3], self._arm_speeds, out=numbers[3:6])
        end = 6
        if not self.task.gripper_blocked:
            numbers[6] = self._fingers[0] + self._fingers[1]
            end = 7
        if self.task.has_object:
            numbers[end : end + 3] = self._cube_pose[:3]
            numbers[end + 3 : end + 6] = _euler(self._cube_rotation.tolist())
            numbers[end + 6 : end + 9] = self._cube_speed
            np.dot(
                self._cube_rotation.reshape(3, 3), self._cube_spin, out=numbers[end + 9 : end + 12]
            )
            numbers[-6:-3] = self._cube_pose[:3]
        else:
            numbers[-6:-3] = self._gripper
        return self._pack()

    def _observation(self, state: Observation) -> Observation:
        """Return what is observed of a state, which must be the present one."""
        self._state = state
        if self.obs_type == "state":
            return state
        pixels = {
            camera: self._pictures.render(self.data, camera, *self._observed_size)
            for camera in self._observed_cameras
        }
        if self.obs_type == "pixels_state":
            return {**state, "pixels": pixels}
        own = state["observation"][: self.task.proprioception_size]
        return {"agent_pos": own, "pixels": pixels}

    def _pack(self) -> tuple[Observation, list[float], list[float]]:
        """Copy the numbers into one new float32 block and name its parts."""
        block = self._numbers.astype(np.float32)
        np.maximum(block, -OBSERVATION_BOUND, out=block)
        np.minimum(block, OBSERVATION_BOUND, out=block)
        achieved, desired = block[-6:-3], block[-3:]
        observation = {
            "observation": block[:-6],
            "achieved_goal": achieved,
            "desired_goal": desired,
        }
        return observation, achieved.tolist(), desired.tolist()


def _euler(rotation: list[float]) -> tuple[float, float, float]:
    """Return roll, pitch and yaw in radians (about fixed x, y, z) of a row-major matrix."""
    pitch = math.asin(min(max(-rotation[6], -1.0), 1.0))
    roll = math.atan2(rotation[7], rotation[8])
    return roll, pitch, math.atan2(rotation[3], rotation[0])


def _check(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise EnvError(
            f"{name}={value!r} does not exist; choose one of {', '.join(map(repr, allowed))}"
        )
