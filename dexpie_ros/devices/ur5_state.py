"""What a UR controller says of itself over RTDE, in this project's units and clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.devices.clock import ClockMap, host_times
from dexpie_ros.geometry import Array

VARIABLES = [
    "timestamp", "actual_q", "actual_qd", "actual_TCP_pose", "actual_TCP_speed",
    "actual_TCP_force", "robot_mode", "safety_mode", "runtime_state", "robot_status_bits",
    "safety_status_bits",
]  # fmt: skip
ROBOT_MODES = {
    -1: "no controller", 0: "disconnected", 1: "confirm safety", 2: "booting", 3: "power off",
    4: "power on", 5: "idle", 6: "backdrive", 7: "running", 8: "updating firmware",
}  # fmt: skip
SAFETY_MODES = {
    1: "normal", 2: "reduced", 3: "protective stop", 4: "recovery", 5: "safeguard stop",
    6: "system emergency stop", 7: "robot emergency stop", 8: "safety violation", 9: "fault",
}  # fmt: skip
RUNNING, NORMAL, REDUCED, PROTECTIVE_STOP = 7, 1, 2, 3


class ImpossibleState(ValueError):
    """The controller sent values that no robot can have."""


@dataclass(frozen=True, eq=False)
class RobotData:
    """One RTDE state; arrays (6,), poses (4, 4), SI units."""

    time_ns: int
    robot_time: float
    joints: Array
    joint_velocities: Array
    tcp: Array
    tcp_velocity: Array
    wrench: Array
    robot_mode: int
    safety_mode: int

    def problem(self) -> str:
        """Empty when the robot may be moved, else why not and what to do."""
        if self.safety_mode not in (NORMAL, REDUCED):
            mode = SAFETY_MODES.get(self.safety_mode, f"safety mode {self.safety_mode}")
            return f"{mode}; look at the robot, then ask for recovery"
        if self.robot_mode != RUNNING:
            mode = ROBOT_MODES.get(self.robot_mode, str(self.robot_mode))
            return f"robot mode is {mode}; power on and release the brakes, then ask for recovery"
        return ""


class StateReader:
    """New states of an RTDEReceiveInterface, and for how long there was none.

    Its getters return the last values for ever once the connection is lost, so only the advance of
    the controller's own clock counts as news.
    """

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._clock = ClockMap()
        self._robot_time, self._fresh_at = 0.0, time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the newest state."""
        return time.monotonic() - self._fresh_at

    @property
    def waiting(self) -> bool:
        """Whether the newest state has been read already."""
        return bool(self._receive.getTimestamp() == self._robot_time)

    def read(self) -> RobotData | None:
        """The newest state, or None if it was read before. ImpossibleState for nonsense."""
        r = self._receive
        robot_time = float(r.getTimestamp())
        if robot_time == self._robot_time:
            return None
        vectors = np.array(
            [
                r.getActualQ(), r.getActualQd(), r.getActualTCPPose(), r.getActualTCPSpeed(),
                r.getActualTCPForce(),
            ]
        )  # fmt: skip
        # also false for NaN
        if not (np.abs(vectors) < 1e6).all() or not 0 <= robot_time < 1e12:
            raise ImpossibleState("impossible values in the robot's state")
        self._robot_time, self._fresh_at = robot_time, time.monotonic()
        return RobotData(
            int(self._clock(robot_time, *host_times()) * 1e9), robot_time, vectors[0], vectors[1],
            pose_from_vector(vectors[2]), vectors[3], vectors[4], r.getRobotMode(),
            r.getSafetyMode(),
        )  # fmt: skip


def pose_from_vector(vector: Any) -> Array:
    """UR pose [x y z, rotation vector] (6,) -> (4, 4)."""
    v = np.asarray(vector, np.float64)
    return geometry.make_pose(geometry.rotation_exp(v[3:]), v[:3])


def vector_from_pose(pose: Array) -> list[float]:
    """(4, 4) -> UR pose [x y z, rotation vector]."""
    rotation = geometry.rotation_log(pose[:3, :3])
    return [*map(float, pose[:3, 3]), *map(float, rotation)]
