"""What a person sees of a collision to come: how high the hand is above the table, and how fast it sinks.

Only poses and openings that cameras show enter here, never contacts, forces or commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array, invert
from dexpie_ros.simulation import robot_model
from dexpie_ros.simulation.kinematics import at, matrix_of
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import TABLE_Z
from dexpie_ros.simulation.state import CellState

_STEP_S = 0.04
_LOOK_STEPS = 2
"""Control steps over which a speed is judged by eye."""
_TOGETHER = 0.05
"""m/s by which hand and object may differ if one carries the other."""
_WITHIN_REACH = 0.2
"""m from the TCP to what it can be carrying."""


@config
class ClearanceConfig:
    """When a descent looks like a collision with the table. Times in s, at the present speed."""

    ahead: float = 0.3
    """Until the table is reached, where the hand has nothing to do; 0: nobody watches for it."""
    ahead_at_work: float = 0.1
    """The same where it works low above the table: over what it grasps and where it puts it."""
    place: float = 0.06
    """m, horizontally, that count as there."""
    speed: float = 0.12
    """m/s; a slower descent looks meant."""

    def __post_init__(self) -> None:
        if not 0 <= self.ahead_at_work <= self.ahead <= 5 and self.ahead:
            raise ValueError("clearance: expected 0 <= ahead_at_work <= ahead <= 5 s")
        if self.place < 0 or not 0 < self.speed <= 1:
            raise ValueError("clearance: expected place 0 or more, speed above 0 and up to 1 m/s")


class HandOutline:
    """The hand's shape, to tell its lowest point from TCP pose and openings."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(
            '<mujoco><compiler angle="radian" autolimits="true" eulerseq="XYZ"/>'
            f"<default>{robot_model.DEFAULTS}</default><asset>{robot_model.MATERIALS}</asset>"
            f"<worldbody>{robot_model.hand_xml()}</worldbody>"
            f"<equality>{robot_model.coupling_xml()}</equality></mujoco>"
        )
        self._data = mujoco.MjData(self._model)
        model = self._model
        self._motors = [int(model.joint(name).qposadr[0]) for name in robot_model.HAND_MOTOR_JOINTS]
        self._coupled = [
            (int(model.jnt_qposadr[far]), int(model.jnt_qposadr[near]), row[:2].copy())
            for far, near, row in zip(model.eq_obj1id, model.eq_obj2id, model.eq_data, strict=True)
        ]
        kind, size = model.geom_type, model.geom_size
        box, sphere = (kind == getattr(mujoco.mjtGeom, f"mjGEOM_{n}") for n in ("BOX", "SPHERE"))
        self._half = np.where(box[:, None], size, 0.0)
        self._radius = np.where(box, 0.0, size[:, 0])
        # capsules and cylinders: half the length of their axis (a cylinder's rim counts as round)
        self._axis = np.where(box | sphere, 0.0, size[:, 1])

    def lowest(self, tcp: Array, openings: Array) -> float:
        """Height in the base frame, m, of the hand's lowest point; TCP (4, 4), openings (6,)."""
        model, data = self._model, self._data
        data.qpos[self._motors] = (1.0 - openings) * robot_model.HAND_RANGE
        for far, near, (offset, ratio) in self._coupled:
            data.qpos[far] = offset + ratio * data.qpos[near]
        mujoco.mj_kinematics(model, data)
        site = at(data.site_xmat[0].reshape(3, 3), data.site_xpos[0])
        hand = tcp @ invert(site)
        # The vertical in the hand's frame, then in each part's own.
        up = hand[2, :3]
        local = np.abs(np.einsum("nij,i->nj", data.geom_xmat.reshape(-1, 3, 3), up))
        below = (local * self._half).sum(1) + local[:, 2] * self._axis + self._radius
        return float((data.geom_xpos @ up - below).min() + hand[2, 3])


class Clearance:
    """One episode's watching of hand and carried object above the table."""

    def __init__(
        self, config: ClearanceConfig, outline: HandOutline, corners: Mapping[str, Array]
    ) -> None:
        """``corners``: of each object that can be carried, its outermost points (n, 3)."""
        self.config, self._outline, self._corners = config, outline, corners
        self._past: deque[tuple[int, dict[str, Array]]] = deque(maxlen=_LOOK_STEPS + 1)

    def look(self, seen: CellState, places: Sequence[Array]) -> str:
        """``collision`` if the hand, or what it carries, is about to hit the table, else empty.

        ``places``: TCP positions (3,) at which the hand has work to do low above the table.
        """
        c = self.config
        if c.ahead <= 0:
            return ""
        if self._past and seen.scene_tick != self._past[-1][0] + 1:
            self._past.clear()
        now = self._heights(seen)
        self._past.append((seen.scene_tick, now))
        if len(self._past) <= _LOOK_STEPS:
            return ""
        before, seconds = self._past[0][1], _LOOK_STEPS * _STEP_S
        hand = now["hand"][:3]
        velocity = (hand - before["hand"][:3]) / seconds
        sinking = -float(velocity[2])
        if sinking <= c.speed:
            return ""
        beside = min((float(np.hypot(*(p - hand)[:2])) for p in places), default=np.inf)
        reached = sinking * (c.ahead_at_work if beside < c.place else c.ahead)
        for name, value in now.items():
            own = (value[:3] - before[name][:3]) / seconds
            carried = (
                np.linalg.norm(own - velocity) < _TOGETHER
                and np.linalg.norm(value[:3] - hand) < _WITHIN_REACH
            )
            if (name == "hand" or carried) and value[3] < reached:
                return "collision"
        return ""

    def _heights(self, seen: CellState) -> dict[str, Array]:
        """Position and lowest point above the table (4,), of the hand and of what it may carry."""
        tcp = matrix_of(seen.robot.tcp)
        lowest = self._outline.lowest(tcp, seen.robot.hand)
        found = {"hand": np.append(tcp[:3, 3], lowest - TABLE_Z)}
        for name, corners in self._corners.items():
            pose = matrix_of(seen.objects[name])
            lowest = float((corners @ pose[2, :3]).min() + pose[2, 3])
            found[name] = np.append(pose[:3, 3], lowest - TABLE_Z)
        return found
