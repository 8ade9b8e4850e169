"""The way home between two episodes, as a chunk that the arbiter executes like a policy's.

Open the hand, lift, travel: each part on a minimum-jerk curve whose peak stays below its speed.
The arbiter's own limits hold on top.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import numpy as np
from pydantic import Field

from dexpie_ros.config import ConfigError, FinitePosition, UnitQuaternion, config
from dexpie_ros.control.quaternions import blend, distance_and_angle
from dexpie_ros.control.types import STEP_NS, Chunk, Command
from dexpie_ros.geometry import Pose

PEAK = 1.875
"""Peak of a minimum-jerk curve's speed over its mean speed."""
POLICY_ID = "home"
Opening = Annotated[float, Field(ge=0, le=1)]


@config
class HomingConfig:
    """How the robot goes home."""

    linear_speed: float = Field(0.15, gt=0)
    """m/s at most"""
    angular_speed: float = Field(0.6, gt=0)
    """rad/s at most"""
    hand_speed: float = Field(1.0, gt=0)
    """openings/s at most"""
    lift: float = Field(0.08, ge=0)
    """m straight up before travelling, but not above the home's height"""
    open_first: bool = True
    """let go of what is held before moving; False: the hand moves while travelling"""
    position: FinitePosition | None = None
    """m, where home is, frame base; no robot has one that nobody gave it"""
    quaternion: UnitQuaternion | None = None
    """x y z w, likewise"""
    hand: tuple[Opening, Opening, Opening, Opening, Opening, Opening] | None = None
    """openings at home, likewise"""

    def in_simulation(self) -> HomingConfig:
        """The same with the simulated cell's home for what was not given."""
        given = {name: SIMULATED_HOME[name] for name in self._missing()}
        return dataclasses.replace(self, **given)  # type: ignore[arg-type]

    def unknown(self) -> str:
        """Why nobody can go home, or ""."""
        missing = ", ".join(f"homing.{name}" for name in self._missing())
        return missing and (
            f"nobody said where home is: set {missing} of intervention_arbiter in the parameter file "
            "to what /arm/tcp_pose and /hand/joint_states say while the robot is there"
        )

    @property
    def home(self) -> Command:
        """Where the way ends; ConfigError where that is :meth:`unknown`."""
        if self.position is None or self.quaternion is None or self.hand is None:
            raise ConfigError(self.unknown())
        pose = Pose(np.array(self.position), np.array(self.quaternion))
        return Command(pose, np.array(self.hand))

    def _missing(self) -> list[str]:
        return [name for name in SIMULATED_HOME if getattr(self, name) is None]


SIMULATED_HOME: dict[str, tuple[float, ...]] = {
    "position": (0.42, -0.02, 0.12),
    "quaternion": (0.5, 0.5, 0.5, 0.5),
    "hand": (1.0, 1.0, 1.0, 1.0, 1.0, 0.08),
}
"""Beside the simulated task. On a robot it might lie in the table, or behind something."""


def minimum_jerk(s: float) -> float:
    """0 .. 1 with no speed and no acceleration at both ends."""
    s = min(max(s, 0.0), 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s * s)


def plan_home(
    start: Command, home: Command, time_ns: int, settings: HomingConfig | None = None
) -> Chunk:
    """The commands from ``start`` (due at ``time_ns``) to ``home``, one per control step."""
    use = settings or HomingConfig()
    way = [start]
    if use.open_first:
        way.append(Command(start.tcp, np.maximum(start.hand, home.hand)))
    up = min(use.lift, max(0.0, float(home.tcp.position[2] - start.tcp.position[2])))
    if up > 0:
        lifted = Pose(start.tcp.position + np.array([0.0, 0.0, up]), start.tcp.quaternion)
        way.append(Command(lifted, way[-1].hand))
    way.append(home)
    commands = [start]
    for a, b in zip(way, way[1:], strict=False):
        commands += _part(a, b, use)
    return Chunk(
        time_ns=time_ns,
        positions=np.array([c.tcp.position for c in commands]),
        quaternions=np.array([c.tcp.quaternion for c in commands]),
        hand=np.array([c.hand for c in commands]),
        policy_id=POLICY_ID,
    )


def _part(start: Command, end: Command, use: HomingConfig) -> list[Command]:
    distance, angle = distance_and_angle(start.tcp, end.tcp)
    hand = float(np.max(np.abs(end.hand - start.hand)))
    slowest = max(distance / use.linear_speed, angle / use.angular_speed, hand / use.hand_speed)
    steps = math.ceil(PEAK * slowest / (STEP_NS * 1e-9))
    commands = []
    for k in range(1, steps + 1):
        s = minimum_jerk(k / steps)
        commands.append(
            Command(blend(start.tcp, end.tcp, s), start.hand + s * (end.hand - start.hand))
        )
    return commands
