import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from leray.envs import panda
from leray.envs.panda.env import PandaEnv
from leray.envs.panda.registration import MAX_EPISODE_STEPS, task_ids
from leray.envs.panda.rendering import rendering_available

IDS = sorted(task_ids())


@pytest.fixture(autouse=True)
def _registered():
    panda.register()


def test_ids_are_those_published_and_the_short_name():
    base = ["Reach", "Push", "PickAndPlace", "PickPlace", "Detour"]
    base += [f"{name}Pixels" for name in base]
    variants = ["", "Joints", "Dense", "JointsDense"]
    assert set(IDS) == {f"Panda{name}{variant}-v3" for name in base for variant in variants}


@pytest.mark.parametrize("env_id", IDS)
def test_env_passes_gymnasiums_checker(env_id):
    if "Pixels" in env_id and not rendering_available():
        pytest.skip("no OpenGL here: apt-get install libegl1 libosmesa6")
    env = gym.make(f"leray/{env_id}")
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


@pytest.mark.parametrize(
    ("env_id", "task", "control", "reward"),
    [
        ("PandaReach-v3", "reach", "ee", "sparse"),
        ("PandaDetour-v3", "detour", "ee", "sparse"),
        ("PandaPushDense-v3", "push", "ee", "dense"),
        ("PandaPickAndPlaceJoints-v3", "pick_and_place", "joints", "sparse"),
        ("PandaPickPlaceJointsDense-v3", "pick_and_place", "joints", "dense"),
    ],
)
def test_id_stands_for_its_variant(env_id, task, control, reward):
    env = gym.make(f"leray/{env_id}").unwrapped
    assert isinstance(env, PandaEnv)
    assert (env.task.name, env.control_type, env.reward_type) == (task, control, reward)
    assert env.obs_type == "state"


@pytest.mark.skipif(
    not rendering_available(), reason="no OpenGL here: apt-get install libegl1 libosmesa6"
)
def test_pixels_in_an_id_are_pictures():
    env = gym.make("leray/PandaPushPixelsJoints-v3").unwrapped
    assert (env.task.name, env.control_type, env.obs_type) == ("push", "joints", "pixels_agent_pos")
    assert list(env.observation_space["pixels"]) == ["front"]
    env.close()


def test_registering_again_changes_nothing():
    before = dict(gym.registry)
    panda.register()
    assert dict(gym.registry) == before


def test_bare_id_of_another_package_is_left_alone(monkeypatch):
    foreign = gym.envs.registration.EnvSpec("PandaReach-v3", entry_point="somewhere.else:Env")
    monkeypatch.setitem(gym.registry, "PandaReach-v3", foreign)
    monkeypatch.delitem(gym.registry, "leray/PandaReach-v3")
    panda.register()
    assert gym.spec("PandaReach-v3").entry_point == "somewhere.else:Env"
    assert gym.spec("leray/PandaReach-v3").entry_point == "leray.envs.panda.env:PandaEnv"


def test_time_limit_is_the_only_wrapper_and_cuts_at_fifty_steps():
    env = gym.make("leray/PandaPickAndPlace-v3")
    assert isinstance(env, TimeLimit)
    assert isinstance(env.env, PandaEnv)
    env.reset(seed=0)
    hold = env.action_space.low * 0.0
    outcomes = [env.step(hold)[2:4] for _ in range(MAX_EPISODE_STEPS)]
    assert outcomes == [(False, False)] * 49 + [(False, True)]
