"""Inverse kinematics of one control step, and the arm's geometry in plain numpy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

NEUTRAL_JOINTS = (0.0, 0.41, 0.0, -1.85, 0.0, 2.26, 0.79)
"""Joint angles in radians at the start of each episode: gripper at (0.0384, 0, 0.1974) m."""

DAMPING = 0.45
"""Damping of each least-squares pass (metres and radians per radian)."""

_PER_DAMPING_SQUARED = DAMPING**-2
_IDENTITY = np.eye(6)


def damped_step(jacobian: Float, error: Float) -> Float:
    """Return the joint step of eight passes of damped least squares on one linearisation.

    With B = d^2 (J J^T + d^2 I)^-1 a pass leaves the share B of the error, and the passes add up to
    dq = J^T (B + B^2 + ... + B^8) error / d^2, summed here by doubling.

    Well-conditioned directions are solved to a percent; ill-conditioned ones only in part, which
    keeps joint steps short near the stretched arm.

    Args:
        jacobian: rows of translation, then rotation, shape [6, 7].
        error: position in metres, then rotation vector in radians, shape [6].

    Returns:
        Joint step in radians, shape [7].
    """
    share = np.linalg.inv(jacobian.dot(jacobian.T) * _PER_DAMPING_SQUARED + _IDENTITY)
    step = share.dot(error)
    step += share.dot(step)
    for _ in range(2):
        share = share.dot(share)
        step += share.dot(step)
    step *= _PER_DAMPING_SQUARED
    return np.asarray(jacobian.T.dot(step))


def pointing_down_error(rotation: list[float]) -> tuple[float, float, float]:
    """Return the rotation vector (small angles, radians) from a gripper pose to pointing down.

    Half the sum of the cross products of the axes with their goals x, -y and -z.

    Args:
        rotation: the gripper's rotation matrix, row by row, 9 numbers.
    """
    return (
        0.5 * (rotation[7] - rotation[5]),
        0.5 * (rotation[6] + rotation[2]),
        -0.5 * (rotation[3] + rotation[1]),
    )


_BASE_X_M = -0.6
_TOOL_M = 0.107 + 0.105
"""From the last joint's frame to the flange, and on to the point between the fingertips."""
_HAND_YAW_RAD = -np.pi / 4
_DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
"""Franka's modified (Craig) Denavit-Hartenberg table: a and d in m, alpha in rad, per joint."""


class ArmPose(NamedTuple):
    """Where the gripper is for given joint angles."""

    position: Float
    """Metres in the table's frame, shape [3]."""
    rotation: Float
    """Shape [3, 3]."""
    jacobian: Float
    """Translation, then rotation, per joint, shape [6, 7]."""


def arm_pose(angles: Float) -> ArmPose:
    """Return the gripper's pose and Jacobian in plain numpy, for code without a simulator.

    Args:
        angles: joint angles in radians, shape [7].
    """
    position, rotation = np.array([_BASE_X_M, 0.0, 0.0]), np.eye(3)
    axes, origins = np.empty((7, 3)), np.empty((7, 3))
    for joint, (a, d, alpha) in enumerate(_DH):
        cos, sin = np.cos(alpha), np.sin(alpha)
        position = position + rotation @ (a, -sin * d, cos * d)
        rotation = rotation @ ((1.0, 0.0, 0.0), (0.0, cos, -sin), (0.0, sin, cos))
        origins[joint], axes[joint] = position, rotation[:, 2]
        rotation = rotation @ _about_z(float(angles[joint]))
    position = position + _TOOL_M * rotation[:, 2]
    rotation = rotation @ _about_z(_HAND_YAW_RAD)
    jacobian = np.concatenate([np.cross(axes, position - origins).T, axes.T])
    return ArmPose(position, rotation, jacobian)


def _about_z(angle: float) -> Float:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
