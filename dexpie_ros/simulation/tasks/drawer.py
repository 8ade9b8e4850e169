"""Task B: hook a finger behind a drawer's handle, pull it open, put a tissue box in."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array, make_pose
from dexpie_ros.simulation.kinematics import rotation_matrix
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.robot_model import HAND_RANGE
from dexpie_ros.simulation.scene import TABLE_Z, Eye
from dexpie_ros.simulation.tasks.base import Home, Task, Verdict, box_corners, frame, upright_yaw

HOOK_GRASP = frame((-1, 0, 0), (0, 0, -1))
"""Fingers down, palm towards the robot."""
TOP_GRASP = frame((0, 1, 0), (0, 0, -1))
"""Fingers down, palm to +y, thumb to +x."""

CABINET_DEPTH, CABINET_WIDTH = 0.10, 0.13
"""m, half the cabinet's size."""
DRAWER_TRAVEL = 0.17
HANDLE_HEIGHT = 0.061
"""m, of the bar above the table."""
BOX_SIZE = (0.055, 0.018, 0.04)
"""m, half sizes of the tissue box."""

_FOOT = 1.6
"""Width of the foot (regime `retry`) against the box's."""


def motors(*rad: float) -> Array:
    """Openings (6,) of motor angles in rad, in the hand's own order."""
    return 1.0 - np.array(rad) / HAND_RANGE


HOOK_HAND = motors(1.4, 1.4, 1.4, 0.0, 0.0, 0.0)
"""Index finger out, the others folded."""
HOOKED_HAND = motors(1.4, 1.4, 1.4, 0.40, 0.0, 0.0)
OPEN_HAND = motors(0.05, 0.05, 0.05, 0.05, 0.0, 1.2)
CLOSED_HAND = motors(0.9, 0.9, 0.9, 0.9, 0.5, 1.2)


@config
class DrawerConfig:
    """How hard task B is. Lengths in m, in the base frame."""

    regime: Literal["terminal", "retry"] = "terminal"
    """terminal: a narrow box topples when hit, and then lies where it cannot be grasped. retry: a
    wide smooth foot makes it slide instead, so mistakes cost time."""
    gap: float = 0.026
    """Between the bar and the drawer's front: room for one finger."""
    bar_length: float = 0.10
    friction: float = 1.5
    """N, of the drawer's slides."""
    cabinet_x: tuple[float, float] = (0.70, 0.74)
    cabinet_y: tuple[float, float] = (0.02, 0.08)
    box_x: tuple[float, float] = (0.44, 0.50)
    box_y: tuple[float, float] = (-0.29, -0.26)
    box_yaw: tuple[float, float] = (-0.10, 0.10)
    home_offset: float = 0.02
    home_turn: float = 0.04
    scale: float = 1.0
    """Width of the tissue box against the one demonstrated."""
    mass_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.018 <= self.gap <= 0.06:
            raise ValueError(f"drawer.gap = {self.gap}: expected 0.018..0.06 m (a finger is 0.016)")


