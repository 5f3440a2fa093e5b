"""How the arm moves, against what panda-gym 3.0.7 with PyBullet 3.2.7 was measured to do."""

import numpy as np
import pytest

from leray.envs.panda.env import PandaEnv

# Displacement in mm along the action, step by step from the neutral pose.
PUBLISHED_MM = {
    (1.0, 0.0, 0.0): (26.8, 26.1, 23.7, 20.8, 17.7, 14.5, 11.4, 8.7),
    (-1.0, 0.0, 0.0): (34.0, 32.3, 35.5, 34.7, 37.0, 34.8, 37.9, 34.6),
    (0.0, 1.0, 0.0): (24.4, 50.5, 42.4, 42.7, 42.2, 41.6, 40.8, 39.8),
    (0.0, -1.0, 0.0): (24.2, 50.4, 42.3, 42.8, 42.1, 41.4, 40.5, 39.5),
    (0.0, 0.0, 1.0): (10.5, 33.3, 40.9, 35.5, 38.0, 36.0, 36.1, 34.4),
    (0.0, 0.0, -1.0): (25.2, 58.6, 57.7),
    (0.2, 0.0, 0.0): (6.2, 6.1, 6.0, 5.9, 5.8, 5.7, 5.6, 5.5),
    (0.0, 0.2, 0.0): (8.2, 8.5, 8.4, 8.4, 8.4, 8.4, 8.4, 8.4),
    (0.0, 0.0, -0.2): (8.2, 8.4, 8.4, 8.4, 8.4, 8.5, 8.5, 8.5),
    (0.5, 0.5, 0.5): (24.1, 31.3, 26.9, 27.6, 25.1, 24.4, 22.2, 20.8),
}
# Path of the gripper in mm per step when one joint is driven at full scale.
PUBLISHED_JOINT_MM = {
    0: (20.8, 29.5, 25.6, 27.4, 26.5),
    1: (24.1, 37.7, 37.9, 37.9, 38.0),
    2: (23.3, 27.5, 26.2, 26.6, 26.4),
    3: (21.3, 24.9, 23.9, 24.2, 24.0),
    4: (4.6, 4.7, 4.7, 4.7, 4.7),
    5: (9.9, 10.1, 10.1, 10.0, 10.0),
}


def _gripper(env, action):
    return env.step(np.array(action, np.float32))[0]["observation"][:3].astype(float)


def _start(control="ee", task="reach"):
    env = PandaEnv(task, control)
    return env, env.reset(seed=1)[0]["observation"][:3].astype(float)


@pytest.mark.parametrize("action", PUBLISHED_MM)
def test_displacement_per_step(action):
    published = PUBLISHED_MM[action]
    env, at = _start()
    unit = np.array(action) / np.linalg.norm(action)
    moved = []
    for _ in published:
        before, at = at, _gripper(env, action)
        moved.append(1000 * (at - before) @ unit)
    tolerance = 1.0 + 6.0 * max(np.abs(action))  # a seventh of what is asked for
    np.testing.assert_allclose(moved, published, atol=tolerance)
    assert np.sqrt(np.mean((np.array(moved) - published) ** 2)) < 3.5


@pytest.mark.parametrize("joint", PUBLISHED_JOINT_MM)
def test_displacement_per_joint_step(joint):
    env, at = _start("joints")
    action = np.eye(7)[joint]
    moved = []
    for _ in range(5):
        before, at = at, _gripper(env, action)
        moved.append(1000 * np.linalg.norm(at - before))
    np.testing.assert_allclose(moved, PUBLISHED_JOINT_MM[joint], atol=3.0)


@pytest.mark.parametrize(
    ("action", "published"),
    [
        ((1, 0, 0), (0.5, 0.0, -1.1)),
        ((0, 1, 0), (-1.2, 5.8, 0.0)),
        ((0, 0, -1), (-14.7, 0.0, -45.9)),
    ],
)
def test_coasting_after_three_full_steps(action, published):
    env, _ = _start()
    for _ in range(3):
        stopped = _gripper(env, action)
    for _ in range(4):
        rest = _gripper(env, (0, 0, 0))
    np.testing.assert_allclose(1000 * (rest - stopped), published, atol=7.0)


