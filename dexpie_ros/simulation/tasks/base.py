"""What a task adds to the cell: bodies, a random start, and a judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.geometry import Array, Pose
from dexpie_ros.simulation.kinematics import pose_of
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import Eye


@dataclass(frozen=True)
class Verdict:
    """What is true of one instant."""

    fulfilled: bool
    """The goal holds now; success needs it for :attr:`Task.dwell` steps on end."""
    failure: str
    """Why the episode cannot succeed any more; empty while it can."""
    contact: bool
    """The hand touches what it is to handle."""


@dataclass(frozen=True, eq=False)
class Home:
    """Where the robot starts: TCP (4, 4) in base, openings (6,)."""

    tcp: Array
    hand: Array


class Task(ABC):
    """One manipulation task. Moved static bodies are mocap bodies: MuJoCo's state then holds all.

    ``place`` draws everything from the generator it is given, in a fixed order.
    """

    name: str
    stages: tuple[str, ...]
    """Where episodes may start, first = everything at home."""
    object_names: tuple[str, ...]
    handled: str
    """Body that the hand is to hold; disturbances act on it."""
    drops: frozenset[str] = frozenset()
    """Failures in which what was held fell out of the hand."""
    dwell = 5
    limit: float
    """s, within which a person says that it should be done."""
    home_joints: Array
    thumb_torque = 1.5
    """N m, most that each thumb motor gives."""
    eye = Eye()
    """The front camera."""
    push = 9.0
    """m/s² at the handled object's foot, for 0.24 s, that move it by a few cm."""

    def bind(self, model: mujoco.MjModel) -> None:
        """Look up ids in the compiled model."""
        self._bodies = {name: model.body(name).id for name in self.object_names}
        self.handled_id = model.body(self.handled).id
        self._hand_geom = self._geoms_under(model, "hand")
        self._held_geom = np.asarray(model.geom_bodyid == self.handled_id)
        self._bind(model)

    @abstractmethod
    def assets(self) -> str:
        """MJCF assets."""

    @abstractmethod
    def bodies(self) -> str:
        """MJCF bodies."""

    @abstractmethod
    def corners(self) -> dict[str, Array]:
        """Of each object that a hand can carry, its outermost points (n, 3) in its own frame, m."""

    @abstractmethod
    def home(self, rng: np.random.Generator) -> Home:
        """Where the robot starts this episode."""

    @abstractmethod
    def place(self, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Put the objects of ``data`` into a random initial state."""

    @abstractmethod
    def judge(self, data: mujoco.MjData) -> Verdict:
        """Goal, failure and contact at this instant."""

    @abstractmethod
    def lifted(self, data: mujoco.MjData) -> bool:
        """Whether the handled body is off its support."""

    @abstractmethod
    def _bind(self, model: mujoco.MjModel) -> None: ...

    def objects(self, data: mujoco.MjData) -> dict[str, Pose]:
        """Poses of the task's objects in the base frame."""
        return {n: pose_of(data.xpos[i], data.xmat[i]) for n, i in self._bodies.items()}

    def touches(self, data: mujoco.MjData) -> bool:
        """Whether any part of the hand is in contact with the handled body."""
        pairs = data.contact.geom
        if not len(pairs):
            return False
        first, second = pairs[:, 0], pairs[:, 1]
        hand, held = self._hand_geom, self._held_geom
        return bool(((hand[first] & held[second]) | (held[first] & hand[second])).any())

    @staticmethod
    def _geoms_under(model: mujoco.MjModel, body: str) -> NDArray[np.bool_]:
        root = model.body(body).id
        inside = np.zeros(model.nbody, bool)
        inside[root] = True
        for child in range(root + 1, model.nbody):
            inside[child] = inside[model.body_parentid[child]]
        return np.asarray(inside[model.geom_bodyid])


def box_corners(half: tuple[float, float, float]) -> Array:
    """The corners (8, 3) of a box about the origin with these half sizes."""
    signs = np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), axis=-1).reshape(8, 3)
    return np.asarray(signs * half)


def frame(x: tuple[float, float, float], z: tuple[float, float, float]) -> Array:
    """Rotation (3, 3) whose columns are the given x and z axes and the y between them."""
    xa, za = np.asarray(x, np.float64), np.asarray(z, np.float64)
    xa, za = xa / np.linalg.norm(xa), za / np.linalg.norm(za)
    return np.stack([xa, np.cross(za, xa), za], axis=1)


def upright_yaw(yaw: float) -> Array:
    """Quaternion (4,) in MuJoCo's order w x y z of a turn about the vertical."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])
