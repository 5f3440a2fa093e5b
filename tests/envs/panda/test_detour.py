"""The pillar and the two ways around it."""

import numpy as np
import pytest

from leray.envs.panda.env import PandaEnv
from leray.envs.panda.expert import EndEffectorController, Expert, make_expert
from leray.envs.panda.model import load_model
from leray.envs.panda.pillar import Pillar
from leray.envs.panda.plans import DetourPlan
from leray.envs.panda.tasks import TASKS, TOUCH_REWARD

PILLAR = TASKS["detour"].pillar


def one_sided(side):
    return Expert(DetourPlan(PILLAR, side), EndEffectorController(), has_fingers=False)


def episode(env, act, seed):
    """Return the gripper's path, the sum of rewards, and whether the goal was reached."""
    observation, _ = env.reset(seed=seed)
    path, rewards, ended = [], [], False
    while not ended and len(path) < 50:
        path.append(observation["observation"][:3])
        observation, reward, ended, _, info = env.step(act(observation))
        rewards.append(reward)
    return np.array(path), rewards, info["is_success"]


@pytest.mark.parametrize("control", ["ee", "joints"])
def test_the_expert_always_arrives_and_takes_each_side_half_of_the_time(control):
    env = PandaEnv("detour", control)
    expert, sides = make_expert(env), []
    for seed in range(40):
        expert.reset(seed)
        path, _, success = episode(env, expert.act, seed)
        assert success
        sides.append(PILLAR.side(path))
    assert 0.3 < np.mean([side == "left" for side in sides]) < 0.7
    assert set(sides) == {"left", "right"}


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_side_can_be_taken_always(side):
    env, expert = PandaEnv("detour"), one_sided(side)
    for seed in range(30):
        expert.reset(seed)
        path, rewards, success = episode(env, expert.act, seed)
        assert success
        assert PILLAR.side(path) == side
        assert rewards == [-1.0] * (len(path) - 1) + [0.0]
        assert 12 <= len(path) <= 25
        apart = np.hypot(path[:, 0] - PILLAR.x_m, path[:, 1] - PILLAR.y_m)
        assert apart.min() > PILLAR.touch_m + 0.01  # room for what learning misses


def test_the_mean_of_both_ways_runs_into_the_pillar():
    env, left, right = PandaEnv("detour"), one_sided("left"), one_sided("right")
    for seed in range(10):
        for expert in (left, right):
            expert.reset(seed)
        path, rewards, success = episode(
            env, lambda seen: (left.act(seen) + right.act(seen)) / 2, seed
        )
        assert not success
        assert rewards[-1] == TOUCH_REWARD
        assert PILLAR.side(path) is None


def test_a_seed_gives_the_side_and_says_nothing_of_the_goal():
    plan = DetourPlan(PILLAR)
    expert = Expert(plan, EndEffectorController(), has_fingers=False)
    env, sides, goals = PandaEnv("detour"), [], []
    for seed in range(400):
        expert.reset(seed)
        sides.append(plan.side == "left")
        goals.append(env.reset(seed=seed)[0]["desired_goal"])
    expert.reset(7)
    assert (plan.side == "left") == sides[7]
    # Standard deviation of the share: 0.5 / sqrt(400) = 0.025; of a correlation: 0.05.
    assert np.mean(sides) == pytest.approx(0.5, abs=0.08)
    for axis in np.transpose(goals):
        assert abs(np.corrcoef(axis, sides)[0, 1]) < 0.16


def test_the_pillar_that_is_seen_is_the_one_that_is_touched():
    geom = load_model("detour.xml").geom("pillar")
    assert geom.pos.tolist() == [PILLAR.x_m, PILLAR.y_m, PILLAR.height_m / 2]
    assert geom.size[:2].tolist() == [PILLAR.radius_m, PILLAR.height_m / 2]
    assert not geom.contype[0]
    assert not geom.conaffinity[0]


def test_goals_lie_behind_the_pillar_and_clear_of_it():
    rng = np.random.default_rng(0)
    goals = np.array([TASKS["detour"].sample_goal(rng) for _ in range(1000)])
    assert not PILLAR.touched(goals).any()
    np.testing.assert_allclose(goals.min(axis=0), (0.02, -0.03, 0.04), atol=1e-3)
    np.testing.assert_allclose(goals.max(axis=0), (0.08, 0.03, 0.08), atol=1e-3)
    start = PandaEnv("detour").reset(seed=0)[0]["achieved_goal"]
    np.testing.assert_allclose(start, (-0.25, 0.0, 0.06), atol=1e-3)


def test_touching_is_a_matter_of_distance_and_height():
    pillar = Pillar(x_m=1.0, y_m=2.0, radius_m=0.075, height_m=0.5)
    assert pillar.touch_m == pytest.approx(0.1)
    points = [(1.09, 2.0, 0.0), (1.11, 2.0, 0.0), (1.0, 1.91, 0.49), (1.0, 1.91, 0.51)]
    assert pillar.touched(np.array(points)).tolist() == [True, False, True, False]
    assert [pillar.touched_by(list(point)) for point in points] == [True, False, True, False]
    assert pillar.touched(np.array(points[0])).shape == ()


def test_sides_are_those_of_the_crossing():
    pillar = Pillar(x_m=0.0, y_m=0.5, radius_m=0.1, height_m=1.0)
    left = np.array([(-1.0, 0.0, 0.0), (-0.5, 0.9, 0.0), (0.1, 0.8, 0.0), (1.0, 0.0, 0.0)])
    assert pillar.side(left) == "left"
    assert pillar.side(left * (1, -1, 1)) == "right"
    assert pillar.side(left[:2]) is None


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
def test_rewards_and_ends_of_touching_are_functions_of_where_the_gripper_is(reward_type):
    env = PandaEnv("detour", reward_type=reward_type)
    rng, touched = np.random.default_rng(0), 0
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        terminated, step = False, 0
        while not terminated and step < 20:
            action = np.array([0.6, *rng.uniform(-0.6, 0.6, 2)])
            observation, reward, terminated, _, info = env.step(action)
            goals = observation["achieved_goal"], observation["desired_goal"]
            assert env.compute_reward(*goals, {}) == reward
            assert env.compute_terminated(*goals, {}) is terminated
            assert not (info["is_success"] and reward == TOUCH_REWARD)
            touched += reward == TOUCH_REWARD
            step += 1
    assert touched >= 3
    many = np.array([[PILLAR.x_m, PILLAR.y_m, 0.05], goals[1]])
    assert env.compute_reward(many, np.stack([goals[1]] * 2), {})[0] == TOUCH_REWARD
    assert env.compute_terminated(many, np.stack([goals[1]] * 2), {}).tolist() == [True, True]
