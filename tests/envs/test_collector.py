"""Fragments as they are collected: rows, ends, cuts at crashes, numbers that are none."""

import functools

import numpy as np
import pytest

from leray.data.names import DONE, REWARD, TRUNCATED
from leray.envs.collector import Collector
from leray.envs.vector import VectorEnv
from leray.errors import EnvError

STATE = "observation.state"


def still(observations):
    return np.zeros((len(observations[STATE]), 2), np.float32)


@pytest.fixture
def collector(scripted_env):
    def build(num_envs=2, first_stream=10, seeds=None, **options):
        envs = VectorEnv(
            functools.partial(scripted_env, **options),
            num_envs,
            goal_relative=False,
            seeds=range(num_envs) if seeds is None else seeds,
        )
        return Collector(envs, first_stream=first_stream, runner=4)

    return build


def crash_once_at(step_ever):
    """Return a `crash` that is true at one step, counted over all episodes and environments."""
    count = iter(range(1, 1 << 30))
    return lambda *_: next(count) == step_ever


def rows(fragment, env=0):
    """Episode and step of each observation of one environment."""
    return fragment.columns[STATE][:, env, :2].astype(int).tolist()


@pytest.mark.parametrize("terminates", [True, False])
def test_rows_finals_and_tail_of_a_fragment(collector, terminates):
    fragment = collector(length=3, terminates=terminates).collect(5, still, policy_version=7)
    assert fragment.shape == (5, 2)
    assert rows(fragment) == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]
    assert fragment.columns[REWARD][:, 0].tolist() == [1, 2, 3, 1, 2]
    flags = [[False] * 5, [False] * 5]
    flags[0 if terminates else 1][2] = True
    assert fragment.columns[DONE][:, 1].tolist() == flags[0]
    assert fragment.columns[TRUNCATED][:, 1].tolist() == flags[1]
    assert fragment.final[STATE][:, :2].tolist() == [[0, 3], [0, 3]]
    assert fragment.tail[STATE][:, :2].tolist() == [[1, 2], [1, 2]]
    assert (fragment.policy_version, fragment.runner) == (7, 4)
    assert fragment.streams.tolist() == [10, 11]


def test_finals_are_in_the_order_of_time_then_environment(collector):
    fragment = collector(num_envs=3, length=2).collect(4, still)
    finals = fragment.final[STATE]
    assert finals[:, :2].astype(int).tolist() == [[0, 2]] * 3 + [[1, 2]] * 3
    firsts = fragment.columns[STATE][0, :, 2]
    assert finals[:3, 2].tolist() == firsts.tolist()  # each its own environment's


def test_the_next_fragment_goes_on_where_the_tail_is(collector):
    collecting = collector(length=4)
    first = collecting.collect(3, still)
    second = collecting.collect(3, still)
    assert np.array_equal(first.tail[STATE], second.columns[STATE][0])
    assert rows(second) == [[0, 3], [1, 0], [1, 1]]
    assert np.array_equal(first.streams, second.streams)


def test_actions_are_stored_as_the_policy_gave_them(collector):
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2, 2)).astype(np.float32)
    coming = iter(actions)
    fragment = collector(length=3).collect(4, lambda _: next(coming))
    assert np.array_equal(fragment.columns["action"], actions)


def test_statistics_are_of_whole_episodes(collector):
    collecting = collector(num_envs=1, length=3, success=3)
    assert collecting.collect(2, still).statistics == []
    assert collecting.collect(2, still).statistics == [
        {"return": 6.0, "length": 3.0, "success": 1.0}
    ]


def test_the_same_seeds_give_the_same_fragment(collector):
    first, again = (collector(seeds=[3, 4]).collect(7, still) for _ in range(2))
    other = collector(seeds=[5, 6]).collect(7, still)
    assert np.array_equal(first.columns[STATE], again.columns[STATE])
    assert not np.array_equal(first.columns[STATE], other.columns[STATE])


def test_a_restart_begins_new_streams_from_the_seeds(collector):
    collecting = collector(seeds=[3, 4])
    first = collecting.collect(4, still)
    collecting.restart([3, 4])
    again = collecting.collect(4, still)
    assert first.columns[STATE][0, :, 2].tolist() == again.columns[STATE][0, :, 2].tolist()
    assert again.streams.tolist() == [12, 13]


