"""Stepping N environments, ends of episodes, crashes, and what is refused."""

import functools

import numpy as np
import pytest

from leray.envs.vector import MAX_FAILURES_IN_A_ROW, VectorEnv
from leray.errors import EnvError

STATE = "observation.state"


@pytest.fixture
def vector(scripted_env):
    def build(num_envs=2, seeds=None, **options):
        return VectorEnv(
            functools.partial(scripted_env, **options),
            num_envs,
            goal_relative=False,
            seeds=range(num_envs) if seeds is None else seeds,
        )

    return build


def step(envs):
    """Step everywhere; return rewards, terminated, truncated, what ended, what crashed."""
    count = envs.num_envs
    reward = np.empty(count, np.float32)
    terminated, truncated = np.empty(count, np.bool_), np.empty(count, np.bool_)
    ended, crashed = envs.step(np.zeros((count, 2), np.float32), reward, terminated, truncated)
    return reward, terminated, truncated, ended, crashed


@pytest.mark.parametrize("terminates", [True, False])
def test_the_true_last_observation_is_kept_and_the_next_episode_begun(vector, terminates):
    envs = vector(length=2, terminates=terminates)
    assert envs.observations[STATE][:, :2].tolist() == [[0, 0], [0, 0]]
    _, terminated, truncated, ended, _ = step(envs)
    assert not terminated.any()
    assert not truncated.any()
    assert ended == []
    reward, terminated, truncated, ended, _ = step(envs)
    assert reward.tolist() == [2, 2]
    assert terminated.tolist() == [terminates] * 2
    assert truncated.tolist() == [not terminates] * 2
    assert [end.env for end in ended] == [0, 1]
    assert ended[1].final[STATE][:2].tolist() == [0, 2]
    assert envs.observations[STATE][:, :2].tolist() == [[1, 0], [1, 0]]


def test_a_final_observation_is_a_copy(vector):
    envs = vector(num_envs=1, length=1)
    *_, ended, _ = step(envs)
    before = ended[0].final[STATE].copy()
    step(envs)
    assert np.array_equal(ended[0].final[STATE], before)


def test_return_length_and_success_of_an_episode(vector):
    envs = vector(num_envs=1, length=3, success=2)
    step(envs)
    step(envs)
    *_, ended, _ = step(envs)
    assert (ended[0].episode_return, ended[0].length, ended[0].success) == (1 + 2 + 3, 3, 1.0)
    for _ in range(3):
        *_, ended, _ = step(envs)
    assert (ended[0].episode_return, ended[0].length) == (6, 3)  # counted anew


def test_success_that_is_not_reached_is_zero_and_one_not_reported_is_none(vector):
    *_, ended, _ = step(vector(num_envs=1, length=1, success=5))
    assert ended[0].success == 0.0
    *_, ended, _ = step(vector(num_envs=1, length=1))
    assert ended[0].success is None


def test_the_same_seeds_give_the_same_and_other_seeds_other_episodes(vector):
    def run(seeds):
        envs = vector(num_envs=2, seeds=seeds, length=1)
        rows = []
        for _ in range(3):
            rows.append(envs.observations[STATE].copy())
            step(envs)
        return np.stack(rows)

    assert np.array_equal(run([5, 6]), run([5, 6]))
    assert not np.array_equal(run([5, 6]), run([7, 8]))
    episodes = run([5, 6])[..., 2]
    assert len(np.unique(episodes)) == episodes.size  # each env and each episode its own


def test_a_reset_begins_episodes_from_its_seeds(vector):
    envs, fresh = vector(seeds=[1, 2]), vector(seeds=[8, 9])
    step(envs)
    envs.reset([8, 9])
    assert np.array_equal(envs.observations[STATE][:, 2], fresh.observations[STATE][:, 2])


def test_a_crashed_environment_is_replaced_and_takes_the_step(vector, scripted_env, caplog):
    broken = []

    def crash(episode, number):
        if number == 3 and not broken:
            broken.append(number)
            return True
        return False

    envs = vector(num_envs=1, length=10, crash=crash)
    old = envs.envs[0]
    step(envs)
    step(envs)
    reward, terminated, truncated, ended, crashed = step(envs)
    assert old.is_closed
    assert envs.envs[0] is not old
    assert crashed[0][STATE][:2].tolist() == [0, 0]  # first observation of the new episode
    assert reward.tolist() == [1]  # first step of the new episode
    assert not terminated.any()
    assert not truncated.any()
    assert ended == []
    assert envs.observations[STATE][0, :2].tolist() == [0, 1]
    assert "crashed with RuntimeError: the world fell apart" in caplog.text


