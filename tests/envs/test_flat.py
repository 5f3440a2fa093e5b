"""The flat environment: what RLlib's modules see is what the policy reads."""

import gymnasium as gym
import numpy as np
import pytest

from leray.data.names import ACTION, ENVIRONMENT_STATE, OBSERVATION_STATE
from leray.envs.config import GymEnvConfig
from leray.envs.flat import EPISODE, FlatEnv
from leray.errors import EnvError

BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)


class Scripted(gym.Env):
    """Gives a reward of 1 per step for three steps, and succeeds in the second."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float64)

    def __init__(self, *, action_space=BOX, observation_space=None, reward=1.0, fails=False):
        self.action_space = action_space
        self.observation_space = observation_space or self.observation_space
        self._reward, self._fails = reward, fails

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        if self._fails:
            raise ValueError("the gripper is lost")
        self._steps += 1
        info = {"is_success": self._steps == 2}
        return self.observation_space.sample(), self._reward, self._steps == 3, False, info


gym.register("leray-test/Scripted-v0", entry_point=Scripted)


def make(**kwargs):
    return FlatEnv(GymEnvConfig(task="leray-test/Scripted-v0", kwargs=kwargs))


def test_observations_are_joined_in_the_order_of_the_features():
    env = FlatEnv(GymEnvConfig(task="PandaReach-v3"))
    flat, _ = env.reset(seed=3)
    names = [name for name in env.features if name != ACTION]
    assert names == [OBSERVATION_STATE, ENVIRONMENT_STATE]
    assert flat.dtype == np.float32
    assert env.observation_space.contains(flat)
    raw, _ = env._env.reset(seed=3)
    named = env._map(raw)
    np.testing.assert_array_equal(flat, np.concatenate([named[name] for name in names]))


def test_discrete_actions_are_int64_of_shape_1():
    env = FlatEnv(GymEnvConfig(task="CartPole-v1"))
    assert env.num_actions == 2
    assert (env.features[ACTION].dtype, env.features[ACTION].shape) == ("int64", (1,))


def test_bounds_of_vector_actions_are_kept():
    env = FlatEnv(GymEnvConfig(task="Pendulum-v1"))
    assert env.num_actions is None
    assert (env.features[ACTION].low, env.features[ACTION].high) == ((-2.0,), (2.0,))


def test_unbounded_actions_have_no_bounds():
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    assert make(action_space=space).features[ACTION].low is None


def test_the_last_step_carries_the_episode():
    env = make()
    env.reset(seed=0)
    infos = [env.step(BOX.sample())[-1] for _ in range(3)]
    assert [EPISODE in info for info in infos] == [False, False, True]
    assert infos[-1][EPISODE] == {"return": 3.0, "length": 3, "success": 1.0}


def test_success_is_nan_where_it_is_not_reported():
    env = FlatEnv(GymEnvConfig(task="Pendulum-v1", max_episode_steps=1))
    env.reset(seed=0)
    *_, info = env.step(np.zeros(1, np.float32))
    assert np.isnan(info[EPISODE]["success"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"action_space": gym.spaces.MultiDiscrete([2, 2])}, "has actions of MultiDiscrete"),
        ({"action_space": gym.spaces.Discrete(3, start=1)}, "has actions of Discrete"),
        ({"action_space": gym.spaces.Box(0, 5, (2,), np.int64)}, "has actions of Box"),
        ({"observation_space": gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "without images"),
    ],
)
def test_what_the_policy_cannot_use_is_refused(kwargs, message):
    with pytest.raises(EnvError, match=message):
        make(**kwargs)


def test_a_reward_that_is_no_number_is_refused():
    env = make(reward=float("nan"))
    env.reset(seed=0)
    with pytest.raises(EnvError, match="returned a reward of nan"):
        env.step(BOX.sample())


def test_a_crash_is_one_line():
    env = make(fails=True)
    env.reset(seed=0)
    with pytest.raises(EnvError, match=r"crashed .ValueError: the gripper is lost"):
        env.step(BOX.sample())
