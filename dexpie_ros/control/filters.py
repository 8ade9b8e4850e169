"""Low-pass, rate limit and deadband on a clock of their own: each works for any sampling interval.

A filter is fed (value, time) pairs at whatever rate its stream has; a stream that pauses does not
upset it. Neutral settings (0) let values pass with their bits unchanged.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.quaternions import as_quaternion, slerp
from dexpie_ros.geometry import Array, Pose

SET_BACK_NS = 500_000_000
"""A stamp that is older than the last one by more than this is of a clock that was set back."""


@config
class FilterConfig:
    """Settings of one filtered quantity; 0 switches a part off."""

    cutoff_hz: float = Field(0.0, ge=0)
    """first-order low-pass"""
    rate: float = Field(0.0, ge=0)
    """largest change per second and component"""
    deadband: float = Field(0.0, ge=0)
    """smaller changes than this are not passed on"""


def smoothing(cutoff_hz: float, seconds: float) -> float:
    """Share of the new value after ``seconds`` of a first-order low-pass; 1 where it is off."""
    return 1.0 if cutoff_hz <= 0 else 1.0 - math.exp(-2.0 * math.pi * cutoff_hz * seconds)


def went_back(time_ns: int, last_ns: int) -> bool:
    """Whether the clock was set back (a simulation that began anew), not only a sample late."""
    return time_ns < last_ns - SET_BACK_NS


class VectorFilter:
    """Deadband, low-pass and rate limit on a vector, component by component, in that order."""

    def __init__(self, settings: FilterConfig | None = None) -> None:
        self.config = settings or FilterConfig()
        self._time_ns = 0
        self._accepted: Array | None = None
        self._value: Array | None = None

    def reset(self) -> None:
        """Forget the past; the next value passes unchanged."""
        self._value = self._accepted = None

    def __call__(self, value: Array, time_ns: int) -> Array:
        """The filtered value at ``time_ns``; an older time than the last one changes nothing.

        After a clock that was set back the next value passes unchanged.
        """
        value = np.asarray(value, np.float64)
        if went_back(time_ns, self._time_ns) or self._value is None or self._accepted is None:
            self._time_ns, self._accepted, self._value = time_ns, value, value
            return value
        seconds = (time_ns - self._time_ns) * 1e-9
        if seconds <= 0:
            return self._value
        self._time_ns = time_ns
        if self.config.deadband > 0:
            still = np.abs(value - self._accepted) < self.config.deadband
            value = np.where(still, self._accepted, value)
        self._accepted = value
        alpha = smoothing(self.config.cutoff_hz, seconds)
        result = value if alpha >= 1.0 else self._value + alpha * (value - self._value)
        if self.config.rate > 0:
            reach = self.config.rate * seconds
            result = np.clip(result, self._value - reach, self._value + reach)
        self._value = result
        return result


class PoseFilter:
    """Low-pass on a pose: position per axis, rotation on the geodesic."""

    def __init__(self, position_cutoff_hz: float = 0.0, rotation_cutoff_hz: float = 0.0) -> None:
        self.position_cutoff_hz = position_cutoff_hz
        self.rotation_cutoff_hz = rotation_cutoff_hz
        self._time_ns = 0
        self._value: Pose | None = None

    def reset(self) -> None:
        """Forget the past; the next pose passes unchanged."""
        self._value = None

    def __call__(self, pose: Pose, time_ns: int) -> Pose:
        """The filtered pose at ``time_ns``; an older time than the last one changes nothing.

        After a clock that was set back the next pose passes unchanged.
        """
        if went_back(time_ns, self._time_ns) or self._value is None:
            self._time_ns, self._value = time_ns, pose
            return pose
        seconds = (time_ns - self._time_ns) * 1e-9
        if seconds <= 0:
            return self._value
        self._time_ns = time_ns
        position, quaternion = pose.position, pose.quaternion
        alpha = smoothing(self.position_cutoff_hz, seconds)
        if alpha < 1.0:
            position = self._value.position + alpha * (pose.position - self._value.position)
        alpha = smoothing(self.rotation_cutoff_hz, seconds)
        if alpha < 1.0:
            start = as_quaternion(self._value.quaternion)
            quaternion = np.array(slerp(start, as_quaternion(pose.quaternion), alpha))
        self._value = Pose(position, quaternion)
        return self._value