def test_a_new_episode_after_a_crash_has_another_seed(vector):
    envs = vector(num_envs=1, seeds=[3], crash=lambda episode, number: number == 2)
    first = envs.observations[STATE][0, 2]
    step(envs)
    *_, crashed = step(envs)
    assert crashed[0][STATE][2] != first


def test_a_crash_leaves_the_other_environments_alone(vector):
    broken = []

    def crash(episode, number):
        broken.append(number)
        return len(broken) == 2  # the second environment's first step

    envs = vector(num_envs=3, length=10, crash=crash)
    *_, crashed = step(envs)
    assert list(crashed) == [1]
    step(envs)
    assert envs.observations[STATE][:, 1].tolist() == [2, 2, 2]


def test_statistics_of_the_episode_after_a_crash_begin_anew(vector):
    broken = []
    envs = vector(
        num_envs=1,
        length=3,
        crash=lambda _, number: number == 2 and not broken and not broken.append(1),
    )
    step(envs)
    for _ in range(3):
        *_, ended, _ = step(envs)
    assert (ended[0].episode_return, ended[0].length) == (6, 3)


def test_an_environment_that_always_crashes_is_given_up(vector):
    tried = []

    def crash(episode, number):
        tried.append(number)
        return True

    envs = vector(num_envs=1, crash=crash)
    message = rf"ScriptedEnv crashed in {MAX_FAILURES_IN_A_ROW} new episodes in a row \(RuntimeErr"
    with pytest.raises(EnvError, match=message):
        step(envs)
    assert len(tried) == 1 + MAX_FAILURES_IN_A_ROW


def test_a_crash_in_reset_is_mended_too(vector):
    broken = []
    envs = vector(
        num_envs=1,
        length=1,
        crash_reset=lambda episode: episode == 1 and not broken and not broken.append(1),
    )
    *_, ended, crashed = step(envs)
    assert crashed == {}  # the episode had ended by itself
    assert ended[0].final[STATE][:2].tolist() == [0, 1]
    assert envs.observations[STATE][0, :2].tolist() == [0, 0]  # first of the new environment


def test_an_environment_that_can_never_be_reset_is_given_up(vector):
    with pytest.raises(EnvError, match=r"new episodes in a row .*cannot be reset"):
        vector(num_envs=1, crash_reset=lambda _: True)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(4, np.float32), r"observation.state of shape \[4\] .*says \[3\]"),
        (np.zeros((3, 1), np.float32), r"observation.state of shape \[3, 1\] .*says \[3\]"),
        (np.float32(1), r"observation.state of shape \[\] .*says \[3\]"),
        (None, r"observation.state of shape \[\] .*says \[3\]"),
        (np.array(["a", "b", "c"]), "observation.state of dtype <U1 .*says float32"),
        (np.zeros(3, complex), "observation.state of dtype complex128 .*says float32"),
    ],
    ids=["longer", "matrix", "scalar", "none", "text", "complex"],
)
def test_an_observation_of_another_kind_is_refused(vector, bad, message):
    envs = vector(num_envs=1, change=lambda _, reward: (bad, reward))
    with pytest.raises(EnvError, match=f"environment ScriptedEnv returned {message}"):
        step(envs)


def test_a_reward_that_is_no_number_is_refused(vector):
    envs = vector(num_envs=1, change=lambda observation, _: (observation, "much"))
    with pytest.raises(EnvError, match=r"returned 'much' as next.reward where a number"):
        step(envs)


def test_a_dictionary_that_lacks_a_part_is_refused(scripted_env):
    import gymnasium as gym

    class Robot(scripted_env):
        def __init__(self):
            super().__init__()
            box = self.observation_space
            self.observation_space = gym.spaces.Dict({"agent_pos": box, "touch": box})

        def _observe(self):
            whole = {"agent_pos": super()._observe(), "touch": super()._observe()}
            return whole if self._step == 0 else {"agent_pos": whole["agent_pos"]}

    envs = VectorEnv(Robot, 1, goal_relative=False, seeds=[0])
    message = "Robot returned observation.state where its observation space says .*touch"
    with pytest.raises(EnvError, match=message):
        step(envs)


def test_close_closes_all(vector):
    envs = vector(num_envs=3)
    envs.close()
    assert all(env.is_closed for env in envs.envs)
