"""Goal tasks: where the goals lie, and what an environment must answer."""

import gymnasium as gym
import numpy as np
import pytest

from leray.envs.config import GymEnvConfig
from leray.envs.goals import goal_task
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap

SPACE = gym.spaces.Dict(
    {
        key: gym.spaces.Box(-1, 1, (2,), np.float32)
        for key in ("observation", "achieved_goal", "desired_goal")
    }
)


class OneGoalAtATime(gym.Env):
    """Rewards that cannot be asked for in numbers."""

    observation_space = SPACE
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, refuses=False):
        self.refuses = refuses

    def compute_reward(self, achieved_goal, desired_goal, info):
        if self.refuses and achieved_goal.ndim > 1:
            raise ValueError("one goal, please")
        return float(np.linalg.norm(achieved_goal - desired_goal))


class NoTermination(OneGoalAtATime):
    """Reaching the goal ends nothing."""

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -np.linalg.norm(achieved_goal - desired_goal, axis=-1)


@pytest.mark.parametrize("goal_relative", [True, False])
def test_the_layout_names_the_columns_of_the_observation(goal_relative):
    env = make_env(GymEnvConfig(task="PandaPush-v3"))
    mapping = ObservationMap(env, goal_relative=goal_relative)
    raw = env.reset(seed=0)[0]
    layout, parts = mapping.goals, mapping(raw)
    vector = parts[layout.key]
    np.testing.assert_array_equal(vector[layout.achieved], raw["achieved_goal"])
    np.testing.assert_array_equal(vector[layout.desired], raw["desired_goal"])
    assert (layout.offset is not None) is goal_relative
    if goal_relative:
        apart = raw["desired_goal"] - raw["achieved_goal"]
        np.testing.assert_allclose(vector[layout.offset], apart, atol=1e-7)


def test_rewards_and_ends_of_many_goals_are_the_environments():
    env = make_env(GymEnvConfig(task="PandaPickAndPlace-v3"))
    task = goal_task(env, ObservationMap(env, goal_relative=True).goals)
    achieved = np.array([[0, 0, 0.02], [0.1, 0, 0.02]], np.float32)
    desired = np.array([[0.04, 0, 0.02], [0.1, 0, 0.1]], np.float32)
    assert task.reward(achieved, desired).tolist() == [0, -1]
    assert task.terminated(achieved, desired).tolist() == [True, False]


def test_an_environment_without_goals_has_no_goal_task():
    env = make_env(GymEnvConfig(task="Pendulum-v1"))
    assert goal_task(env, ObservationMap(env, goal_relative=True).goals) is None


def test_without_compute_terminated_nothing_ends():
    env = NoTermination()
    task = goal_task(env, ObservationMap(env, goal_relative=True).goals)
    assert task.terminated(np.zeros((3, 2)), np.zeros((3, 2))).tolist() == [False] * 3


@pytest.mark.parametrize("refuses", [False, True])
def test_rewards_of_one_goal_at_a_time_are_asked_one_by_one(refuses):
    env = OneGoalAtATime(refuses=refuses)
    task = goal_task(env, ObservationMap(env, goal_relative=True).goals)
    achieved = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    assert task.reward(achieved, np.zeros((3, 2), np.float32)).tolist() == [0, 5, 10]
    assert task.reward(achieved[:0], achieved[:0]).shape == (0,)
