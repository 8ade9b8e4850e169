"""Task A: put a tapered bottle upright onto a platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array, make_pose
from dexpie_ros.simulation.kinematics import rotation_matrix
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import TABLE_Z
from dexpie_ros.simulation.tasks.base import Home, Task, Verdict, frame

SIDE_GRASP = frame((0, 1, 0), (1, 0, 0))
"""Fingers along +x, palm to +y, thumb up."""
OPEN_HAND = np.array([0.966, 0.966, 0.966, 0.966, 1.0, 0.083])
CLOSED_HAND = np.array([0.252, 0.252, 0.252, 0.252, 0.167, 0.083])

_FACETS = 20


@config
class BottleConfig:
    """How hard task A is. Lengths in m, in the base frame."""

    regime: Literal["terminal", "retry"] = "terminal"
    """terminal: a tall light bottle that tips over when hit. retry: a weighted foot makes it slide
    instead, so mistakes cost time."""
    bottle_x: tuple[float, float] = (0.50, 0.66)
    bottle_y: tuple[float, float] = (0.02, 0.18)
    platform_x: tuple[float, float] = (0.50, 0.66)
    platform_y: tuple[float, float] = (-0.22, -0.10)
    home_offset: float = 0.02
    """Half width of the box that the TCP starts in."""
    home_turn: float = 0.04
    """Standard deviation, rad, of the start orientation about each axis."""
    scale: float = 1.0
    """Size of the bottle against the one demonstrated: other values make held-out objects."""
    mass_scale: float = 1.0


@dataclass(frozen=True)
class _Shape:
    bottom: float
    top: float
    height: float
    mass: float
    platform_radius: float
    platform_height: float
    tolerance: float
    foot: tuple[float, float, float] | None
    """Radius, height, mass of the weighted foot."""


_SHAPES = {
    "terminal": _Shape(0.030, 0.022, 0.16, 0.18, 0.045, 0.04, 0.022, None),
    "retry": _Shape(0.030, 0.022, 0.16, 0.08, 0.050, 0.012, 0.027, (0.038, 0.012, 0.16)),
}


class BottleTask(Task):
    """Grasp from the side, lift, put down upright, let go.

    Success: base within the tolerance of the platform's centre, standing on it, upright, still and
    not touched. Failures: ``tipped``, ``fell`` (off the table), ``out_of_reach``.
    """

    name = "bottle"
    stages = ("home", "grasped", "above_platform")
    object_names = ("bottle", "platform")
    handled = "bottle"
    limit = 16.0
    home_joints = np.array([-0.6, -1.45, 2.2, -0.75, 1.0, 3.14])

    def __init__(self, config: BottleConfig):
        self.config = config
        self.shape = _SHAPES[config.regime]
        self.platform_top = TABLE_Z + self.shape.platform_height

    def assets(self) -> str:
        s, k = self.shape, self.config.scale
        angle = np.arange(_FACETS) * 2 * np.pi / _FACETS
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points = [(*(ring[i] * s.bottom * k), 0.0) for i in range(_FACETS)]
        points += [(*(ring[i] * s.top * k), s.height) for i in range(_FACETS)]
        vertices = " ".join(f"{x:.5f}" for point in points for x in point)
        return f"""<mesh name="bottle" vertex="{vertices}"/>
        <material name="bottle" rgba="0.16 0.45 0.78 1" specular="0.7" shininess="0.8"/>
        <material name="platform" rgba="0.96 0.76 0.16 1" specular="0.2" shininess="0.2"/>"""

    def bodies(self) -> str:
        s, m = self.shape, self.config.mass_scale
        foot = ""
        if s.foot is not None:
            radius, height, mass = s.foot
            foot = f"""<geom name="foot" type="cylinder" size="{radius} {height / 2}"
             pos="0 0 {height / 2}" mass="{mass * m}" rgba="0.10 0.28 0.52 1"
             friction="0.6 0.005 0.0001" priority="1"/>"""
        return f"""<body name="bottle"><freejoint name="bottle"/>
         <geom name="bottle" type="mesh" mesh="bottle" mass="{s.mass * m}" material="bottle"
          condim="4" friction="0.8 0.01 0.0001"/>{foot}
         <geom type="cylinder" size="0.012 0.012" pos="0 0 {s.height + 0.012}" mass="0.005"
          rgba="0.95 0.95 0.93 1"/></body>
        <body name="platform" mocap="true" pos="0 0 {TABLE_Z}">
         <geom name="platform" type="cylinder" material="platform"
          size="{s.platform_radius} {s.platform_height / 2}" pos="0 0 {s.platform_height / 2}"/>
        </body>"""

    def _bind(self, model: mujoco.MjModel) -> None:
        joint = model.joint("bottle")
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._mocap = int(model.body("platform").mocapid[0])
        self._platform = model.body("platform").id

    def corners(self) -> dict[str, Array]:
        s, turn = self.shape, np.linspace(0, 2 * np.pi, 8, endpoint=False)
        rim = np.stack([np.cos(turn), np.sin(turn), np.zeros(8)], axis=1)
        foot = s.bottom if s.foot is None else s.foot[0]
        return {"bottle": np.concatenate([foot * rim, s.top * rim + [0.0, 0.0, s.height]])}

    def home(self, rng: np.random.Generator) -> Home:
        turn = rotation_matrix(rng.normal(0, self.config.home_turn, 3))
        offset = rng.uniform(-1, 1, 3) * self.config.home_offset
        position = np.array([0.42, -0.02, 0.22 + TABLE_Z]) + offset
        return Home(make_pose(SIDE_GRASP @ turn, position), OPEN_HAND.copy())

    def place(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        c = self.config
        bottle = [rng.uniform(*c.bottle_x), rng.uniform(*c.bottle_y), TABLE_Z + 0.0005]
        platform = [rng.uniform(*c.platform_x), rng.uniform(*c.platform_y), TABLE_Z]
        data.qpos[self._qpos : self._qpos + 7] = [*bottle, 1, 0, 0, 0]
        data.mocap_pos[self._mocap] = platform

    def lifted(self, data: mujoco.MjData) -> bool:
        return bool(data.xpos[self.handled_id, 2] > TABLE_Z + 0.03)

    def judge(self, data: mujoco.MjData) -> Verdict:
        position = data.xpos[self.handled_id]
        up = float(data.xmat[self.handled_id, 8])
        touched = self.touches(data)
        platform = data.mocap_pos[self._mocap]
        away = float(np.hypot(position[0] - platform[0], position[1] - platform[1]))
        velocity = data.qvel[self._dof : self._dof + 3]
        fulfilled = (
            away < self.shape.tolerance
            and abs(position[2] - self.platform_top) < 0.008
            and up > 0.98
            and not touched
            and float(velocity @ velocity) < 0.03**2
        )
        failure = ""
        if position[2] < TABLE_Z - 0.05:
            failure = "fell"
        elif up < 0.6 and position[2] < TABLE_Z + 0.05:
            failure = "tipped"
        elif not (0.30 < position[0] < 0.90 and -0.45 < position[1] < 0.45):
            failure = "out_of_reach"
        return Verdict(bool(fulfilled), failure, touched)