def test_gripper_stays_where_it_is_without_action():
    env, start = _start()
    for _ in range(20):
        at = _gripper(env, (0, 0, 0))
    assert 1000 * np.linalg.norm(at - start) < 1.5  # published: 1.2


def test_gripper_stops_at_the_table():
    env, _ = _start()
    heights = [_gripper(env, (0, 0, -1))[2] for _ in range(12)]
    assert 0.0 <= heights[-1] <= 0.005
    assert min(heights) > -0.004


def test_finger_width_per_step():
    env = PandaEnv("pick_and_place")
    env.reset(seed=0)
    actions = [1.0] * 4 + [-1.0] * 4 + [0.2] * 2
    published = [0.0703, 0.0788, 0.0799, 0.08, 0.0097, 0.0012, 0.0001, 0.0, 0.0352, 0.0703]
    widths = [env.step(np.array([0, 0, 0, a]))[0]["observation"][6] for a in actions]
    np.testing.assert_allclose(widths, published, atol=0.003)


def test_proportional_controller_solves_reach():
    env, lengths = PandaEnv(), []
    for seed in range(100):
        observation, _ = env.reset(seed=seed)
        terminated, step = False, 0
        while not terminated and step < 50:
            offset = observation["desired_goal"] - observation["achieved_goal"]
            observation, _, terminated, _, _ = env.step(np.clip(20 * offset, -1, 1))
            step += 1
        assert terminated
        lengths.append(step)
    assert np.mean(lengths) == pytest.approx(2.67, abs=0.3)


def test_random_policy_rarely_solves_reach():
    env, solved = PandaEnv(), 0
    actions = np.random.default_rng(0)
    for seed in range(200):
        env.reset(seed=seed)
        solved += any(env.step(actions.uniform(-1, 1, 3))[2] for _ in range(50))
    assert solved / 200 == pytest.approx(0.15, abs=0.06)


def test_resting_cube_stays_at_rest():
    env = PandaEnv("push")
    start = env.reset(seed=0)[0]["achieved_goal"]
    for _ in range(50):
        observation = env.step(np.zeros(3))[0]
    np.testing.assert_allclose(observation["achieved_goal"], start, atol=2e-4)
    assert np.abs(observation["observation"][-6:]).max() < 1e-3


def test_cubes_orientation_and_spin_are_reported_in_the_worlds_frame():
    env = PandaEnv("push")
    env.reset(seed=0)
    roll, pitch, yaw = 0.3, -0.2, 0.5
    env.data.qpos[9:12] = (0.1, 0.1, 0.5)
    env.data.qpos[12:16] = _quaternion(roll, pitch, yaw)
    env.data.qvel[12:15] = (0.0, 0.0, 2.0)  # about the cube's own z axis
    state = env._observe()[0]["observation"][-12:]
    np.testing.assert_allclose(state[3:6], (roll, pitch, yaw), atol=1e-6)
    cos, sin = np.cos, np.sin
    own_z = (
        cos(yaw) * sin(pitch) * cos(roll) + sin(yaw) * sin(roll),
        sin(yaw) * sin(pitch) * cos(roll) - cos(yaw) * sin(roll),
        cos(pitch) * cos(roll),
    )
    np.testing.assert_allclose(state[9:12], 2.0 * np.array(own_z), atol=1e-6)


def test_held_cube_is_carried_and_does_not_slip():
    env = PandaEnv("pick_and_place")
    observation, _ = env.reset(seed=1)
    env.data.qpos[9:11] = observation["observation"][:2]
    for action in [(0, 0, -0.5, 1)] * 14 + [(0, 0, 0, -1)] * 4 + [(0, 0, 0.3, -1)] * 10:
        observation = env.step(np.array(action, np.float32))[0]
    offset = observation["achieved_goal"] - observation["observation"][:3]
    assert observation["achieved_goal"][2] > 0.08
    assert observation["observation"][6] == pytest.approx(0.0395, abs=0.001)
    for _ in range(40):
        observation = env.step(np.array([0, 0, 0, -1.0]))[0]
    slipped = observation["achieved_goal"] - observation["observation"][:3] - offset
    assert np.linalg.norm(slipped) < 0.003


def _quaternion(roll, pitch, yaw):
    (cr, cp, cy), (sr, sp, sy) = (
        np.cos([roll / 2, pitch / 2, yaw / 2]),
        np.sin([roll / 2, pitch / 2, yaw / 2]),
    )
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )
