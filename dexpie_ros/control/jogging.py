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
from dexpie_ros.control.quaternions import as_quaternion, from_rotvec, motion, multiply
from dexpie_ros.control.types import HAND_JOINTS, STEP_NS, Chunk, Command, ControlStep
from dexpie_ros.geometry import Array

AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Along and about the axes of `base`, through the TCP."""
NAMES = (*AXES, *HAND_JOINTS)
POLICY_ID = "jog"
NEARLY = 1e-6
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
    """The newest question, as velocities and how far at most."""

    def __init__(self, settings: JogConfig | None = None) -> None:
        self.config = settings or JogConfig()
        self._velocity = np.zeros(len(NAMES))
        self._amount = np.full(len(NAMES), np.inf)
        self._asked_ns: int | None = None
        self._identity: int | None = None
        self._start: Command | None = None
        self._arrived = False

    def ask(
        self,
        names: Sequence[str],
        velocities: Sequence[float],
        now_ns: int,
        amounts: Sequence[float] = (),
        identity: int = 0,
    ) -> str:
        """Go on with these velocities (m/s, rad/s, openings/s), the others zero; or why not.

        Faster ones are slowed down together, so that the direction stays. ``amounts``: no farther
        than these from where the jog called ``identity`` began. Times are monotonic.
        """
        wanted, farthest = np.zeros(len(NAMES)), np.full(len(NAMES), np.inf)
        if len(names) != len(velocities) or not names or len(amounts) not in (0, len(names)):
            return f"{len(names)} names, {len(velocities)} velocities and {len(amounts)} positions"
        for name, velocity, amount in zip(
            names, velocities, amounts or [np.inf] * len(names), strict=True
        ):
            if name not in NAMES:
                return f"no axis {name!r}; known: {', '.join(NAMES)}"
            if not np.isfinite(velocity) or np.isnan(amount):
                return f"{name}: velocity and position must be numbers"
            wanted[NAMES.index(name)], farthest[NAMES.index(name)] = velocity, abs(amount)
        use = self.config
        share = max(
            float(np.linalg.norm(wanted[:3])) / use.linear_speed,
            float(np.linalg.norm(wanted[3:6])) / use.angular_speed,
            float(np.abs(wanted[6:]).max()) / use.hand_speed,
            1.0,
        )
        if identity != self._identity:
            self._identity, self._start, self._arrived = identity, None, False
        self._velocity, self._amount, self._asked_ns = wanted / share, farthest, now_ns
        return ""

    def asked(self, now_ns: int) -> bool:
        """Whether somebody still wants the robot to move."""
        asked = (
            self._asked_ns is not None and now_ns - self._asked_ns < self.config.patience_s * 1e9
        )
        return asked and not self._arrived and bool(self._velocity.any())

    def chunk(self, step: ControlStep) -> Chunk:
        """The next steps' commands after the one of ``step``."""
        if self._start is None:
            self._start = step.command
        command, velocity = step.command, self._velocity
        gone = np.sign(velocity) * _motion(self._start, command)
        left = np.maximum(self._amount - gone, 0.0)
        self._arrived = bool((left[velocity != 0] < NEARLY).all())
        ways = np.arange(AHEAD + 1)[:, None] * STEP_NS * 1e-9 * np.abs(velocity)
        ways = np.sign(velocity) * np.minimum(ways, left)
        return Chunk(
            time_ns=step.time_ns,
            positions=command.tcp.position + ways[:, :3],
            quaternions=np.array([_turned(command.tcp.quaternion, way[3:6]) for way in ways]),
            hand=np.clip(np.asarray(command.hand, np.float64) + ways[:, 6:], 0.0, 1.0),
            policy_id=POLICY_ID,
        )


def _motion(start: Command, command: Command) -> Array:
    """(12,) from ``start`` to ``command`` along and about the axes of base, and of the fingers."""
    linear, angular = motion(start.tcp, command.tcp)
    return np.array([*linear, *angular, *(command.hand - start.hand)])


def _turned(quaternion: Array, rotation_vector: Array) -> tuple[float, float, float, float]:
    x, y, z = (float(v) for v in rotation_vector)
    return as_quaternion(multiply(from_rotvec((x, y, z)), as_quaternion(quaternion)))
