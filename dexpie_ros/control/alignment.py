"""How far the operator's hand is from the robot's, and whether a takeover may happen.

Directions of translation are wrong by exactly the orientation misalignment at the takeover
(paper, human-as-follower), therefore the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array


@dataclass(frozen=True, eq=False)
class Alignment:
    """Misalignment of the operator and the robot at one instant."""

    angle: float
    """rad, between the tracker-derived and the measured TCP orientation"""
    hand_difference: Array
    """(6,) the operator's opening minus the robot's"""
    angle_limit: float
    hand_limit: float
    calibrated: bool = True
    """False: nobody said yet how the tracker's world lies to the base; the angle may mean nothing"""

    meant: bool = True
    """False: it was judged without knowing the tracker's world, so that a small angle is chance"""

    @classmethod
    def unknown(cls) -> Alignment:
        """Nobody says how the operator is aligned."""
        return cls(math.nan, np.full(len(HAND_JOINTS), np.nan), math.nan, math.nan)

    @classmethod
    def heard(cls, message: Any) -> Alignment:
        """What a message of /teleop/alignment says; its verdict counts where it is stricter."""
        difference = np.asarray(message.hand_difference, np.float64)
        said = cls(
            float(message.angle), difference, float(message.angle_limit), float(message.hand_limit)
        )
        if said.aligned and not message.aligned:
            return replace(said, calibrated=False, meant=False)
        return said

    @property
    def aligned(self) -> bool:
        """Whether both are within their limits, and that means something."""
        within = bool(np.all(np.abs(self.hand_difference) <= self.hand_limit))
        return self.meant and self.angle <= self.angle_limit and within

    def describe(self) -> str:
        """For a person: what is out of its limit and by how much; empty where nothing is."""
        if math.isnan(self.angle_limit):
            return "alignment unknown: nothing new on /teleop/alignment; is teleop running?"
        parts = []
        if math.isnan(self.angle):
            parts.append("the tracker's pose is unknown")
        elif not self.angle <= self.angle_limit:
            parts.append(
                f"the wrist is {math.degrees(self.angle):.0f} deg off "
                f"(limit {math.degrees(self.angle_limit):.0f})"
            )
        off = np.abs(self.hand_difference)
        for name, difference in zip(HAND_JOINTS, self.hand_difference, strict=True):
            if not abs(difference) <= self.hand_limit:
                word = "more open" if difference > 0 else "more closed"
                parts.append(
                    f"{name} is {abs(difference):.2f} {word} (limit {self.hand_limit:.2f})"
                )
        if np.isnan(off).any():
            parts.append("the glove's values are unknown")
        if not self.meant or (parts and not self.calibrated):
            parts.append("the tracker's world is not calibrated: align the hand and calibrate")
        return "; ".join(parts)
