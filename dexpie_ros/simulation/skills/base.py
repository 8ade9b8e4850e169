"""What all skills share: what the operator sees, what it wants, and how it moves there."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array
from dexpie_ros.simulation.kinematics import clip, rotation_vector

LABELS = ("ok", "pause", "miss", "detour", "retreat")
"""What a skill is doing at a step; everything but ok is time that a better operator saves."""


@config
class StyleConfig:
    """How a person does a task: pace, precision, and how messy."""

    speed: float = 0.30
    """m/s, fastest hand motion."""
    speed_spread: tuple[float, float] = (0.75, 1.1)
    """Each attempt's speed is drawn from this range times `speed`."""
    waypoint_noise: float = 0.003
    """m, standard deviation per axis of where the grasp and the placement are aimed at."""
    turn_noise: float = 0.1
    """rad, standard deviation of the grasp's yaw."""
    mess: float = 0.0
    """0..1: how often it pauses, takes detours, misses and (a bottle) places off-centre; slower, too."""

    def __post_init__(self) -> None:
        if not 0 <= self.mess <= 1:
            raise ValueError(f"style.mess = {self.mess}: expected 0..1")
        if not 0.02 <= self.speed <= 1.0:
            raise ValueError(f"style.speed = {self.speed}: expected 0.02..1 m/s")


@dataclass(frozen=True, eq=False)
class View:
    """What the operator knows. ``objects``, ``contact`` and ``seen_tcp`` are of the same, slightly
    past instant; ``tcp`` and ``hand`` are where it believes the robot's commands to be now.
    """

    tcp: Array
    """(4, 4)."""
    seen_tcp: Array
    """(4, 4)."""
    hand: Array
    """(6,) openings that it asks for."""
    seen_hand: Array
    """(6,) openings that it sees."""
    objects: dict[str, Array]
    """Each (4, 4)."""
    contact: bool


@dataclass(frozen=True, eq=False)
class Intent:
    """Where the operator wants the TCP (4, 4) and the fingers (6,), and how fast."""

    tcp: Array
    hand: Array
    pace: float = 1.0
    """Share of the operator's speed."""


class Skill(ABC):
    """A closed-loop script for one task. Call :meth:`begin`, then :meth:`plan` once per step."""

    def __init__(self, style: StyleConfig, rng: np.random.Generator):
        self.style, self.rng = style, rng
        low, high = style.speed_spread
        if style.mess:
            low = min(low, 1.0 - 0.4 * style.mess)
        self.speed = style.speed * float(rng.uniform(low, high))
        self.phase = ""
        self.label = "ok"
        self._steps = 0
        self._pause = 0
        self._hold: Intent | None = None
        self._via: dict[str, Array] = {}
        self._via_goal: Array | None = None

    phases: ClassVar[int] = 8
    """Of an attempt in which nothing goes wrong."""
    stage_phase: ClassVar[dict[str, str]] = {}
    """Phase whose beginning is a stage of the task."""

    def reached(self, stage: str) -> bool:
        """Whether the work has just come to where ``stage`` begins."""
        return self.phase == self.stage_phase[stage]

    def begin(self, view: View) -> None:
        """Choose the phase that fits what is seen: at the start and after a takeover."""
        self._pause = 0
        self._hold = None
        self.phase = ""
        self._enter(self.first_phase(view))

    def plan(self, view: View) -> Intent:
        """Intent for this step."""
        if self._pause > 0:
            self._pause -= 1
            self.label = "pause"
            if self._hold is None:
                self._hold = Intent(view.tcp.copy(), view.hand.copy())
            return self._hold
        self._hold = None
        self._steps += 1
        self.label = "ok"
        intent: Intent = getattr(self, "_do_" + self.phase)(view)
        return intent

    @abstractmethod
    def look(self, view: View) -> tuple[str, float]:
        """What looks wrong while a policy drives (empty: nothing), and how far there is to go."""

    @abstractmethod
    def places(self, view: View) -> tuple[Array, ...]:
        """TCP positions (3,) at which the hand has work to do low above the table."""

    @abstractmethod
    def first_phase(self, view: View) -> str:
        """Phase to begin with."""

    def _detour(self, view: View, around: Array, lowest: float) -> Array | None:
        """Position to pass through first, in a messy attempt, until it has been reached.

        Args:
            view: what is seen.
            around: where the detour's random offset is added to.
            lowest: m, height that it does not go below.
        """
        if self.phase not in self._via:
            return None
        self.label = "detour"
        if self._via_goal is None:
            goal = around + self._via[self.phase]
            goal[2] = max(goal[2], lowest)
            self._via_goal = goal
        if float(np.linalg.norm(self._via_goal - view.tcp[:3, 3])) < 0.03 or self._steps > 80:
            del self._via[self.phase]
            self._via_goal = None
            return None
        return self._via_goal

    def _draw_detours(self, *phases: str) -> None:
        for phase in phases:
            if self.rng.uniform() < 0.45 * self.style.mess:
                offset = self.rng.normal(0, 1, 3) * [0.05, 0.05, 0.04]
                self._via[phase] = offset + np.array([0.0, 0.0, 0.03])

    def _enter(self, phase: str) -> None:
        """Go to ``phase``; a messy person sometimes stops to think first."""
        # As many pauses in a long task as in a short one: 2.4 in a messy attempt.
        if self.phase and self.rng.uniform() < min(0.3, 2.4 / self.phases) * self.style.mess:
            self._pause = int(self.rng.integers(8, 30))
        self.phase, self._steps = phase, 0


class Mover:
    """Turns an intent into a smooth hand motion: bounded speed, acceleration and turn rate."""

    def __init__(self, speed: float, step_s: float = 0.04):
        self.speed, self._step_s = speed, step_s
        self._velocity = np.zeros(3)

    def advance(self, here: Array, intent: Intent) -> tuple[Array, Array]:
        """Translation (3,) in m and rotation vector (3,) in base axes for this step."""
        error = intent.tcp[:3, 3] - here[:3, 3]
        distance = math.sqrt(float(error @ error))
        wanted = error * (min(self.speed * intent.pace, 4.0 * distance) / (distance + 1e-9))
        self._velocity = self._velocity + clip(wanted - self._velocity, -0.05, 0.05)
        turn = rotation_vector(intent.tcp[:3, :3] @ here[:3, :3].T)
        angle = math.sqrt(float(turn @ turn))
        # A share of what is left: the turn must not overshoot what is seen late.
        turn = turn * (min(0.04, 0.25 * angle) / (angle + 1e-9))
        return self._velocity * self._step_s, turn


def distance(view: View, intent: Intent) -> float:
    """m between where the TCP is believed to be and where it shall be."""
    error = intent.tcp[:3, 3] - view.tcp[:3, 3]
    return math.sqrt(float(error @ error))


def angle(view: View, intent: Intent) -> float:
    """rad between believed and wanted orientation."""
    turn = rotation_vector(intent.tcp[:3, :3] @ view.tcp[:3, :3].T)
    return math.sqrt(float(turn @ turn))


def straight_down(view: View, goal: Array, play: float = 0.004) -> Array:
    """Pose ``goal``, but no lower than now while the TCP is more than ``play`` m beside it.

    A straight line to the goal would reach the object's height before it is over it.
    """
    error = goal[:2, 3] - view.tcp[:2, 3]
    beside = math.sqrt(float(error @ error))
    if beside <= play or view.tcp[2, 3] <= goal[2, 3]:
        return goal
    waiting = goal.copy()
    waiting[2, 3] = min(view.tcp[2, 3], goal[2, 3] + 20.0 * (beside - play))
    return waiting
