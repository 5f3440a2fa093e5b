"""Pictures of a scene by its cameras, for people and for policies."""

import atexit
import contextlib
import copy
import functools
import threading
import weakref
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from leray.envs.panda.rendering import new_gl_context, require_rendering
from leray.errors import EnvError

Frame = NDArray[np.uint8]

_MAX_GEOMS = 256
"""Shapes in a picture, far more than any scene has."""
_COARSE_SLICES, _COARSE_STACKS = 12, 8
"""Into how many facets plain pictures divide round shapes; MuJoCo has 28 and 16."""
_SAMPLES = 2
"""Plain pictures are drawn this much larger and averaged: cheaper than OpenGL's smoothing of edges
on a processor, and the position of small things stays in the picture."""
_PLAIN_OFF = (
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
)


class Cameras:
    """The cameras of a scene.

    All environments of a thread draw with the same OpenGL context and the same uploaded scene,
    which are kept until the thread ends: making them takes a hundred times as long as a picture.

    Args:
        model: the compiled scene.
        plain: draw without shadows, reflections, sky and textures, with coarser round shapes and
            averaged pixels: for small pictures, and much faster on a processor.

    Raises:
        EnvError: no OpenGL backend works.
    """

    def __init__(self, model: mujoco.MjModel, *, plain: bool = False) -> None:
        require_rendering()
        self._model, self._plain = model, plain
        self._names = [model.camera(index).name for index in range(model.ncam)]

    def check(self, camera: str, height: int, width: int) -> None:
        """Check that there is such a camera, and that a picture of this size is possible.

        Raises:
            EnvError: there is not, or it is not.
        """
        if camera not in self._names:
            raise EnvError(
                f"there is no camera {camera!r} in this scene; choose one of {self._names}"
            )
        most = self._model.vis.global_
        if not (1 <= height <= most.offheight and 1 <= width <= most.offwidth):
            raise EnvError(
                f"cannot render {width}x{height} pixels; the most is "
                f"{most.offwidth}x{most.offheight}"
            )

    def render(self, data: mujoco.MjData, camera: str, height: int, width: int) -> Frame:
        """Return a picture, uint8, shape [height, width, 3].

        Raises:
            EnvError: the camera does not exist, or the size is not possible.
        """
        self.check(camera, height, width)
        mujoco.mj_camlight(self._model, data)
        drawer = _drawer(self._model, plain=self._plain)
        return drawer.draw(data, self._names.index(camera), height, width)


class _Drawer:
    """A scene uploaded to an OpenGL context of its own, in one of the two qualities."""

    def __init__(self, model: mujoco.MjModel, *, plain: bool) -> None:
        self.source = model
        self._samples = _SAMPLES if plain else 1
        self._model = copy.copy(model) if plain else model
        self._options = mujoco.MjvOption()
        self._scene = mujoco.MjvScene(self._model, _MAX_GEOMS)
        if plain:
            quality = self._model.vis.quality
            quality.offsamples = quality.shadowsize = 0
            quality.numslices, quality.numstacks = _COARSE_SLICES, _COARSE_STACKS
            self._options.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = False
            for flag in _PLAIN_OFF:
                self._scene.flags[flag] = False
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._gl = new_gl_context()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def draw(self, data: mujoco.MjData, camera: int, height: int, width: int) -> Frame:
        """Return a picture, uint8, shape [height, width, 3]."""
        self._camera.fixedcamid = camera
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera, everything, self._scene
        )
        rows, columns = self._samples * height, self._samples * width
        context, place = self._context, mujoco.MjrRect(0, 0, columns, rows)
        self._gl.make_current()
        if rows > context.offHeight or columns > context.offWidth:
            mujoco.mjr_resizeOffscreen(columns, rows, context)
        pixels = np.empty((rows, columns, 3), np.uint8)
        mujoco.mjr_render(place, self._scene, context)
        mujoco.mjr_readPixels(pixels, None, place, context)
        upright = pixels[::-1]
        return upright.copy() if self._samples == 1 else _averaged(upright)

    def free(self) -> None:
        """Free what OpenGL holds."""
        # With another context current, what that one holds would be freed instead.
        with contextlib.suppress(Exception):  # a thread that still lives may have it current
            self._gl.make_current()
            self._context.free()
        self._gl.free()


class _Drawers(threading.local):
    """The drawers of each thread: OpenGL contexts belong to one."""

    def __init__(self) -> None:
        self.by_scene: dict[tuple[int, bool], _Drawer] = {}


_DRAWERS = _Drawers()
_OPEN: weakref.WeakSet[_Drawer] = weakref.WeakSet()


def _drawer(model: mujoco.MjModel, *, plain: bool) -> _Drawer:
    """Return what draws a scene in this thread, made on first use."""
    key = (id(model), plain)  # a drawer keeps its model, so that no other gets the id
    drawers = _DRAWERS.by_scene
    if key not in drawers:
        drawers[key] = _Drawer(model, plain=plain)
        _OPEN.add(drawers[key])
        _free_at_exit()
    return drawers[key]


@functools.cache
def _free_at_exit() -> None:
    """Have OpenGL contexts freed at exit.

    Called after the first context exists, so that it runs before MuJoCo's own exit function ends
    the display: freeing a context after that fails noisily.
    """

    def free_all() -> None:
        for drawer in list(_OPEN):
            drawer.free()

    atexit.register(free_all)


def _averaged(pixels: NDArray[Any]) -> Frame:
    """Return the rounded means of blocks of 2 x 2 pixels: [2 H, 2 W, 3] -> [H, W, 3]."""
    wide = pixels.astype(np.uint16)
    total = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
