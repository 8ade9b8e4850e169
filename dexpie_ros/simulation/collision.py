"""A failure that no camera explains: the hand runs into something that cannot be seen.

The paper's special case (appendix B.3): the arm hits the table and stops, in episodes that look
like any other until then. A critic that cannot see the cause blames what it can see. Here an
invisible plate lies in front of the bottle in a share of the episodes; it stops the hand but not the
objects. Its pose is reported as the object ``hidden_plate``, so that the missing signal can be given
to a critic.
"""

from __future__ import annotations

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import TABLE_Z

PLATE = "hidden_plate"
_HALF = 0.05
_AHEAD = np.array([-0.07, 0.0])
_AWAY = -2.0


@config
class CollisionConfig:
    """When the robot stops because it hit something."""

    plate: float = 0.0
    """Probability of the invisible plate in an episode."""
    height: float = 0.055
    """m, of the plate above the table: the little finger's side passes 25-50 mm above it."""
    force_limit: float = 10.0
    """N between hand and plate from which the episode fails (collision)."""

    def __post_init__(self) -> None:
        if not 0 <= self.plate <= 1:
            raise ValueError(f"collision.plate = {self.plate}: expected 0..1")
        if not 0.005 <= self.height <= 0.1 or self.force_limit <= 0:
            raise ValueError("collision: height 0.005..0.1 m, force_limit above 0 N")


class HiddenPlate:
    """The plate of one cell; absent from the model where its probability is 0."""

    def __init__(self, config: CollisionConfig):
        self.config = config
        self.present = config.plate > 0

    def xml(self) -> str:
        """MJCF. Bit 2 is the robot's: objects and table pass through."""
        if not self.present:
            return ""
        half = self.config.height / 2
        return f"""<body name="{PLATE}" mocap="true" pos="0 0 {_AWAY}">
         <geom name="{PLATE}" type="box" size="{_HALF} {_HALF} {half}" pos="0 0 {half}"
          rgba="0 0 0 0" contype="4" conaffinity="2"/></body>"""

    def bind(self, model: mujoco.MjModel) -> None:
        if self.present:
            self._model = model
            self._mocap = int(model.body(PLATE).mocapid[0])
            self._geom = model.geom(PLATE).id
            self.body = model.body(PLATE).id

    def place(self, data: mujoco.MjData, object_position: Array, rng: np.random.Generator) -> None:
        """Lay the plate in front of the object, or put it away."""
        if not self.present:
            return
        there = rng.uniform() < self.config.plate
        x, y = object_position[:2] + _AHEAD
        data.mocap_pos[self._mocap] = [x, y, TABLE_Z if there else _AWAY]

    def hit(self, data: mujoco.MjData) -> bool:
        """Whether the robot presses on the plate harder than the limit."""
        if not self.present:
            return False
        total, force = 0.0, np.zeros(6)
        for index in np.flatnonzero((data.contact.geom == self._geom).any(axis=1)):
            mujoco.mj_contactForce(self._model, data, int(index), force)
            total += abs(float(force[0]))
        return total > self.config.force_limit
