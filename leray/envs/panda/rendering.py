"""Frames of a MuJoCo scene, with or without a display.

MuJoCo reads `MUJOCO_GL` when it is imported. Here the backend is chosen when the first frame is
wanted, by trying each in a process of its own: some drivers end the process instead of raising.
"""

import atexit
import functools
import importlib
import os
import subprocess
import sys
import weakref
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from leray.errors import EnvError

MAX_RENDERERS = 4
"""Frame sizes for which an environment keeps a renderer."""
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


class CameraRenderer:
    """Renders a model's cameras, with one renderer per frame size.

    Args:
        model: the compiled scene.

    Raises:
        EnvError: no OpenGL backend works.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        require_rendering()
        self._model = model
        self._cameras = [model.camera(index).name for index in range(model.ncam)]
        self._renderers: dict[tuple[int, int], Any] = {}

    def render(
        self, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> NDArray[np.uint8]:
        """Return a frame, uint8, shape [height, width, 3].

        Raises:
            EnvError: the camera does not exist, or the size is not possible.
        """
        if camera not in self._cameras:
            raise EnvError(
                f"there is no camera {camera!r} in this scene; choose one of {self._cameras}"
            )
        renderer = self._renderer(height, width)
        mujoco.mj_camlight(self._model, data)
        renderer.update_scene(data, camera=camera)
        return np.asarray(renderer.render(), np.uint8)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, height: int, width: int) -> Any:
        """Return the renderer of a size, made on first use; beyond the limit the oldest goes."""
        size = (height, width)
        if size not in self._renderers:
            limits = self._model.vis.global_
            if not (1 <= height <= limits.offheight and 1 <= width <= limits.offwidth):
                raise EnvError(
                    f"cannot render {width}x{height} pixels; the most is "
                    f"{limits.offwidth}x{limits.offheight}"
                )
            if len(self._renderers) == MAX_RENDERERS:
                self._renderers.pop(next(iter(self._renderers))).close()
            self._renderers[size] = mujoco.Renderer(self._model, height, width)
            _OPEN.add(self)
            _close_open_at_exit()
        return self._renderers[size]


_OPEN: weakref.WeakSet[CameraRenderer] = weakref.WeakSet()


@functools.cache
def _close_open_at_exit() -> None:
    """Have open renderers closed at exit.

    Called after the first context exists, so that it runs before MuJoCo's own exit function ends
    the display: freeing a context after that fails noisily.
    """

    def close_open() -> None:
        for renderer in list(_OPEN):
            renderer.close()

    atexit.register(close_open)
