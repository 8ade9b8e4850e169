"""A 6-DoF tracker of any kind: a source of poses, and the thread that reads it.

Poses are in the source's own world, which nobody needs to calibrate: the teleoperation uses only
motion since the takeover. Only valid poses become samples, so a lost tracker is a stale one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.devices.device import Backoff, Level, Worker
from dexpie_ros.geometry import Array, Pose

RELOCATED_NS = 500_000_000
"""After so long without a credible pose the new place is believed. The silence is meant: it is long
enough for whoever follows to notice and to begin anew from there, instead of chasing the jump."""


@dataclass(frozen=True, eq=False)
class Reading:
    """One look at a tracker: a pose (4, 4), or None and why there is none."""

    time_ns: int
    pose: Array | None
    reason: str = ""


class PoseSource(Protocol):
    """Where poses come from. DeviceError when the source has to be opened anew."""

    @property
    def where(self) -> str: ...

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Reading | None:
        """The newest reading, or None when there is nothing new; blocks at most 0.1 s."""


@dataclass(frozen=True, eq=False)
class TrackerSample:
    """A valid pose of the tracker's body in its world, captured at ``time_ns`` (ROS time)."""

    time_ns: int
    pose: Pose


class PoseTracker(Worker[TrackerSample]):
    """Reads a source; see :mod:`dexpie_ros.devices` for the common shape. It takes no commands."""

    def __init__(
        self,
        source: PoseSource,
        name: str = "tracker",
        rate_hz: float = 120.0,
        max_speed: float = 8.0,
        backoff: Backoff | None = None,
    ) -> None:
        """``max_speed`` in m/s: a pose that would need more is a jump of the tracking."""
        super().__init__(name, stale_after=0.2, backoff=backoff or Backoff(0.5, 2.0))
        self._source, self._period, self._max_speed = source, 1.0 / rate_hz, max_speed
        self._reason = ""
        self.rejected = 0
        """Jumps that were left out."""
        self.invalid = 0
        """Readings without a pose."""

    def _open(self) -> None:
        self._source.open()
        self._due = time.monotonic()

    def _close(self) -> None:
        self._source.close()

    def _cycle(self) -> None:
        reading = self._source.read()
        if reading is not None:
            self._take(reading)
        self._due = max(self._due + self._period, time.monotonic() - 0.1)
        self._stopping.wait(max(0.0, self._due - time.monotonic()))

    def _take(self, reading: Reading) -> None:
        if reading.pose is None:
            self._reason = reading.reason
            self.invalid += 1
            return
        if self._jumped(reading.pose[:3, 3], reading.time_ns):
            self.rejected += 1
            self._reason = "the tracked position jumps; check lighthouses and reflections"
            return
        self._reason = ""
        self.samples.put(TrackerSample(reading.time_ns, Pose.from_matrix(reading.pose)))

    def _jumped(self, position: Array, time_ns: int) -> bool:
        last = self.newest()
        # also where the clock was set back: else nothing would be believed until it has caught up
        if last is None or abs(time_ns - last.time_ns) > RELOCATED_NS:
            return False
        seconds = max((time_ns - last.time_ns) * 1e-9, 1e-3)
        moved = float(np.linalg.norm(position - last.pose.position))
        # Two centimetres are noise of a poor view, not a jump.
        return moved > max(0.02, self._max_speed * seconds)

    def _values(self) -> dict[str, str]:
        return {
            "where": self._source.where,
            "invalid": str(self.invalid),
            "rejected": str(self.rejected),
            "reason": self._reason,
        }

    def _stale_message(self, age: str) -> str:
        since = "yet" if age == "never" else f"for {age} s"
        return f"no valid pose {since}: {self._reason or 'nothing comes'}"

    def _health(self) -> tuple[Level, str]:
        return (Level.WARN, self._reason) if self._reason else (Level.OK, "ok")


def rigid(matrix: Array) -> Array | None:
    """The pose (4, 4) nearest to a 3x4 matrix [R|t], or None if that is no rigid transform."""
    if matrix.shape != (3, 4) or not (np.abs(matrix) < 1e3).all():
        return None
    rotation = matrix[:, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.02 or np.linalg.det(rotation) < 0:
        return None
    # Through the quaternion: single precision rounds rotations off the manifold.
    exact = geometry.quaternion_to_matrix(geometry.matrix_to_quaternion(rotation))
    return geometry.make_pose(exact, matrix[:, 3])
