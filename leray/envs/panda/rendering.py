"""OpenGL for MuJoCo, with or without a display.

MuJoCo reads `MUJOCO_GL` when it is imported. Here the backend is chosen when the first frame is
wanted, by trying each in a process of its own: some drivers end the process instead of raising.
"""

import functools
import importlib
import os
import subprocess
import sys
from typing import Any

import mujoco

from leray.errors import EnvError

_PROBE_TIMEOUT_S = 60.0
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
assert renderer.render().any()
renderer.close()
"""


def rendering_available() -> bool:
    """Return whether frames can be rendered on this machine; the first call takes a second."""
    return select_backend() is not None


def require_rendering() -> None:
    """Do nothing where frames can be rendered.

    Raises:
        EnvError: no OpenGL backend works.
    """
    if not rendering_available():
        tried = ", ".join(name or "the default" for name in _candidates())
        raise EnvError(
            f"rendering needs OpenGL and none of MUJOCO_GL={tried} works on this machine: "
            "apt-get install libegl1 libosmesa6"
        )


@functools.cache
def select_backend() -> str | None:
    """Find a working OpenGL backend, make this process and its children use it, and return it.

    A value already in `MUJOCO_GL` is kept and nothing else is tried.
    """
    given = os.environ.get("MUJOCO_GL")
    for backend in _candidates():
        if _works(backend):
            if given is None and backend:
                os.environ["MUJOCO_GL"] = backend
                _reload_mujoco_context()
            return backend
    return None


def _candidates() -> list[str]:
    """Return the values of `MUJOCO_GL` to try; the empty one is MuJoCo's default."""
    given = os.environ.get("MUJOCO_GL")
    if given is not None:
        return [given]
    if not sys.platform.startswith("linux"):
        return [""]
    windowed = ["glfw"] if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else []
    return ["egl", "osmesa", *windowed]


def _works(backend: str) -> bool:
    """Try a backend in another process."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _reload_mujoco_context() -> None:
    """Let an already imported MuJoCo read `MUJOCO_GL` again."""
    renderer = sys.modules[mujoco.Renderer.__module__]
    importlib.reload(renderer.gl_context)


def new_gl_context() -> Any:
    """Return a new OpenGL context, current in this thread.

    Raises:
        EnvError: no OpenGL backend works.
    """
    require_rendering()
    renderer = sys.modules[mujoco.Renderer.__module__]
    context = renderer.gl_context.GLContext(16, 16)
    context.make_current()
    return context
