"""Small motions by hand between two episodes, for the first motion of a robot.

Somebody asks for velocities again and again; each question is good for a moment only, so that
whoever goes away leaves a robot that holds. The motion is a chunk of a few steps that the arbiter
executes like a policy's: its limits hold on top.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.quaternions import as_quaternion, from_rotvec, multiply
from dexpie_ros.control.types import HAND_JOINTS, STEP_NS, Chunk, ControlStep
from dexpie_ros.geometry import Array

AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Along and about the axes of `base`, through the TCP."""
NAMES = (*AXES, *HAND_JOINTS)
POLICY_ID = "jog"
AHEAD = 3
"""Steps of a chunk: a step that comes late still finds a command."""


@config
class JogConfig:
    """How fast a jog may be and how often it must be asked for."""

    linear_speed: float = Field(0.05, gt=0)
    """m/s at most"""
    angular_speed: float = Field(0.2, gt=0)
    """rad/s at most"""
    hand_speed: float = Field(0.5, gt=0)
    """openings/s at most"""
    patience_s: float = Field(0.2, gt=0)
    """Without a further question for this long the robot holds."""


class Jogging:
    """The newest question, as velocities."""

    def __init__(self, settings: JogConfig | None = None) -> None:
        self.config = settings or JogConfig()
        self._velocity = np.zeros(len(NAMES))
        self._asked_ns: int | None = None

    def ask(self, names: Sequence[str], velocities: Sequence[float], now_ns: int) -> str:
        """Go on with these velocities (m/s, rad/s, openings/s), the others zero; or why not.

        Faster ones are slowed down together, so that the direction stays. Times are monotonic.
        """
        wanted = np.zeros(len(NAMES))
        if len(names) != len(velocities) or not names:
            return f"{len(names)} names and {len(velocities)} velocities; expected one each"
        for name, velocity in zip(names, velocities, strict=True):
            if name not in NAMES:
                return f"no axis {name!r}; known: {', '.join(NAMES)}"
            if not np.isfinite(velocity):
                return f"{name}: the velocity is not finite"
            wanted[NAMES.index(name)] = velocity
        use = self.config
        share = max(
            float(np.linalg.norm(wanted[:3])) / use.linear_speed,
            float(np.linalg.norm(wanted[3:6])) / use.angular_speed,
            float(np.abs(wanted[6:]).max()) / use.hand_speed,
            1.0,
        )
        self._velocity, self._asked_ns = wanted / share, now_ns
        return ""

    def asked(self, now_ns: int) -> bool:
        """Whether somebody still wants the robot to move."""
        asked = (
            self._asked_ns is not None and now_ns - self._asked_ns < self.config.patience_s * 1e9
        )
        return asked and bool(self._velocity.any())

    def stop(self) -> None:
        """Nobody does any more."""
        self._asked_ns = None

    def chunk(self, step: ControlStep) -> Chunk:
        """The next steps' commands after the one of ``step``."""
        velocity, dt = self._velocity, STEP_NS * 1e-9
        times = np.arange(AHEAD + 1)[:, None] * dt
        start, hand = step.command.tcp, np.asarray(step.command.hand, np.float64)
        return Chunk(
            time_ns=step.time_ns,
            positions=start.position + times * velocity[:3],
            quaternions=np.array([_turned(start.quaternion, velocity[3:6] * t) for t in times]),
            hand=np.clip(hand + times * velocity[6:], 0.0, 1.0),
            policy_id=POLICY_ID,
        )


def _turned(quaternion: Array, rotation_vector: Array) -> tuple[float, float, float, float]:
    x, y, z = (float(v) for v in rotation_vector)
    return as_quaternion(multiply(from_rotvec((x, y, z)), as_quaternion(quaternion)))
