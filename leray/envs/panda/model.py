"""Compiled MuJoCo models of the Panda scenes."""

import functools
from importlib import resources

import mujoco

ARM_JOINTS = 7
FINGER_OPEN_M = 0.04
"""Travel of one finger; the gripper's width is the sum of both."""


@functools.lru_cache
def load_model(scene: str) -> mujoco.MjModel:
    """Compile a scene; environments of one process share it and must not change it.

    Args:
        scene: file name in `assets/`.
    """
    folder = resources.files("leray.envs.panda").joinpath("assets")
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith("xml")}
    return mujoco.MjModel.from_xml_string(files[scene].decode(), files)
