"""The operator's devices -> a follower: where the end effector and the fingers would be.

Human-as-follower (paper; docs/operation.md#who-drives): the follower F(t) = T_v(t) X lives in the tracker's
own world, which nobody needs to calibrate, because the arbiter uses only its motion since the
takeover. X is the fixed transform from the tracker to the end effector that it stands for.
The world's rotation matters for one thing: to say how far the operator is from the robot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from dexpie_ros.config import FinitePosition, UnitQuaternion, config
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.filters import FilterConfig, PoseFilter, VectorFilter, went_back
from dexpie_ros.control.quaternions import (
    compose,
    distance_and_angle,
    inverse,
    is_finite,
)
from dexpie_ros.control.retargeting import (
    LinearRetargeting,
    RetargetingConfig,
    canonical_ergonomics,
)
from dexpie_ros.control.types import Command, RobotState
from dexpie_ros.geometry import Array, Pose

__all__ = ["Alignment", "Retargeting", "Teleop", "TeleopConfig"]


class Retargeting(Protocol):
    """Canonical ergonomics in degrees -> openings (6,); ValueError where values are missing."""

    def __call__(self, ergonomics: Mapping[str, float]) -> Array: ...


@config
class TeleopConfig:
    """How the operator's devices are mounted, filtered and judged."""

    mounting_quaternion: UnitQuaternion = (0.0, 0.0, 0.0, 1.0)
    """X, rotation: tracker -> end effector, x y z w; identity if the axes are parallel"""
    mounting_position: FinitePosition = (0.0, 0.0, 0.0)
    """X, translation in m, tracker frame; lets a turn of the wrist turn about the palm"""
    world_quaternion: UnitQuaternion = (0.0, 0.0, 0.0, 1.0)
    """tracker world -> base until :meth:`Teleop.calibrate` measures it"""
    world_position: FinitePosition = (0.0, 0.0, 0.0)
    """m, likewise; used in absolute mode only"""
    side: Literal["left", "right"] = "right"
    """which glove is listened to"""
    retargeting: RetargetingConfig = Field(default_factory=RetargetingConfig)
    """linear, per channel"""
    learned_retargeting: str = ""
    """directory of a learned retargeting, which then takes the linear one's place"""
    position_cutoff_hz: float = Field(0.0, ge=0)
    """low-pass on the tracker's position; 0 is off, for it costs delay"""
    rotation_cutoff_hz: float = Field(0.0, ge=0)
    hand_filter: FilterConfig = Field(
        default_factory=lambda: FilterConfig(cutoff_hz=8.0, rate=0.0, deadband=0.005)
    )
    """on the openings; glove values are noisy and the hand is slow"""
    stale_seconds: float = Field(0.2, gt=0)
    """a tracker older than this is lost"""
    glove_seconds: float = Field(0.04, gt=0)
    """a glove older than this is lost. Short, because the wrist is still tracked and would go on
    without the fingers; a glove at 60 Hz may lose one value, one at 90 Hz two in a row"""
    angle_limit: float = Field(math.radians(15.0), gt=0)
    """rad, largest misalignment of the wrist at a takeover"""
    hand_limit: float = Field(0.35, gt=0)
    """largest difference of an opening at a takeover"""


def make_retargeting(settings: TeleopConfig) -> Retargeting:
    """The retargeting that the settings name; ConfigError where its files cannot be used."""
    if not settings.learned_retargeting:
        return LinearRetargeting(settings.retargeting)
    from dexpie_ros.control.retargeting_learned import LearnedRetargeting

    return LearnedRetargeting.load(settings.learned_retargeting)


