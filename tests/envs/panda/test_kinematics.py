import mujoco
import numpy as np
import pytest

from leray.envs.panda.kinematics import (
    NEUTRAL_JOINTS,
    arm_pose,
    damped_step,
    pointing_down_error,
)
from leray.envs.panda.model import load_model


def _simulated(angles):
    model = load_model("reach.xml")
    data = mujoco.MjData(model)
    data.qpos[:7] = angles
    mujoco.mj_forward(model, data)
    site = data.site("end_effector")
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site.id)
    return site.xpos.copy(), site.xmat.reshape(3, 3).copy(), jacobian[:, :7]


def test_neutral_pose_is_the_published_one():
    position, rotation, _ = _simulated(NEUTRAL_JOINTS)
    np.testing.assert_allclose(position, [0.0384, 0.0, 0.1974], atol=5e-5)
    np.testing.assert_allclose(rotation[:, 2], [0.0, 0.0, -1.0], atol=1e-3)


@pytest.mark.parametrize(
    ("joints", "tcp"),
    [
        # Franka's ready pose and another, tool centre at 0.1034 m of the hand, in the base's frame.
        ((0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4), (0.3069, 0.0, 0.4869)),
        ((0, 0, 0, -np.pi / 2, 0, np.pi / 2, -np.pi / 4), (0.5545, 0.0, 0.5211)),
    ],
)
def test_published_poses(joints, tcp):
    position, rotation, _ = _simulated(joints)
    at_tcp = position - (0.105 - 0.1034) * rotation[:, 2] + [0.6, 0.0, 0.0]
    np.testing.assert_allclose(at_tcp, tcp, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_numpy_arm_agrees_with_the_model(seed):
    angles = np.array(NEUTRAL_JOINTS) + np.random.default_rng(seed).uniform(-0.5, 0.5, 7)
    position, rotation, jacobian = _simulated(angles)
    pose = arm_pose(angles)
    np.testing.assert_allclose(pose.position, position, atol=1e-6)
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-6)
    np.testing.assert_allclose(pose.jacobian, jacobian, atol=1e-6)


def test_damped_step_is_eight_passes_of_damped_least_squares():
    jacobian = arm_pose(np.array(NEUTRAL_JOINTS)).jacobian
    error = np.array([0.01, -0.02, 0.03, 0.02, 0.01, -0.01])
    angles, left = np.zeros(7), error
    for _ in range(8):
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 0.45**2 * np.eye(6), left)
        angles, left = angles + step, left - jacobian @ step
    np.testing.assert_allclose(damped_step(jacobian, error), angles, rtol=1e-9)


@pytest.mark.parametrize("axis", range(3))
def test_pointing_down_error_undoes_a_small_turn(axis):
    turn = np.zeros(3)
    turn[axis] = 1e-3
    cross = np.cross(np.eye(3), turn)  # rows: e_i x turn, so that its transpose is -[turn]x
    rotation = (np.eye(3) - cross.T).T @ np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(
        pointing_down_error(rotation.ravel().tolist()), _applied(rotation), atol=1e-9
    )
    assert np.abs(_applied(rotation)).argmax() == axis


def _applied(rotation):
    """Rotation vector that takes `rotation` to pointing down, to first order."""
    difference = np.diag([1.0, -1.0, -1.0]) @ rotation.T
    skew = (difference - difference.T) / 2
    return np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
