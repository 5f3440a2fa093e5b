import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from leray.envs import panda
from leray.envs.panda import rendering
from leray.envs.panda.env import PandaEnv
from leray.errors import EnvError

needs_gl = pytest.mark.skipif(
    not rendering.rendering_available(),
    reason="no OpenGL here: apt-get install libegl1 libosmesa6",
)


@needs_gl
def test_frame_has_the_asked_size_and_shows_the_scene():
    env = PandaEnv("pick_and_place", render_mode="rgb_array", render_width=96, render_height=64)
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (64, 96, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 20
    env.close()


@needs_gl
def test_cameras_follow_the_state():
    env = PandaEnv("pick_and_place")
    env.reset(seed=0)
    before = {name: env.render_camera(name, 48, 64) for name in ("overview", "front", "wrist")}
    assert len({frame.tobytes() for frame in before.values()}) == 3
    env.step(np.array([0.0, 1.0, -1.0, 1.0]))
    for name, frame in before.items():
        assert not np.array_equal(env.render_camera(name, 48, 64), frame)
    env.close()


@needs_gl
def test_goal_is_seen_but_does_not_touch_anything():
    env = PandaEnv("push")
    env.reset(seed=0)
    near = env.render_camera("front", 64, 64)
    env.data.mocap_pos[0] = env.data.qpos[9:12]  # into the cube
    env.step(np.zeros(3))
    assert not np.array_equal(env.render_camera("front", 64, 64), near)
    assert np.abs(env.data.qvel[9:]).max() < 1e-2
    env.close()


@needs_gl
def test_rendering_does_not_change_the_simulation():
    drawn, plain = PandaEnv("push"), PandaEnv("push")
    drawn.reset(seed=0)
    plain.reset(seed=0)
    for _ in range(3):
        drawn.render_camera("front", 32, 32)
        action = np.array([1.0, 0.5, -1.0])
        np.testing.assert_array_equal(
            drawn.step(action)[0]["observation"], plain.step(action)[0]["observation"]
        )
    drawn.close()


@needs_gl
def test_unknown_camera_and_impossible_size_are_refused():
    env = PandaEnv()
    env.reset(seed=0)
    with pytest.raises(EnvError, match="choose one of"):
        env.render_camera("top", 32, 32)
    with pytest.raises(EnvError, match="the most is"):
        env.render_camera("front", 5000, 32)
    env.close()


@needs_gl
def test_rendering_env_passes_gymnasiums_checker():
    panda.register()
    env = gym.make(
        "leray/PandaReach-v3", render_mode="rgb_array", render_width=32, render_height=32
    )
    check_env(env.unwrapped)
    assert env.metadata["render_fps"] == 25
    env.close()


@needs_gl
def test_process_that_never_closes_its_renderer_ends_quietly():
    script = (
        "from leray.envs.panda.env import PandaEnv\n"
        "env = PandaEnv(); env.reset(seed=0); print(env.render_camera('front', 16, 16).shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.strip() == "(16, 16, 3)"
    assert done.stderr == ""


def test_render_without_mode_returns_nothing():
    env = PandaEnv()
    env.reset(seed=0)
    assert env.render() is None


@pytest.mark.parametrize(
    ("environ", "candidates"),
    [
        ({}, ["egl", "osmesa"]),
        ({"DISPLAY": ":0"}, ["egl", "osmesa", "glfw"]),
        ({"MUJOCO_GL": "osmesa", "DISPLAY": ":0"}, ["osmesa"]),
    ],
)
def test_backends_tried_on_linux(monkeypatch, environ, candidates):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert rendering._candidates() == candidates


def test_broken_backend_is_found_out_without_harm(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", "import os; os.abort()")
    assert not rendering._works("egl")


def test_no_backend_is_one_clear_error(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(rendering, "select_backend", lambda: None)
    with pytest.raises(EnvError, match="apt-get install libegl1 libosmesa6"):
        PandaEnv(render_mode="rgb_array")
    env = PandaEnv()
    env.reset(seed=0)
    with pytest.raises(EnvError, match="apt-get install libegl1 libosmesa6"):
        env.render_camera("front", 16, 16)
