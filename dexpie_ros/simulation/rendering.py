"""Off-screen images of the scene.

MuJoCo picks its OpenGL backend from ``MUJOCO_GL`` when it is first imported, so this module must be
imported before ``mujoco`` is: every module of this room gets MuJoCo through it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

_LIBRARIES = (("egl", ("libEGL.so.1", "libEGL.so")), ("osmesa", ("libOSMesa.so.8", "libOSMesa.so")))
REMEDY = (
    "no off-screen OpenGL: neither EGL nor OSMesa can be loaded; "
    "install one (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6) "
    "or run without cameras (cameras: [])"
)


class RenderError(RuntimeError):
    """Images cannot be made on this machine; the message names the remedy."""


def choose_backend(load: Callable[[str], object] = ctypes.CDLL) -> str:
    """Name of the first backend whose library loads (``egl``, ``osmesa``), or ``""``."""
    for name, libraries in _LIBRARIES:
        for library in libraries:
            try:
                load(library)
            except OSError:
                continue
            return name
    return ""


BACKEND = os.environ.get("MUJOCO_GL", "") or choose_backend()
"""What MuJoCo renders with; empty where nothing was found (physics runs all the same)."""
if BACKEND:
    os.environ["MUJOCO_GL"] = BACKEND
    if BACKEND in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", BACKEND)

import mujoco  # noqa: E402  (after the choice above, on purpose)


class SceneRenderer:
    """Renders cameras of one model at one size.

    An OpenGL context belongs to the thread that made it: use one renderer from one thread only, and
    :meth:`close` it there (at interpreter exit it is too late).
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int, shadows: bool = False):
        if not BACKEND or BACKEND in ("disable", "disabled", "off", "false", "0"):
            raise RenderError(
                REMEDY if not BACKEND else f"MUJOCO_GL={BACKEND} forbids images; unset it"
            )
        self._thread = threading.get_ident()
        self._shadows = shadows
        self.width, self.height = width, height
        try:
            self._renderer: mujoco.Renderer | None = mujoco.Renderer(model, height, width)
        except (RuntimeError, ImportError, AttributeError, OSError) as error:
            raise RenderError(f"MUJOCO_GL={BACKEND}: {error}; {REMEDY}") from error

    def render(self, data: mujoco.MjData, camera: str) -> Image:
        """Image (height, width, 3), uint8 RGB, of named ``camera``."""
        if self._renderer is None:
            raise RenderError("the renderer is closed")
        if threading.get_ident() != self._thread:
            raise RenderError("a renderer belongs to the thread that made it; make one per thread")
        self._renderer.update_scene(data, camera=camera)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self._shadows
        flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        return self._renderer.render()

    def close(self) -> None:
        """Free the context. May be called more than once."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