class DrawerTask(Task):
    """Success: drawer open, box lying in it, released and still.

    Failures: ``fell`` (the box left the table), ``out_of_reach``, ``box_over`` (toppled on the
    table, where it cannot be grasped from above).
    """

    name = "drawer"
    stages = ("home", "hooked", "drawer_open", "box_grasped")
    object_names = ("tissue_box", "drawer", "cabinet")
    handled = "tissue_box"
    limit = 26.0
    eye = Eye(position=(0.45, -1.05, 0.55), target=(0.50, -0.02, 0.0))
    home_joints = np.array([-0.3, -1.5, 2.0, -2.1, -1.57, 0.0])

    def __init__(self, config: DrawerConfig):
        self.config = config
        if config.regime == "retry":
            self.push = 2.25  # its foot is smooth

    def assets(self) -> str:
        return """<material name="wood_dark" rgba="0.45 0.33 0.24 1" specular="0.1"/>
        <material name="wood_light" rgba="0.80 0.68 0.52 1" specular="0.1"/>
        <material name="tissue" rgba="0.93 0.58 0.66 1" specular="0.1"/>"""

    def bodies(self) -> str:
        c, depth, width, height = self.config, CABINET_DEPTH, CABINET_WIDTH, 0.085
        half = c.bar_length / 2
        bar_x, bar_z = -depth - c.gap - 0.005, HANDLE_HEIGHT - 0.006
        cabinet = "".join(
            _wall(position, size, "wood_light")
            for position, size in (
                ((0, 0, height + 0.004), (depth, width + 0.012, 0.004)),
                ((0, width + 0.008, height / 2), (depth, 0.004, height / 2)),
                ((0, -width - 0.008, height / 2), (depth, 0.004, height / 2)),
                ((depth, 0, height / 2), (0.004, width, height / 2)),
            )
        )
        light = 'mass="0.08" friction="0.4 0.005 0.0001"'
        drawer = _wall((-depth + 0.004, 0, 0.036), (0.004, width, 0.036), "wood_light", light)
        drawer += "".join(
            _wall(position, size, "wood_dark", light)
            for position, size in (
                ((-0.005, 0, 0.003), (depth - 0.008, width, 0.003)),
                ((0, width - 0.003, 0.028), (depth - 0.01, 0.003, 0.028)),
                ((0, -width + 0.003, 0.028), (depth - 0.01, 0.003, 0.028)),
                ((depth - 0.012, 0, 0.028), (0.003, width - 0.006, 0.028)),
            )
        )
        posts = "".join(
            f'<geom type="capsule" fromto="{bar_x} {y} {bar_z} {-depth} {y} {bar_z}" size="0.005"'
            ' mass="0.01" material="metal"/>'
            for y in (-half, half)
        )
        x, y, z = BOX_SIZE
        foot = ""
        if c.regime == "retry":  # a push tips a box only above half its width / friction
            foot = f"""<geom name="foot" type="box" pos="0 0 {0.0015 - z}" material="tissue"
          size="{x} {_FOOT * y * c.scale} 0.002" mass="{0.04 * c.mass_scale}"
          friction="0.15 0.005 0.0001" priority="1"/>"""
        return f"""<body name="cabinet" mocap="true" pos="0.72 0.05 {TABLE_Z}">{cabinet}
         <body name="drawer" pos="0 0 0.006" gravcomp="1">
          <joint name="drawer" type="slide" axis="-1 0 0" range="0 {DRAWER_TRAVEL}"
           frictionloss="{c.friction}" damping="8" armature="0.05"/>
          {drawer}
          <geom name="bar" type="capsule" fromto="{bar_x} {-half} {bar_z} {bar_x} {half} {bar_z}"
           size="0.005" mass="0.03" material="metal" friction="0.8 0.01 0.0001"/>{posts}
         </body></body>
        <body name="tissue_box"><freejoint name="tissue_box"/>
         <geom name="tissue_box" type="box" size="{x} {y * c.scale} {z}"
          mass="{0.05 * c.mass_scale}" material="tissue" condim="4" friction="0.8 0.01 0.0001"/>{foot}
         <geom class="look" type="box" size="{x} {y * c.scale} 0.004" pos="0 0 {0.005 - z}"
          mass="{0.08 * c.mass_scale}" material="tissue"/>
         <geom class="look" type="box" size="0.03 0.006 0.012" pos="0 0 {z + 0.010}"
          rgba="0.98 0.98 0.98 1"/></body>"""

    def _bind(self, model: mujoco.MjModel) -> None:
        joint = model.joint("tissue_box")
        self._qpos, self._dof = int(joint.qposadr[0]), int(joint.dofadr[0])
        self._slide = int(model.joint("drawer").qposadr[0])
        self._mocap = int(model.body("cabinet").mocapid[0])
        self._drawer = model.body("drawer").id

    def corners(self) -> dict[str, Array]:
        x, y, z = BOX_SIZE
        wide = _FOOT if self.config.regime == "retry" else 1.0
        return {"tissue_box": box_corners((x, wide * y * self.config.scale, z))}

    def home(self, rng: np.random.Generator) -> Home:
        turn = rotation_matrix(rng.normal(0, self.config.home_turn, 3))
        offset = rng.uniform(-1, 1, 3) * self.config.home_offset
        position = np.array([0.45, 0.0, 0.25 + TABLE_Z]) + offset
        return Home(make_pose(HOOK_GRASP @ turn, position), motors(0.05, 0.05, 0.05, 0.05, 0, 0))

    def place(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        c = self.config
        data.mocap_pos[self._mocap] = [
            rng.uniform(*c.cabinet_x),
            rng.uniform(*c.cabinet_y),
            TABLE_Z,
        ]
        position = [rng.uniform(*c.box_x), rng.uniform(*c.box_y), TABLE_Z + BOX_SIZE[2] + 0.0005]
        data.qpos[self._qpos : self._qpos + 3] = position
        data.qpos[self._qpos + 3 : self._qpos + 7] = upright_yaw(rng.uniform(*c.box_yaw))

    def lifted(self, data: mujoco.MjData) -> bool:
        return bool(data.xpos[self.handled_id, 2] > TABLE_Z + BOX_SIZE[2] + 0.03)

    def judge(self, data: mujoco.MjData) -> Verdict:
        box, drawer = data.xpos[self.handled_id], data.xpos[self._drawer]
        touched = self.touches(data)
        velocity = data.qvel[self._dof : self._dof + 3]
        fulfilled = (
            data.qpos[self._slide] > 0.10
            and abs(box[0] - drawer[0]) < CABINET_DEPTH - 0.005
            and abs(box[1] - drawer[1]) < CABINET_WIDTH - 0.01
            and box[2] < TABLE_Z + 0.075
            and not touched
            and float(velocity @ velocity) < 0.03**2
        )
        failure = ""
        over = abs(float(data.xmat[self.handled_id, 8])) < 0.7
        inside = abs(box[0] - drawer[0]) < CABINET_DEPTH and abs(box[1] - drawer[1]) < CABINET_WIDTH
        if box[2] < TABLE_Z - 0.05:
            failure = "fell"
        elif not (0.30 < box[0] < 0.90 and -0.45 < box[1] < 0.45):
            failure = "out_of_reach"
        elif over and not inside and not touched and box[2] < TABLE_Z + 0.04:
            failure = "box_over"
        return Verdict(bool(fulfilled), failure, touched)


def _wall(
    position: tuple[float, float, float],
    size: tuple[float, float, float],
    material: str,
    more: str = "",
) -> str:
    x, y, z = position
    a, b, c = size
    return f'<geom type="box" pos="{x} {y} {z}" size="{a} {b} {c}" material="{material}" {more}/>'
