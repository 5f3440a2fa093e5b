"""The published definition of panda-gym 3.0.7, point by point."""

import numpy as np
import pytest

from leray.envs.panda.env import PandaEnv
from leray.errors import EnvError

SIZES = {"reach": 6, "push": 18, "pick_and_place": 19}
ACTIONS = {
    ("reach", "ee"): 3,
    ("push", "ee"): 3,
    ("pick_and_place", "ee"): 4,
    ("reach", "joints"): 7,
    ("push", "joints"): 7,
    ("pick_and_place", "joints"): 8,
}


@pytest.mark.parametrize(("task", "control"), ACTIONS)
def test_spaces(task, control):
    env = PandaEnv(task, control)
    assert env.action_space.shape == (ACTIONS[task, control],)
    assert (env.action_space.low == -1).all()
    assert (env.action_space.high == 1).all()
    sizes = {key: space.shape for key, space in env.observation_space.items()}
    assert sizes == {
        "observation": (SIZES[task],),
        "achieved_goal": (3,),
        "desired_goal": (3,),
    }
    for space in env.observation_space.values():
        assert space.dtype == np.float32
        assert (space.low == -10).all()
        assert (space.high == 10).all()


@pytest.mark.parametrize("task", SIZES)
def test_episode_starts_at_rest_in_the_neutral_pose(task):
    env = PandaEnv(task)
    env.reset(seed=3)
    env.step(env.action_space.high)
    observation, info = env.reset(seed=0)
    state = observation["observation"]
    np.testing.assert_allclose(state[:3], [0.0384, 0.0, 0.1974], atol=1e-4)
    assert (state[3:6] == 0).all()
    assert set(info) == {"is_success"}
    if task == "pick_and_place":
        assert state[6] == 0.0
    if task != "reach":
        cube = state[-12:]
        np.testing.assert_array_equal(cube[:3], observation["achieved_goal"])
        assert cube[2] == np.float32(0.02)
        assert (cube[3:] == 0).all()


@pytest.mark.parametrize("task", SIZES)
def test_achieved_goal_is_the_gripper_or_the_cube(task):
    env = PandaEnv(task)
    env.reset(seed=0)
    observation = env.step(env.action_space.sample())[0]
    state = observation["observation"]
    tracked = state[:3] if task == "reach" else state[-12:-9]
    np.testing.assert_array_equal(observation["achieved_goal"], tracked)
    assert env.end_effector_slice == (0, 3)


@pytest.mark.parametrize("reward_type", ["sparse", "dense"])
@pytest.mark.parametrize("task", SIZES)
def test_rewards_of_steps_are_those_of_compute_reward(task, reward_type):
    env = PandaEnv(task, reward_type=reward_type)
    env.action_space.seed(0)
    rows = []
    for seed in range(12):
        env.reset(seed=seed)
        for _ in range(5):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            apart = np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"])
            assert isinstance(reward, float)
            assert isinstance(terminated, bool)
            assert not truncated
            assert terminated == info["is_success"] == (apart < 0.05)
            expected = -apart if reward_type == "dense" else -float(apart > 0.05)
            assert reward == pytest.approx(expected, abs=1e-6)
            rows.append((observation["achieved_goal"], observation["desired_goal"], reward))
    achieved, desired, rewards = map(np.array, zip(*rows, strict=True))
    ended = np.linalg.norm(achieved - desired, axis=-1) < 0.05
    np.testing.assert_array_equal(env.compute_terminated(achieved, desired, {}), ended)
    assert env.compute_terminated(achieved[0], desired[0], {}) is bool(ended[0])
    np.testing.assert_array_equal(env.compute_reward(achieved, desired, {}), rewards)
    assert env.compute_reward(achieved[0], desired[0], {}) == rewards[0]
    square = env.compute_reward(achieved.reshape(4, -1, 3), desired.reshape(4, -1, 3), {})
    np.testing.assert_array_equal(square, rewards.reshape(4, -1))


def test_threshold_is_five_centimetres():
    env = PandaEnv()
    achieved = np.array([[0.0499, 0, 0], [0.0501, 0, 0]])
    assert env.compute_reward(achieved, np.zeros(3), {}).tolist() == [0.0, -1.0]


@pytest.mark.parametrize(("task", "share"), [("reach", 0.026), ("pick_and_place", 0.044)])
def test_share_solved_at_reset_is_the_published_one(task, share):
    env = PandaEnv(task)
    solved = [env.reset(seed=seed)[1]["is_success"] for seed in range(500)]
    assert np.mean(solved) == pytest.approx(share, abs=1e-9)


def test_actions_are_clipped():
    outcomes = []
    for action in ([1, -1, 1], [9, -7, 3]):
        env = PandaEnv()
        env.reset(seed=0)
        outcomes.append(env.step(np.array(action, np.float32))[0]["observation"])
    np.testing.assert_array_equal(*outcomes)


def test_observations_stay_valid_after_the_next_step():
    env = PandaEnv("pick_and_place")
    first, _ = env.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    env.step(env.action_space.high)
    for key, value in kept.items():
        np.testing.assert_array_equal(first[key], value)


@pytest.mark.parametrize("action", [np.zeros(4), np.zeros((1, 3)), 0.5])
def test_action_of_another_shape_is_refused(action):
    env = PandaEnv("reach")
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"it takes \(3,\)"):
        env.step(action)


@pytest.mark.parametrize("value", [np.nan])
def test_action_that_is_no_number_is_refused(value):
    env = PandaEnv("reach")
    env.reset(seed=0)
    with pytest.raises(EnvError, match="not finite"):
        env.step(np.full(3, value))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"task": "stack"},
        {"control_type": "velocity"},
        {"reward_type": "shaped"},
        {"render_mode": "human"},
    ],
)
def test_unknown_argument_is_refused_with_the_choices(kwargs):
    with pytest.raises(EnvError, match="choose one of"):
        PandaEnv(**kwargs)


def test_task_description_names_the_task():
    assert PandaEnv("pick_and_place").task_description == (
        "pick up the cube and place it at the goal"
    )
