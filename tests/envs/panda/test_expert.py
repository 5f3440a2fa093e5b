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


def test_expert_of_a_wrapped_env_takes_its_control_type():
    panda.register()
    env = gym.make("leray/PandaPushJoints-v3")
    observation, _ = env.reset(seed=0)
    assert make_expert(env).act(observation).shape == (7,)


@pytest.mark.parametrize(("task", "control"), [("stack", "ee"), ("reach", "velocity")])
def test_unknown_task_or_control_is_refused(task, control):
    with pytest.raises(EnvError, match="no expert for task"):
        make_expert(task, control)