def test_a_crash_on_step_1000_cuts_the_stream_and_the_run_goes_on(collector):
    collecting = collector(num_envs=1, length=10_000, crash=crash_once_at(1000))
    fragments = [collecting.collect(64, still) for _ in range(20)]
    assert sum(fragment.env_steps() for fragment in fragments) == 1280
    cut = fragments[999 // 64]
    step = 999 % 64  # in this row the new episode's first step stands
    assert step > 0
    truncated = np.concatenate([fragment.columns[TRUNCATED][:, 0] for fragment in fragments])
    assert np.flatnonzero(truncated).tolist() == [998]  # the last good step, counted from 0
    assert not any(fragment.columns[DONE].any() for fragment in fragments)
    assert cut.final[STATE][:, :2].tolist() == [[0, 999]]  # the last good observation
    assert rows(cut)[step - 1 : step + 2] == [[0, 998], [0, 0], [0, 1]]
    assert cut.columns[REWARD][step - 1 : step + 1, 0].tolist() == [999, 1]
    assert len({int(fragment.streams[0]) for fragment in fragments}) == 1


def test_a_crash_at_a_fragments_start_renews_the_stream(collector):
    collecting = collector(num_envs=2, length=100, crash=crash_once_at(9))  # step 5 of env 0
    first = collecting.collect(4, still)
    second = collecting.collect(4, still)
    assert not first.ended.any()
    assert not second.ended.any()
    assert len(second.final[STATE]) == 0
    assert rows(second) == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert rows(second, env=1) == [[0, 4], [0, 5], [0, 6], [0, 7]]
    assert second.streams.tolist() == [12, first.streams[1]]
    assert collecting.collect(4, still).streams.tolist() == second.streams.tolist()


def test_a_crash_right_after_an_end_changes_nothing_before_it(collector):
    collecting = collector(num_envs=1, length=3, crash=crash_once_at(4))
    fragment = collecting.collect(5, still)
    assert fragment.columns[DONE][:, 0].tolist() == [False, False, True, False, False]
    assert not fragment.columns[TRUNCATED].any()
    assert fragment.final[STATE][:, :2].tolist() == [[0, 3]]
    assert rows(fragment) == [[0, 0], [0, 1], [0, 2], [0, 0], [0, 1]]


def test_a_cut_episode_is_no_episode_of_the_statistics(collector):
    collecting = collector(num_envs=1, length=3, crash=crash_once_at(3))
    records = collecting.collect(8, still).statistics  # 2 steps lost, then 3 + 3
    assert [record["length"] for record in records] == [3, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [1, 2, 3], ids=["column", "tail", "final"])
def test_an_observation_that_is_no_number_is_refused_wherever_it_lands(collector, at, value):
    def change(observation, reward):
        if observation[1] == at:
            observation = observation.copy()
            observation[2] = value
        return observation, reward

    collecting = collector(num_envs=2, length=3, change=change)
    message = rf"environment ScriptedEnv \(0\) returned {value} in observation.state\[2\] where a f"
    with pytest.raises(EnvError, match=message):
        collecting.collect({1: 3, 2: 2, 3: 3}[at], still)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_reward_that_is_no_number_is_refused(collector, value):
    def change(observation, reward):
        return observation, value if observation[1] == 2 else reward

    message = r"environment ScriptedEnv \(0\) returned (nan|inf) in next.reward where a finite"
    with pytest.raises(EnvError, match=message), np.errstate(over="ignore"):
        collector(change=change).collect(4, still)


def test_the_message_names_the_environment_at_fault(collector):
    count = iter(range(1, 100))

    def change(observation, reward):
        return observation, np.nan if next(count) == 3 else reward  # env 2's first step

    with pytest.raises(EnvError, match=r"ScriptedEnv \(2\) returned nan"):
        collector(num_envs=3, change=change).collect(2, still)


def test_a_policy_that_returns_nan_is_blamed_itself(collector):
    def broken(observations):
        return np.full((2, 2), np.nan, np.float32)

    with pytest.raises(EnvError, match=r"the policy chose nan in action\[0\] for environment Scri"):
        collector().collect(1, broken)
