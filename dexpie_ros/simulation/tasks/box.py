"""Task C: take the lid off a box by its spherical knob, put it aside, drop a candy in."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array, make_pose
from dexpie_ros.simulation.kinematics import rotation_matrix
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import TABLE_Z, Eye
from dexpie_ros.simulation.tasks.base import Home, Task, Verdict, box_corners, frame, upright_yaw
from dexpie_ros.simulation.tasks.drawer import motors

_TILT = np.radians(50.0)
TILT_GRASP = frame((-np.cos(_TILT), 0, -np.sin(_TILT)), (np.sin(_TILT), 0, -np.cos(_TILT)))
"""Fingers forward and down, palm down and back: tips of thumb and fingers at one height."""
READY_HAND = motors(0.5, 0.5, 0.5, 0.5, 0.05, 1.2)
"""Fingers half bent, thumb opposed: a 60 mm opening."""
PINCH_HAND = motors(0.95, 0.95, 0.95, 0.95, 0.5, 1.2)
"""A little past touching: fingers closed much further roll the knob out of the pinch."""

HALF_WIDTH, HEIGHT, WALL = 0.06, 0.06, 0.004
KNOB_ABOVE_LID = 0.012
CANDY_SIZE = (0.018, 0.014, 0.018)
BREAKING_SPEED = 0.5
"""m/s at which a falling lid is lost: reached after 13 mm; the box is 60 mm high."""


@config
class BoxConfig:
    """How hard task C is. Lengths in m, in the base frame."""

    regime: Literal["terminal", "retry"] = "retry"
    """terminal: the lid breaks when it is dropped. retry: it can be dropped and picked up again."""
    knob_radius: float = 0.019
    fit: float = 0.004
    """Play of the lid's plug in the box on each side."""
    box_x: tuple[float, float] = (0.53, 0.57)
    box_y: tuple[float, float] = (0.10, 0.13)
    candy_x: tuple[float, float] = (0.48, 0.54)
    candy_y: tuple[float, float] = (-0.06, -0.03)
    candy_yaw: tuple[float, float] = (-0.10, 0.10)
    home_offset: float = 0.02
    home_turn: float = 0.04
    scale: float = 1.0
    """Size of the candy against the one demonstrated."""
    mass_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0.010 <= self.knob_radius <= 0.03:
            raise ValueError(f"box.knob_radius = {self.knob_radius}: expected 0.01..0.03 m")


