"""Camera observations: what they hold, that a seed determines them, that environments share."""

import hashlib
import subprocess
import sys
import threading

import gymnasium as gym
import numpy as np
import pytest

from leray.envs import panda
from leray.envs.config import GymEnvConfig
from leray.envs.make import make_env
from leray.envs.observation import ObservationMap
from leray.envs.panda import cameras
from leray.envs.panda.env import PandaEnv
from leray.envs.panda.expert import make_expert
from leray.envs.panda.rendering import rendering_available
from leray.errors import EnvError

needs_gl = pytest.mark.skipif(
    not rendering_available(), reason="no OpenGL here: apt-get install libegl1 libosmesa6"
)
PIXELS = {"obs_type": "pixels_agent_pos"}
ROLLOUT = """
import hashlib
import numpy as np
from leray.envs.panda.env import PandaEnv

env = PandaEnv("push", obs_type="pixels_agent_pos", cameras=("front", "wrist"))
digest = hashlib.sha256()
observation, _ = env.reset(seed=3)
for _ in range(4):
    for frame in observation["pixels"].values():
        digest.update(frame.tobytes())
    observation, *_ = env.step(np.array([0.5, -1.0, -1.0]))
print(digest.hexdigest())
"""


def redness(frame):
    """How much of a picture has the goal's colour."""
    red, green, blue = np.moveaxis(frame.astype(int), -1, 0)
    return int(((red - green > 60) & (red - blue > 60)).sum())


@needs_gl
@pytest.mark.parametrize(("task", "own"), [("reach", 6), ("push", 6), ("pick_and_place", 7)])
def test_the_robot_knows_itself_and_sees_the_rest(task, own):
    env = PandaEnv(task, **PIXELS, cameras=["front", "wrist"], observation_height=48)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert set(observation) == {"agent_pos", "pixels"}
    assert observation["agent_pos"].shape == (own,)
    assert list(observation["pixels"]) == ["front", "wrist"]
    for frame in observation["pixels"].values():
        assert frame.shape == (48, 64, 3)
        assert frame.dtype == np.uint8
        assert frame.std() > 20
    state = env.goal_observation()
    np.testing.assert_array_equal(observation["agent_pos"], state["observation"][:own])


@needs_gl
def test_state_and_pictures_together():
    plain, both = PandaEnv("push"), PandaEnv("push", obs_type="pixels_state")
    expected, _ = plain.reset(seed=4)
    observation, _ = both.reset(seed=4)
    assert observation["pixels"]["front"].shape == (64, 64, 3)
    for key, value in expected.items():
        np.testing.assert_array_equal(observation[key], value)


@needs_gl
@pytest.mark.parametrize("task", ["reach", "push", "pick_and_place", "detour"])
def test_the_goal_is_seen_where_it_is(task):
    env = PandaEnv(task, **PIXELS)
    seen = []
    for seed in range(30):
        frame = env.reset(seed=seed)[0]["pixels"]["front"]
        seen.append(redness(frame))
        env.data.mocap_pos[0] = (0.0, 0.0, -9.0)
        env._observe()
        assert redness(env._observation(env.goal_observation())["pixels"]["front"]) < seen[-1]
    assert np.median(seen) >= 8  # pixels


@needs_gl
def test_goals_at_other_heights_or_places_look_different():
    env = PandaEnv("reach", **PIXELS)
    env.reset(seed=0)
    frames = []
    for goal in [(0.1, 0.1, 0.1), (0.1, 0.1, 0.15), (0.1, 0.06, 0.1), (0.06, 0.1, 0.1)]:
        env.data.mocap_pos[0] = goal
        env._observe()
        frames.append(env._observation(env.goal_observation())["pixels"]["front"].astype(int))
    for index, frame in enumerate(frames):
        for other in frames[:index]:
            assert (np.abs(frame - other).max(axis=-1) > 30).sum() >= 8  # pixels


@needs_gl
def test_another_process_gives_the_same_pictures():
    other = subprocess.run(
        [sys.executable, "-c", ROLLOUT], capture_output=True, text=True, check=True
    )
    env = PandaEnv("push", **PIXELS, cameras=("front", "wrist"))
    env.reset(seed=9)
    env.step(env.action_space.high)  # what came before must leave no trace
    digest = hashlib.sha256()
    observation, _ = env.reset(seed=3)
    for _ in range(4):
        for frame in observation["pixels"].values():
            digest.update(frame.tobytes())
        observation, *_ = env.step(np.array([0.5, -1.0, -1.0]))
    assert other.stdout.strip() == digest.hexdigest()


