"""Whole episodes with fixed seeds."""

import av
import gymnasium as gym
import numpy as np
import pytest

from leray.envs.config import GymEnvConfig
from leray.envs.episodes import random_act, run_episodes
from leray.envs.panda.rendering import rendering_available
from leray.errors import EnvError

STATE = "observation.state"


@pytest.fixture
def scripted(scripted_env):
    """Register the scripted world and give configs of it."""
    gym.register("test/Scripted-v0", entry_point=scripted_env)
    yield lambda **kwargs: GymEnvConfig(task="test/Scripted-v0", kwargs=kwargs)
    del gym.registry["test/Scripted-v0"]


def still(observations, slots):
    return np.zeros((len(observations[STATE]), 2), np.float32)


def run(config, act, *, indices=range(5), num_envs=2, seed=100, **options):
    return run_episodes(config, act, indices=list(indices), seed=seed, num_envs=num_envs, **options)


def test_the_result_of_an_episode(scripted):
    (result,) = run(scripted(length=3, success=2), still, indices=[4])
    assert (result.index, result.seed, result.length) == (4, 104, 3)
    assert (result.sum_reward, result.max_reward, result.success) == (6.0, 3.0, True)
    assert result.video_path is None


def test_success_counts_when_reached_once_and_is_none_where_not_reported(scripted):
    (failed,) = run(scripted(success=9), still, indices=[0])
    (unknown,) = run(scripted(), still, indices=[0])
    assert failed.success is False
    assert unknown.success is None


def feedback(observations, slots):
    """A policy that sees each environment's own state only."""
    state = observations[STATE]
    return np.clip(-2 * state[:, 1:2] - 0.5 * state[:, 2:3], -1, 1).astype(np.float32)


def test_results_do_not_depend_on_how_many_run_side_by_side():
    config = GymEnvConfig(task="Pendulum-v1", max_episode_steps=20)
    alone, three, all_at_once = (run(config, feedback, num_envs=n) for n in (1, 3, 8))
    assert alone == three == all_at_once
    assert len({result.sum_reward for result in alone}) == 5  # each its own start


def test_an_episode_is_the_same_whatever_runs_before_it():
    config = GymEnvConfig(task="PandaReach-v3")

    def act(observations, slots):
        offset = observations["observation.environment_state"][:, 6:9]
        return np.clip(5 * offset, -1, 1).astype(np.float32)

    whole = run(config, act, indices=range(4))
    parts = run(config, act, indices=[1, 3]) + run(config, act, indices=[2, 0])
    assert sorted(parts, key=lambda result: result.index) == whole
    assert all(result.success for result in whole)


def test_results_are_in_the_order_asked_for(scripted):
    results = run(scripted(), still, indices=[3, 1, 2], num_envs=2)
    assert [result.index for result in results] == [3, 1, 2]


def test_the_policy_is_asked_for_running_episodes_only(scripted):
    asked = []

    def act(observations, slots):
        asked.append((slots, len(observations[STATE])))
        return still(observations, slots)

    run(scripted(length=2), act, indices=range(3), num_envs=2)
    assert asked == [([0, 1], 2), ([0, 1], 2), ([0], 1), ([0], 1)]


class Counting:
    """A policy with memory: it acts by how many steps it has seen of a slot's episode."""

    def __init__(self):
        self.seen = {}
        self.begun = []

    def begin(self, slot):
        self.begun.append(slot)
        self.seen[slot] = 0

    def act(self, observations, slots):
        steps = observations[STATE][:, 1]
        assert [self.seen[slot] for slot in slots] == steps.tolist()
        for slot in slots:
            self.seen[slot] += 1
        return still(observations, slots)


@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_a_policy_with_memory_hears_of_each_start_before_it_acts(scripted, num_envs):
    policy = Counting()
    run(scripted(length=4), policy.act, indices=range(5), num_envs=num_envs, on_begin=policy.begin)
    assert policy.begun == [episode % num_envs for episode in range(5)]


def test_environments_are_closed_even_if_the_policy_fails(scripted, scripted_env, monkeypatch):
    closed = []
    monkeypatch.setattr(scripted_env, "close", lambda self: closed.append(self))

    def act(observations, slots):
        raise RuntimeError("the policy is broken")

    with pytest.raises(RuntimeError, match="broken"):
        run(scripted(), act, num_envs=3)
    assert len(closed) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["next.reward", "observation.state"])
def test_what_is_no_number_is_refused_by_name(scripted, name, value):
    def change(observation, reward):
        if name == "next.reward":
            return observation, value
        return np.array([0, 1, value], np.float32), reward

    message = f"environment test/Scripted-v0 returned {value} in {name} |returned {value} as {name}"
    with pytest.raises(EnvError, match=message):
        run(scripted(change=change), still)


def test_only_the_first_episodes_are_filmed(scripted, tmp_path):
    results = run(
        scripted(length=4), still, indices=range(4), video_folder=tmp_path, max_rendered=2
    )
    paths = [result.video_path for result in results]
    assert paths == [f"{tmp_path}/eval_episode_0.mp4", f"{tmp_path}/eval_episode_1.mp4", None, None]
    with av.open(paths[1]) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10  # the environment's own rate
    assert len(frames) == 5  # the first observation and four steps
    assert [round(frame.mean() / 20) for frame in frames] == [0, 1, 2, 3, 4]


def test_filming_does_not_change_the_results(scripted, tmp_path):
    filmed = run(scripted(), still, video_folder=tmp_path, max_rendered=3)
    plain = run(scripted(), still)
    assert [r.sum_reward for r in filmed] == [r.sum_reward for r in plain]


def test_a_panda_episode_is_filmed(tmp_path):
    if not rendering_available():
        pytest.skip("no OpenGL backend works on this machine")
    config = GymEnvConfig(task="PandaReach-v3", max_episode_steps=3)
    act, close = random_act(config, seed=0)
    (result,) = run(config, act, indices=[0], video_folder=tmp_path, max_rendered=1)
    close()
    with av.open(result.video_path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == result.length + 1
    assert frames[0].std() > 5  # not a blank picture


def test_random_actions_depend_on_the_seed():
    config = GymEnvConfig(task="Pendulum-v1")
    observations = {STATE: np.zeros((3, 3), np.float32)}
    actions = []
    for seed in (1, 1, 2):
        act, close = random_act(config, seed)
        actions.append(act(observations, [0, 1, 2]))
        close()
    assert actions[0].shape == (3, 1)
    assert np.array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
