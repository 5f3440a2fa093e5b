import gymnasium as gym
import numpy as np
import pytest

from leray.envs import panda
from leray.envs.panda.env import PandaEnv
from leray.envs.panda.expert import make_expert
from leray.errors import EnvError

CASES = [
    (task, control) for task in ("reach", "push", "pick_and_place") for control in ("ee", "joints")
]
# Mean steps of a solved episode, measured over seeds 0..199, with a fifth of slack.
MEAN_STEPS = {
    ("reach", "ee"): 3.5,
    ("reach", "joints"): 7.5,
    ("push", "ee"): 19.0,
    ("push", "joints"): 27.0,
    ("pick_and_place", "ee"): 15.0,
    ("pick_and_place", "joints"): 25.0,
}


def _solve(task, control, seeds, **kwargs):
    """Run the expert; return whether each seed is solved and after how many steps."""
    env = PandaEnv(task, control)
    expert = make_expert(env, **kwargs)
    solved, steps = [], []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        expert.reset()
        terminated, step = False, 0
        while not terminated and step < 50:
            observation, _, terminated, _, _ = env.step(expert.act(observation))
            step += 1
        solved.append(terminated)
        steps.append(step)
    return np.array(solved), np.array(steps)


@pytest.mark.parametrize(("task", "control"), CASES)
def test_expert_solves_the_task(task, control):
    solved, steps = _solve(task, control, range(25))
    assert solved.all()
    assert steps.mean() < MEAN_STEPS[task, control]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "control"), CASES)
def test_expert_solves_nearly_all_of_two_hundred_seeds(task, control):
    solved, steps = _solve(task, control, range(200))
    assert solved.mean() >= 0.98
    assert steps[solved].mean() < MEAN_STEPS[task, control]


@pytest.mark.parametrize("task", ["reach", "push", "pick_and_place"])
def test_noisy_expert_still_solves_most(task):
    solved, _ = _solve(task, "ee", range(20), noise=0.1, seed=0)
    assert solved.mean() >= 0.9


def test_actions_are_valid_and_a_function_of_what_was_observed():
    env = PandaEnv("pick_and_place")
    first, second = make_expert(env), make_expert("pick_and_place")
    observation, _ = env.reset(seed=0)
    for _ in range(12):
        action = first.act(observation)
        assert env.action_space.contains(action)
        np.testing.assert_array_equal(action, second.act(observation))
        observation = env.step(action)[0]


def test_noise_varies_the_arm_and_repeats_with_its_seed():
    observation, _ = PandaEnv("pick_and_place").reset(seed=0)
    clean, noisy, again, other = (
        make_expert("pick_and_place", noise=noise, seed=seed).act(observation)
        for noise, seed in ((0.0, 0), (0.2, 0), (0.2, 0), (0.2, 1))
    )
    np.testing.assert_array_equal(noisy, again)
    assert not np.array_equal(clean, noisy)
    assert not np.array_equal(noisy, other)
    assert clean[-1] == noisy[-1]


def test_noise_has_nothing_to_do_with_the_goal_of_the_same_seed():
    env, noise, goals = PandaEnv("reach"), [], []
    for seed in range(300):
        observation, _ = env.reset(seed=seed)
        expert = make_expert("reach", noise=0.1, seed=seed)
        noise.append(expert._rng.standard_normal(3))
        goals.append(observation["desired_goal"])
    for goal in np.transpose(goals):
        for values in np.transpose(noise):
            # A correlation of chance has a standard deviation of 1 / sqrt(300) = 0.06.
            assert abs(np.corrcoef(goal, values)[0, 1]) < 0.23
            assert abs(np.corrcoef(goal, np.abs(values))[0, 1]) < 0.23


def test_a_seed_restarts_what_is_left_to_chance():
    observation, _ = PandaEnv("reach").reset(seed=0)
    expert = make_expert("reach", noise=0.2)
    drawn = []
    for seed in (4, None, 4, 5):
        expert.reset(seed)
        drawn.append(expert.act(observation).tobytes())
    assert drawn[0] == drawn[2]
    assert len(set(drawn)) == 3


def test_expert_of_a_wrapped_env_takes_its_control_type():
    panda.register()
    env = gym.make("leray/PandaPushJoints-v3")
    observation, _ = env.reset(seed=0)
    assert make_expert(env).act(observation).shape == (7,)


@pytest.mark.parametrize(("task", "control"), [("stack", "ee"), ("reach", "velocity")])
def test_unknown_task_or_control_is_refused(task, control):
    with pytest.raises(EnvError, match="no expert for task"):
        make_expert(task, control)