@needs_gl
def test_pictures_do_not_depend_on_what_else_is_drawn():
    alone = PandaEnv("reach", **PIXELS, observation_width=40)
    expected = [alone.reset(seed=seed)[0]["pixels"]["front"] for seed in range(3)]
    env = PandaEnv("reach", **PIXELS, observation_width=40)
    others = [PandaEnv(task, obs_type="pixels_state") for task in ("push", "detour", "reach")]
    for seed, frame in enumerate(expected):
        for other in others:
            other.reset(seed=seed + 50)
            other.render_camera("overview", 120, 160)
        np.testing.assert_array_equal(env.reset(seed=seed)[0]["pixels"]["front"], frame)
        others.pop().close()


@needs_gl
def test_ten_environments_share_one_context():
    envs = [PandaEnv("reach", **PIXELS) for _ in range(10)]
    first = [env.reset(seed=seed)[0]["pixels"]["front"] for seed, env in enumerate(envs)]
    drawers = dict(cameras._DRAWERS.by_scene)
    for seed, env in enumerate(reversed(envs)):
        again = env.reset(seed=seed)[0]["pixels"]["front"]
        np.testing.assert_array_equal(again, first[seed])
    assert cameras._DRAWERS.by_scene == drawers
    assert sum(key == (id(envs[0].model), True) for key in drawers) == 1


@needs_gl
def test_each_thread_draws_for_itself():
    frames = {}

    def draw(name):
        env = PandaEnv("reach", **PIXELS)
        frames[name] = [env.reset(seed=seed)[0]["pixels"]["front"] for seed in range(4)]

    threads = [threading.Thread(target=draw, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    draw("here")
    np.testing.assert_array_equal(frames["one"], frames["here"])
    np.testing.assert_array_equal(frames["two"], frames["here"])


@needs_gl
def test_observing_pictures_does_not_change_the_simulation():
    drawn, plain = PandaEnv("push", **PIXELS), PandaEnv("push")
    drawn.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(3):
        action = np.array([1.0, 0.5, -1.0])
        drawn.step(action)
        expected = plain.step(action)[0]
        for key, value in drawn.goal_observation().items():
            np.testing.assert_array_equal(value, expected[key])


@needs_gl
def test_the_expert_solves_what_it_cannot_see():
    panda.register()
    env = gym.make("leray/PandaPickAndPlacePixels-v3", observation_width=16, observation_height=16)
    expert = make_expert(env)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        expert.reset(seed)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(expert.act(observation))
            ended = terminated or truncated
        assert info["is_success"]
    env.close()


@needs_gl
@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "pixels_state"])
def test_features_have_lerobots_names(obs_type):
    size = {"cameras": ["front", "wrist"], "observation_height": 32, "observation_width": 48}
    env = make_env(GymEnvConfig(task="PandaPush-v3", kwargs={"obs_type": obs_type, **size}))
    mapping = ObservationMap(env, goal_relative=True)
    named = mapping(env.reset(seed=0)[0])
    env.close()
    shapes = {key: (feature.dtype, feature.shape) for key, feature in mapping.features.items()}
    expected = {
        "observation.state": ("float32", (6,)),
        "observation.images.front": ("uint8", (32, 48, 3)),
        "observation.images.wrist": ("uint8", (32, 48, 3)),
    }
    if obs_type == "pixels_state":
        expected["observation.state"] = ("float32", (18,))
        expected["observation.environment_state"] = ("float32", (12,))
    assert shapes == expected
    assert {key: value.shape for key, value in named.items()} == {
        key: shape for key, (_, shape) in expected.items()
    }


@needs_gl
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cameras": ["top"]}, r"no camera 'top'.*choose one of"),
        ({"cameras": []}, "cameras is empty"),
        ({"observation_width": 0}, "cannot render 0x64 pixels; the most is 1280x960"),
        ({"observation_height": 5000}, "the most is 1280x960"),
    ],
)
def test_impossible_pictures_are_refused_at_once(kwargs, message):
    with pytest.raises(EnvError, match=message):
        PandaEnv("reach", **PIXELS, **kwargs)


def test_unknown_obs_type_is_refused():
    with pytest.raises(EnvError, match="obs_type='pixels' does not exist; choose one of 'state'"):
        PandaEnv("reach", obs_type="pixels")


def test_without_opengl_pictures_are_refused_at_once(monkeypatch):
    monkeypatch.setattr("leray.envs.panda.rendering.select_backend", lambda: None)
    with pytest.raises(EnvError, match="apt-get install libegl1 libosmesa6"):
        PandaEnv("reach", **PIXELS)


def test_cameras_mean_nothing_to_a_state():
    observation, _ = PandaEnv("reach", cameras=["top"]).reset(seed=0)
    assert set(observation) == {"observation", "achieved_goal", "desired_goal"}