class Teleop:
    """Follows one operator's tracker and glove, each on its own clock."""

    def __init__(
        self, settings: TeleopConfig | None = None, retargeting: Retargeting | None = None
    ) -> None:
        self.config = settings or TeleopConfig()
        self._retargeting = retargeting or make_retargeting(self.config)
        self._mounting = Pose(
            np.array(self.config.mounting_position), np.array(self.config.mounting_quaternion)
        )
        self._mounted = self.config.mounting_quaternion != (0.0, 0.0, 0.0, 1.0) or any(
            self.config.mounting_position
        )
        self._pose_filter = PoseFilter(
            self.config.position_cutoff_hz, self.config.rotation_cutoff_hz
        )
        self._hand_filter = VectorFilter(self.config.hand_filter)
        self._world = Pose(
            np.array(self.config.world_position), np.array(self.config.world_quaternion)
        )
        self._calibrated = False
        self._raw: Pose | None = None
        self._offset: Pose | None = None
        self._frozen: Pose | None = None
        self._let_go = False
        self._hand: Array | None = None
        self._tracker_ns = 0
        self._glove_ns = 0

    def update(self, tracker: Pose, time_ns: int) -> bool:
        """A tracker pose T_v in the tracker's world; False (and ignored) where it is not finite."""
        if not is_finite(tracker):
            return False
        tool = compose(tracker, self._mounting) if self._mounted else tracker
        self._raw = self._pose_filter(tool, time_ns)
        self._tracker_ns = _newest(self._tracker_ns, time_ns)
        if self._let_go and self._frozen is None:
            self._frozen = self._tool(self._raw)
        return True

    def update_glove(
        self, ergonomics: Mapping[str, float], side: str, time_ns: int | None = None
    ) -> bool:
        """One glove's values in degrees, stamped like the latest tracker pose if not otherwise.

        False (and ignored) for the other side's glove. Raises ValueError naming missing values.
        """
        if side.lower() != self.config.side:
            return False
        stamp = self._tracker_ns if time_ns is None else time_ns
        hand = self._retargeting(canonical_ergonomics(ergonomics, self.config.side))
        if not np.isfinite(hand).all():
            raise ValueError("glove: the retargeting gave openings that are not finite")
        self._hand = self._hand_filter(hand, stamp)
        self._glove_ns = _newest(self._glove_ns, stamp)
        return True

    def lost(self, time_ns: int | None = None) -> str:
        """What is missing for a follower (never came, or is too old at ``time_ns``), or ""."""
        problem = self.tracker_lost(time_ns)
        if problem:
            return problem
        if self._hand is None:
            return f"no values of the {self.config.side} glove yet"
        return _silence("glove", time_ns, self._glove_ns, self.config.glove_seconds)

    def tracker_lost(self, time_ns: int | None = None) -> str:
        """The same of the tracker alone."""
        if self._raw is None:
            return "no pose of the tracker yet"
        return _silence("tracker", time_ns, self._tracker_ns, self.config.stale_seconds)

    def follower(self, time_ns: int | None = None) -> Command | None:
        """F(t) in the tracker's world and the retargeted hand; None where a device is lost.

        Without ``time_ns`` the age of the values is not judged.
        """
        if self.lost(time_ns) or self._raw is None or self._hand is None:
            return None
        return Command(self._tool(self._raw), self._hand)

    def unled(self, in_base: bool = False) -> Command | None:
        """What stands for a follower while a device is lost: the last wrist and no openings (NaN).

        None before the first values of both. Who hears it knows at once that nobody leads, and need
        not wait until silence can be told from a late message.
        """
        if self._raw is None or self._hand is None:
            return None
        wrist = self._tool(self._raw)
        return Command(compose(self._world, wrist) if in_base else wrist, np.full(6, np.nan))

    def clutch(self, engaged: bool) -> None:
        """Let go (False) and take hold (True): between the two the follower stands still.

        The operator can move back to a comfortable place without the robot noticing. Let go before
        the first pose, it stands still where that one is.
        """
        self._let_go = not engaged
        if not engaged and self._frozen is None and self._raw is not None:
            self._frozen = self._tool(self._raw)
        elif engaged and self._frozen is not None and self._raw is not None:
            # F = F_frozen T_v(t1)^-1 T_v(t): the motion goes on in the body's own frame.
            self._offset = compose(self._frozen, inverse(self._raw))
            self._frozen = None

    def alignment(self, robot: RobotState) -> Alignment:
        """Misalignment against the measured robot; NaN (never aligned) without a device's values."""
        angle, difference = math.nan, np.full(6, np.nan)
        if self._raw is not None:
            _, angle = distance_and_angle(robot.tcp, compose(self._world, self._raw))
        if self._hand is not None:
            difference = self._hand - robot.hand
        limits = self.config.angle_limit, self.config.hand_limit
        return Alignment(angle, difference, *limits, calibrated=self._calibrated)

    def calibrate(
        self, robot: RobotState, time_ns: int | None = None, absolute: bool = False
    ) -> None:
        """Take the operator's wrist to be where the robot's is now: fixes the tracker's world.

        It moves nothing. ``absolute``: the follower is a pose to go to (:meth:`follower_in_base`),
        and what the clutch had put between wrist and follower would be a way to go in the new world.
        Else only its motion counts, and that goes on without a jump.

        Raises ValueError while the tracker is lost, at ``time_ns`` if that is given.
        """
        problem = self.tracker_lost(time_ns)
        if problem or self._raw is None:
            raise ValueError(f"calibrate: {problem}; bring it into view and hold it still")
        self._world = compose(robot.tcp, inverse(self._raw))
        self._calibrated = True
        if absolute:
            self._offset, self._frozen = None, self._raw if self._let_go else None

    def restore(self, world: Pose) -> None:
        """Take the tracker's world as an earlier :meth:`calibrate` found it."""
        self._world, self._calibrated = world, True

    @property
    def world(self) -> Pose:
        """Tracker world -> base, as calibrated."""
        return self._world

    @property
    def calibrated(self) -> bool:
        """Whether :meth:`calibrate` found it, now or before a :meth:`restore`."""
        return self._calibrated

    @property
    def oldest_ns(self) -> int:
        """Stamp of the older one of the newest tracker pose and the newest glove values."""
        return min(self._tracker_ns, self._glove_ns)

    def follower_in_base(self, time_ns: int | None = None) -> Command | None:
        """The follower in the base frame: for the arbiter's absolute mode and for display."""
        follower = self.follower(time_ns)
        if follower is None:
            return None
        return Command(compose(self._world, follower.tcp), follower.hand)

    def _tool(self, raw: Pose) -> Pose:
        if self._frozen is not None:
            return self._frozen
        return raw if self._offset is None else compose(self._offset, raw)


def _silence(name: str, time_ns: int | None, stamp: int, limit: float) -> str:
    if time_ns is None or time_ns - stamp <= round(limit * 1e9):
        return ""
    return f"the {name} has been silent for more than {limit:g} s"


def _newest(last_ns: int, time_ns: int) -> int:
    return time_ns if went_back(time_ns, last_ns) else max(last_ns, time_ns)