class BoxTask(Task):
    """Success: lid off the box, candy inside, released and still.

    Failures: ``fell`` (candy or lid left the table), ``out_of_reach``; in the regime `terminal` also
    ``broke`` (the lid was dropped).
    """

    name = "box"
    stages = ("home", "knob_grasped", "lid_aside", "candy_grasped")
    object_names = ("candy", "lid", "box")
    handled = "candy"
    drops = frozenset({"broke"})
    limit = 28.0
    thumb_torque = 2.2
    """N m: the thumb must not give way to two fingers, or the knob is squeezed out of the pinch."""
    eye = Eye(position=(1.20, 0.10, 0.55), target=(0.45, 0.06, -0.02))
    home_joints = np.array([-0.6, -1.45, 2.2, -0.75, 1.0, 1.57])

    push = 10.0

    def __init__(self, config: BoxConfig):
        self.config = config
        self.knob_height = KNOB_ABOVE_LID + config.knob_radius
        """m, of the knob's centre above the lid's underside."""

    def assets(self) -> str:
        return """<material name="box" rgba="0.76 0.66 0.55 1" specular="0.1"/>
        <material name="lid" rgba="0.36 0.62 0.44 1" specular="0.3"/>
        <material name="knob" rgba="0.82 0.22 0.20 1" specular="0.7" shininess="0.8"/>
        <material name="candy" rgba="0.93 0.36 0.66 1" specular="0.6" shininess="0.6"/>"""

    def bodies(self) -> str:
        c, w, h, t = self.config, HALF_WIDTH, HEIGHT, WALL
        walls = "".join(
            f'<geom type="box" pos="{x} {y} {z}" size="{a} {b} {e}" material="box"/>'
            for (x, y, z), (a, b, e) in (
                ((0, 0, 0.003), (w, w, 0.003)),
                ((w - t / 2, 0, h / 2), (t / 2, w, h / 2)),
                ((-w + t / 2, 0, h / 2), (t / 2, w, h / 2)),
                ((0, w - t / 2, h / 2), (w, t / 2, h / 2)),
                ((0, -w + t / 2, h / 2), (w, t / 2, h / 2)),
            )
        )
        plug = w - t - c.fit
        sx, sy, sz = (c.scale * size for size in CANDY_SIZE)
        return f"""<body name="box" mocap="true" pos="0.55 0.12 {TABLE_Z}">{walls}</body>
        <body name="lid"><freejoint name="lid"/>
         <geom type="box" pos="0 0 .004" size="{w} {w} .004" mass="0.05" material="lid"/>
         <geom type="box" pos="0 0 -.004" size="{plug} {plug} .004" mass="0.01" material="lid"/>
         <geom type="cylinder" pos="0 0 .013" size=".006 .006" mass=".002" material="metal"/>
         <geom name="knob" type="sphere" pos="0 0 {self.knob_height}" size="{c.knob_radius}"
          mass="0.015" material="knob" condim="4" friction="1 0.02 0.0001"/></body>
        <body name="candy"><freejoint name="candy"/>
         <geom name="candy" type="box" size="{sx} {sy} {sz}" mass="{0.02 * c.mass_scale}"
          material="candy" condim="4" friction="1.0 0.02 0.0001"/></body>"""

    def _bind(self, model: mujoco.MjModel) -> None:
        candy, lid = model.joint("candy"), model.joint("lid")
        self._candy, self._dof = int(candy.qposadr[0]), int(candy.dofadr[0])
        self._lid, self._lid_dof = int(lid.qposadr[0]), int(lid.dofadr[0])
        self._mocap = int(model.body("box").mocapid[0])
        self._lid_body = model.body("lid").id
        # The lid is handled as well: a hand on its knob counts as contact.
        self._held_geom = self._held_geom | np.asarray(model.geom_bodyid == self._lid_body)

    def corners(self) -> dict[str, Array]:
        x, y, z = (self.config.scale * size for size in CANDY_SIZE)
        lid = box_corners((HALF_WIDTH, HALF_WIDTH, 0.008))  # plate above, plug below
        return {"candy": box_corners((x, y, z)), "lid": lid}

    def home(self, rng: np.random.Generator) -> Home:
        turn = rotation_matrix(rng.normal(0, self.config.home_turn, 3))
        offset = rng.uniform(-1, 1, 3) * self.config.home_offset
        position = np.array([0.45, 0.0, 0.25 + TABLE_Z]) + offset
        return Home(make_pose(TILT_GRASP @ turn, position), READY_HAND.copy())

    def place(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        c = self.config
        x, y = rng.uniform(*c.box_x), rng.uniform(*c.box_y)
        data.mocap_pos[self._mocap] = [x, y, TABLE_Z]
        data.qpos[self._lid : self._lid + 7] = [x, y, TABLE_Z + HEIGHT + 0.001, 1, 0, 0, 0]
        z = TABLE_Z + CANDY_SIZE[2] * c.scale + 0.0005
        data.qpos[self._candy : self._candy + 3] = [
            rng.uniform(*c.candy_x), rng.uniform(*c.candy_y), z
        ]  # fmt: skip
        data.qpos[self._candy + 3 : self._candy + 7] = upright_yaw(rng.uniform(*c.candy_yaw))

    def lifted(self, data: mujoco.MjData) -> bool:
        return bool(data.xpos[self.handled_id, 2] > TABLE_Z + 0.05)

    def judge(self, data: mujoco.MjData) -> Verdict:
        candy, lid = data.xpos[self.handled_id], data.xpos[self._lid_body]
        box = data.mocap_pos[self._mocap]
        touched = self.touches(data)
        velocity = data.qvel[self._dof : self._dof + 3]
        fulfilled = (
            float(np.hypot(lid[0] - box[0], lid[1] - box[1])) > 0.08
            and abs(candy[0] - box[0]) < HALF_WIDTH - WALL
            and abs(candy[1] - box[1]) < HALF_WIDTH - WALL
            and candy[2] < TABLE_Z + 0.05
            and not touched
            and float(velocity @ velocity) < 0.03**2
        )
        failure = ""
        if min(candy[2], lid[2]) < TABLE_Z - 0.05:
            failure = "fell"
        elif not (0.28 < candy[0] < 0.85 and -0.40 < candy[1] < 0.40):
            failure = "out_of_reach"
        elif self.config.regime == "terminal" and not touched:
            falling = -float(data.qvel[self._lid_dof + 2])
            failure = "broke" if falling > BREAKING_SPEED else ""
        return Verdict(bool(fulfilled), failure, touched)
