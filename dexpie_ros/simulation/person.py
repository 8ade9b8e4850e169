"""The operator's body: an arm with a tracker on it and a hand in a glove, in a world of its own.

The tracker's world is turned and shifted against the robot's by a constant that nobody knows: only
what the system takes from *motion* can be right.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array, Pose
from dexpie_ros.simulation.kinematics import clip, pose_of, rotation_matrix, rotation_vector
from dexpie_ros.simulation.robot_model import HAND_RANGE

_STEP_S = 0.04

# Ergonomics channel of each hand motor, and its value in degrees with the robot's finger open and
# closed: the references that the retargeting uses unless it was calibrated.
GLOVE_CHANNELS = (
    ("PinkyMCPStretch", 5.0, 70.0),
    ("RingMCPStretch", 10.0, 80.0),
    ("MiddleMCPStretch", 10.0, 85.0),
    ("IndexMCPStretch", 5.0, 90.0),
    ("ThumbMCPStretch", -10.0, 60.0),
    ("ThumbMCPSpread", 35.0, -5.0),
)
_NAMES = tuple(channel[0] for channel in GLOVE_CHANNELS)
_OPEN_DEG = np.array([channel[1] for channel in GLOVE_CHANNELS])
_SPAN_DEG = np.array([channel[2] - channel[1] for channel in GLOVE_CHANNELS])
_HAND_STEP = 0.08 / HAND_RANGE


@config
class BodyConfig:
    """Imperfections of a person and of what measures it. All zero: a perfect one."""

    tremor: float = 0.0004
    """m, amplitude of an 8-12 Hz tremor of the hand."""
    drift: float = 0.001
    """m/s, slow wander of the hand."""
    tracker_latency: float = 0.045
    """s between a motion and the tracker's report of it (rounded to control steps)."""
    glove_noise: float = 0.02
    """rad, standard deviation of each glove reading."""
    glove_gain: float = 0.05
    """Relative error of each finger's reading, drawn once per person."""
    alignment_residual: float = 0.03
    """rad, how far from the robot's orientation the hand still is at a takeover."""


class Body:
    """Hand pose and finger posture of the person.

    ``hand`` is kept in robot axes (the person sees robot and hand in one room); :meth:`tracker`
    reports it in the tracker's own world.
    """

    def __init__(self, config: BodyConfig, rng: np.random.Generator):
        """``rng`` decides what stays the same for a person: world, gains."""
        self.config = config
        axis = rng.normal(size=3)
        self._world = rotation_matrix(axis / np.linalg.norm(axis) * rng.uniform(0.3, 3.0))
        self._offset = rng.uniform(-2.0, 2.0, 3)
        self._gain = 1.0 + config.glove_gain * rng.uniform(-1.0, 1.0, 6)
        self.delay_ticks = round(config.tracker_latency / _STEP_S)
        self.begin(np.eye(4), np.ones(6), rng)

    def begin(self, hand: Array, posture: Array, rng: np.random.Generator) -> None:
        """A new attempt: ``rng`` decides this attempt's tremor and noise."""
        self.hand, self.posture = hand.copy(), posture.copy()
        self._rng = rng
        self._frequencies = rng.uniform(8.0, 12.0, 3)
        self._phases = rng.uniform(0.0, 2 * np.pi, 3)
        self._wander, self._steps = np.zeros(3), 0
        self._past: deque[Array] = deque(
            [self.hand.copy()] * (self.delay_ticks + 1), self.delay_ticks + 1
        )

    def move(self, translation: Array, turn: Array) -> None:
        """Translation (3,) in m and rotation vector (3,) in robot axes, for one control step."""
        self.hand[:3, 3] += translation
        self.hand[:3, :3] = rotation_matrix(turn) @ self.hand[:3, :3]

    def turn_towards(self, rotation: Array, limit: float) -> float:
        """Turn by at most ``limit`` rad towards ``rotation`` (3, 3); angle that is left."""
        vector = rotation_vector(rotation @ self.hand[:3, :3].T)
        angle = math.sqrt(float(vector @ vector))
        share = min(1.0, limit / (angle + 1e-12))
        self.hand[:3, :3] = rotation_matrix(vector * share) @ self.hand[:3, :3]
        return angle * (1.0 - share)

    def grasp_towards(self, posture: Array) -> None:
        """Move the fingers towards ``posture`` (6,) openings, as fast as a person does."""
        self.posture = self.posture + clip(posture - self.posture, -_HAND_STEP, _HAND_STEP)

    def measure(self) -> tuple[Pose, dict[str, float]]:
        """Tracker pose in its own world and glove ergonomics (deg); once per control step."""
        c, rng = self.config, self._rng
        self._past.append(self.hand.copy())
        hand = self._past[0]
        self._steps += 1
        beat = 2 * np.pi * self._frequencies * self._steps * _STEP_S + self._phases
        drawn = rng.standard_normal(9)
        self._wander = 0.98 * self._wander + c.drift * _STEP_S * drawn[:3]
        position = hand[:3, 3] + c.tremor * np.sin(beat) + self._wander
        tracker = pose_of(self._world @ position + self._offset, self._world @ hand[:3, :3])
        noise = np.degrees(c.glove_noise * drawn[3:])
        degrees = _OPEN_DEG + ((1.0 - self.posture) * self._gain * _SPAN_DEG + noise)
        return tracker, dict(zip(_NAMES, degrees.tolist(), strict=True))
