"""Limits on everything that is executed: workspace, speed, acceleration, hand speed and force.

The limiter sees goals and gives back the nearest command that is allowed after the last one. A goal
within the limits passes with its bits unchanged, so that limits never blur what was recorded.
Braking is never limited: holding still is allowed at any moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import Field

from dexpie_ros.config import ConfigError, config
from dexpie_ros.control.quaternions import (
    Vector,
    as_quaternion,
    as_vector,
    from_rotvec,
    motion,
    multiply,
    norm,
)
from dexpie_ros.control.types import STEP_NS, Command
from dexpie_ros.geometry import Array, Pose

ZERO: Vector = (0.0, 0.0, 0.0)


@config
class LimitsConfig:
    """What a command may ask for. The defaults stop faults, not normal motion."""

    linear_speed: float = Field(0.75, gt=0)
    """m/s of the TCP"""
    angular_speed: float = Field(4.0, gt=0)
    """rad/s of the TCP"""
    hand_speed: float = Field(5.0, gt=0)
    """openings per second and finger; the Inspire hand closes in 0.2 to 0.3 s"""
    linear_acceleration: float = Field(12.5, gt=0)
    """m/s^2 of speeding up; braking is free. 12.5 reaches 0.5 m/s within one step."""
    angular_acceleration: float = Field(75.0, gt=0)
    """rad/s^2 of speeding up; 75 reaches 3 rad/s within one step"""
    workspace_lower: tuple[float, float, float] = (-1.0, -1.0, -0.2)
    """m, corner of the box in `base` that the TCP stays in"""
    workspace_upper: tuple[float, float, float] = (1.0, 1.0, 1.2)
    """m, opposite corner"""
    lead: float = Field(0.25, gt=0)
    """m by which the commanded TCP may be away from the measured one: a robot that cannot follow
    (blocked, out of reach) is not told to go ever further"""
    angular_lead: float = Field(0.8, gt=0, lt=math.pi)
    """rad by which it may be turned away from the measured one, for the same reason"""
    hand_force: float | None = Field(None, gt=0)
    """N; a finger that measures more closes no further. None: not limited here."""

    def __post_init__(self) -> None:
        for low, high, axis in zip(self.workspace_lower, self.workspace_upper, "xyz", strict=True):
            if not low < high:
                raise ConfigError(
                    f"workspace_lower.{axis} = {low} is not below workspace_upper.{axis} = {high}; "
                    "swap them or widen the box"
                )


@dataclass
class LimitStatistics:
    """Control steps at which a limit changed the command, by limit."""

    workspace: int = 0
    lead: int = 0
    linear: int = 0
    angular: int = 0
    hand: int = 0
    force: int = 0
    steps: int = 0
    """steps at which any of them did"""

    def as_dict(self) -> dict[str, float]:
        return {f"clipped_{name}": count for name, count in vars(self).items()}


class _State(NamedTuple):
    command: Command
    linear: Vector
    """m moved in the last step"""
    angular: Vector
    """rad turned in the last step, base frame"""


class Limiter:
    """Turns goals into allowed commands, one per control step."""

    def __init__(self, limits: LimitsConfig | None = None, step_ns: int = STEP_NS) -> None:
        self.config = limits or LimitsConfig()
        self.statistics = LimitStatistics()
        self._step_s = step_ns * 1e-9
        self._state: _State | None = None
        self._stuck_at: Pose | None = None
        """Where the robot was at the last command, if it was not following."""

    @property
    def last(self) -> Command | None:
        """The last command; None before the first :meth:`reset`."""
        return self._state.command if self._state else None

    def reset(self, command: Command) -> None:
        """Start from ``command``, at rest."""
        self._state, self._stuck_at = _State(command, ZERO, ZERO), None

    def hold(self) -> Command:
        """The last command once more; the robot is at rest then. Raises RuntimeError before reset."""
        state = self._require()
        self._state = _State(state.command, ZERO, ZERO)
        return state.command

    def limit(
        self, goal: Command, hand_force: Array | None = None, measured: Pose | None = None
    ) -> Command:
        """The allowed command nearest to ``goal``, and the new last command.

        ``hand_force`` (6,) and the TCP are what was measured, N and in `base`; without them those
        limits do not apply. Raises RuntimeError before :meth:`reset`.
        """
        self._state, clipped = self._advance(self._require(), goal, hand_force, measured)
        self._stuck_at = measured if "lead" in clipped else None
        for name in dict.fromkeys(clipped):
            setattr(self.statistics, name, getattr(self.statistics, name) + 1)
        self.statistics.steps += bool(clipped)
        return self._state.command

    def preview(self, goals: Sequence[Command]) -> tuple[Command, ...]:
        """What :meth:`limit` would give for the next steps' goals; changes nothing."""
        state, commands = self._require(), []
        for goal in goals:
            state, _ = self._advance(state, goal, None, self._stuck_at)
            commands.append(state.command)
        return tuple(commands)

    def require(self) -> Command:
        """The last command; RuntimeError before :meth:`reset`."""
        return self._require().command

    def _require(self) -> _State:
        if self._state is None:
            raise RuntimeError(
                "the limiter has no last command; call reset() with the measured pose"
            )
        return self._state

    def _advance(
        self, state: _State, goal: Command, force: Array | None, measured: Pose | None = None
    ) -> tuple[_State, list[str]]:
        clipped: list[str] = []
        tcp = self._inside(goal.tcp)
        if tcp is not goal.tcp:
            clipped.append("workspace")
        if measured is not None:
            near = self._near(tcp, measured)
            if near is not tcp:
                clipped.append("lead")
                tcp = self._inside(near)  # the robot itself may be outside of the box
        linear, angular = motion(state.command.tcp, tcp)
        scale = self._scale(
            linear, state.linear, self.config.linear_speed, self.config.linear_acceleration
        )
        if scale < 1.0:
            clipped.append("linear")
            linear = (linear[0] * scale, linear[1] * scale, linear[2] * scale)
            start = as_vector(state.command.tcp.position)
            moved = np.array([a + b for a, b in zip(start, linear, strict=True)])
            tcp = Pose(moved, tcp.quaternion)
        scale = self._scale(
            angular, state.angular, self.config.angular_speed, self.config.angular_acceleration
        )
        if scale < 1.0:
            clipped.append("angular")
            angular = (angular[0] * scale, angular[1] * scale, angular[2] * scale)
            start_q = as_quaternion(state.command.tcp.quaternion)
            tcp = Pose(
                tcp.position, np.array(as_quaternion(multiply(from_rotvec(angular), start_q)))
            )
        hand = self._limit_hand(state.command.hand, goal.hand, force, clipped)
        same = tcp is goal.tcp and hand is goal.hand
        return _State(goal if same else Command(tcp, hand), linear, angular), clipped

    def _inside(self, tcp: Pose) -> Pose:
        position = as_vector(tcp.position)
        lower, upper = self.config.workspace_lower, self.config.workspace_upper
        inside = [
            min(max(p, low), high) for p, low, high in zip(position, lower, upper, strict=True)
        ]
        return tcp if tuple(inside) == position else Pose(np.array(inside), tcp.quaternion)

    def _near(self, tcp: Pose, measured: Pose) -> Pose:
        """``tcp``, or as far on the way there from ``measured`` as `lead` and `angular_lead` allow."""
        away, turn = motion(measured, tcp)
        distance, angle = norm(away), norm(turn)
        if distance <= self.config.lead and angle <= self.config.angular_lead:
            return tcp
        position, quaternion = tcp.position, tcp.quaternion
        if distance > self.config.lead:
            position = measured.position + np.array(away) * (self.config.lead / distance)
        if angle > self.config.angular_lead:
            scale = self.config.angular_lead / angle
            part = from_rotvec((turn[0] * scale, turn[1] * scale, turn[2] * scale))
            whole = multiply(part, as_quaternion(measured.quaternion))
            quaternion = np.array(as_quaternion(whole))
        return Pose(position, quaternion)

    def _scale(self, step: Vector, last: Vector, speed: float, acceleration: float) -> float:
        """Share of ``step`` that is allowed after ``last``: a bound on speed and on speeding up."""
        length = norm(step)
        if length == 0.0:
            return 1.0
        along = (step[0] * last[0] + step[1] * last[1] + step[2] * last[2]) / length
        allowed = max(0.0, along) + acceleration * self._step_s**2
        return min(1.0, speed * self._step_s / length, allowed / length)

    def _limit_hand(
        self, last: Array, goal: Array, force: Array | None, clipped: list[str]
    ) -> Array:
        reach = self.config.hand_speed * self._step_s
        most = math.inf if self.config.hand_force is None else self.config.hand_force
        forces = [0.0] * 6 if force is None else force.tolist()
        wanted = goal.tolist()
        hand: list[float] = []
        for before, want, newtons in zip(last.tolist(), wanted, forces, strict=True):
            lowest = min(max(before, 0.0), 1.0) if newtons > most else 0.0
            if want < lowest and newtons > most:
                clipped.append("force")
            want = min(max(want, lowest), 1.0)
            hand.append(min(max(want, before - reach), before + reach))
        if hand == wanted:
            return goal
        if "force" not in clipped:
            clipped.append("hand")
        return np.array(hand)
