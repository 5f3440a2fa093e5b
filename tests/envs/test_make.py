"""Environments by name."""

import importlib.util

import gymnasium as gym
import pytest

from leray.envs.config import GymEnvConfig, PandaGymEnvConfig
from leray.envs.make import make_env
from leray.errors import ConfigError, EnvError


def test_a_bare_panda_id_means_the_own_task():
    env = make_env(GymEnvConfig(task="PandaReach-v3"))
    assert env.spec.id == "leray/PandaReach-v3"
    assert type(env.unwrapped).__module__ == "leray.envs.panda.env"
    env.close()


def test_a_panda_id_taken_by_another_package_still_means_the_own_task(monkeypatch):
    foreign = gym.envs.registration.EnvSpec("PandaReach-v3", entry_point="elsewhere:Env")
    make_env(GymEnvConfig(task="PandaReach-v3")).close()  # registers
    monkeypatch.setitem(gym.registry, "PandaReach-v3", foreign)
    env = make_env(GymEnvConfig(task="PandaReach-v3"))
    assert type(env.unwrapped).__module__ == "leray.envs.panda.env"
    env.close()


def test_pick_place_is_another_name_of_pick_and_place():
    short = make_env(GymEnvConfig(task="PandaPickPlace-v3"))
    long = make_env(GymEnvConfig(task="PandaPickAndPlace-v3"))
    assert short.observation_space == long.observation_space
    assert short.unwrapped.task_description == long.unwrapped.task_description
    short.close()
    long.close()


def test_gymnasiums_own_ids_work():
    env = make_env(GymEnvConfig(task="Pendulum-v1"))
    assert env.spec.id == "Pendulum-v1"
    env.close()


def test_a_time_limit_replaces_the_tasks_own():
    env = make_env(GymEnvConfig(task="Pendulum-v1", max_episode_steps=2))
    env.reset(seed=0)
    assert [env.step(env.action_space.sample())[3] for _ in range(2)] == [False, True]
    env.close()


def test_kwargs_reach_the_constructor():
    env = make_env(GymEnvConfig(task="Pendulum-v1", kwargs={"g": 1.5}))
    assert env.unwrapped.g == 1.5
    env.close()


def test_an_unknown_id_is_one_line_with_the_nearest():
    with pytest.raises(
        EnvError, match=r"--env.task=PandaReech-v3: no such.*PandaReach-v3"
    ) as caught:
        make_env(GymEnvConfig(task="PandaReech-v3"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["HalfCheetah-v99", "nonsense-v0", "no_such_module:Env-v0", "a b"])
def test_other_wrong_ids_are_errors_of_the_environment_too(task):
    with pytest.raises(EnvError, match=r"--env.task=") as caught:
        make_env(GymEnvConfig(task=task))
    assert "\n" not in str(caught.value)


def test_wrong_kwargs_are_named():
    with pytest.raises(EnvError, match=r"Pendulum-v1 could not be built with kwargs.*'gravity': 1"):
        make_env(GymEnvConfig(task="Pendulum-v1", kwargs={"gravity": 1}))


def test_an_empty_task_is_refused():
    with pytest.raises(ConfigError, match=r"--env.task is empty"):
        GymEnvConfig()


def test_a_time_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match="max_episode_steps=0"):
        GymEnvConfig(task="Pendulum-v1", max_episode_steps=0)


@pytest.mark.skipif(
    importlib.util.find_spec("panda_gym") is not None, reason="panda-gym is installed"
)
def test_a_missing_panda_gym_gives_the_pip_line():
    with pytest.raises(EnvError, match=r"pip install 'leray\[panda-gym\]'"):
        make_env(PandaGymEnvConfig(task="PandaReach-v3"))
