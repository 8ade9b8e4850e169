"""Tracker and glove -> the operator's follower and the alignment with the robot."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from dexpie_ros.config import config
from dexpie_ros.control import keys
from dexpie_ros.control.keys import Action
from dexpie_ros.control.modes import Answer
from dexpie_ros.control.retargeting import RetargetingConfig
from dexpie_ros.control.teleop import Teleop, TeleopConfig
from dexpie_ros.devices import calibration
from dexpie_ros.messages import read_pose, read_robot_state, stamp_ns
from dexpie_ros.nodes.base import OK, WARN, ContractNode
from dexpie_ros.nodes.observations import ObservationBuffer
from dexpie_ros.runtime import declare_config, run_node

TRACKER_WORLD = "tracker_world"


@config
class TeleopParameters:
    """Parameters of the node."""

    lockstep: bool = False
    """True in simulation: one command for every control step, when all its inputs are here."""
    teleop: TeleopConfig = TeleopConfig()
    glove_calibration: str = ""
    """file of `dexpie calibrate glove`; replaces teleop.retargeting"""
    tracker_calibration: str = ""
    """file of `dexpie calibrate tracker`; replaces teleop.mounting_quaternion"""

    def calibrated(self) -> TeleopConfig:
        """The settings with the calibrations; ConfigError where a file is of another device."""
        settings, glove, tracker = self.teleop, self.glove_calibration, self.tracker_calibration
        if glove:
            found = calibration.load(glove, "glove", RetargetingConfig, settings.side)
            settings = dataclasses.replace(settings, retargeting=found)
        if tracker:
            mounting = calibration.load(tracker, "tracker", calibration.TrackerMounting)
            settings = calibration.applied(settings, mounting)
        return settings


class TeleopNode(ContractNode):
    """Thin shell around `control.Teleop`."""

    def __init__(self) -> None:
        super().__init__("teleop")
        self.parameters = declare_config(self, TeleopParameters)
        self._teleop = Teleop(self.parameters.calibrated())
        self._robot = ObservationBuffer(needs_objects=False)
        self._tracker: dict[int, Any] = {}
        self._glove_stamp = 0
        self._command = self.publisher("/teleop/command")
        self._alignment = self.publisher("/teleop/alignment")
        self.subscribe("/arm/joint_states", lambda m: self._measured("arm", m))
        self.subscribe("/hand/joint_states", lambda m: self._measured("hand", m))
        self.subscribe("/arm/tcp_pose", lambda m: self._measured("tcp", m))
        self.subscribe("/teleop/tracker", self._on_tracker)
        self.subscribe("/teleop/glove", self._on_glove)
        self._held = True
        self.serve("/teleop/calibrate", self._serve_calibrate)
        self.serve("/teleop/clutch", self._serve_clutch)
        self.subscribe("/intervention/key", self._on_key)
        self.report_diagnostics(self._diagnose)

    def _measured(self, stream: str, message: Any) -> None:
        self._robot.measured(stream, stamp_ns(message.header.stamp), message)
        self._try_lockstep()

    def _on_tracker(self, message: Any) -> None:
        stamp = stamp_ns(message.header.stamp)
        if self.parameters.lockstep:
            self._tracker = {stamp: read_pose(message.pose)}
            self._try_lockstep()
        elif self._teleop.update(read_pose(message.pose), stamp):
            self._publish(stamp)

    def _on_glove(self, message: Any) -> None:
        ergonomics = dict(zip(message.type, message.value, strict=False))
        self._glove_stamp = stamp_ns(message.header.stamp)
        try:
            self._teleop.update_glove(ergonomics, message.side, self._glove_stamp)
        except ValueError as error:
            self.get_logger().warning(f"/teleop/glove: {error}", throttle_duration_sec=2.0)
        self._try_lockstep()

    def _try_lockstep(self) -> None:
        """Lockstep: tracker, glove and robot of one control step make its command."""
        if not self.parameters.lockstep or self._glove_stamp not in self._tracker:
            return
        if self._robot.at(self._glove_stamp, read_robot_state) is None:
            return
        stamp = self._glove_stamp
        self._teleop.update(self._tracker.pop(stamp), stamp)
        self._publish(stamp)

    def _publish(self, stamp: int) -> None:
        robot = self._robot.newest(read_robot_state)
        if robot is not None:
            a = self._teleop.alignment(robot.robot)
            self._alignment.publish(
                self.messages.alignment(
                    stamp, a.angle, a.hand_difference, a.angle_limit, a.hand_limit, a.aligned
                )
            )
        follower = self._teleop.follower(stamp)
        if follower is not None:
            self._command.publish(
                self.messages.control_command(stamp, follower, frame=TRACKER_WORLD)
            )

    def _calibrate(self) -> Answer:
        """The operator's wrist is aligned with the robot's now."""
        robot = self._robot.newest(read_robot_state)
        if robot is None:
            return False, f"no measurement of the robot: {self._robot.missing()}"
        try:
            self._teleop.calibrate(robot.robot)
        except ValueError as error:
            return False, str(error)
        return True, "aligned"

    def _clutch(self) -> Answer:
        self._held = not self._held
        self._teleop.clutch(self._held)
        return True, "follows again" if self._held else "let go: the follower stands still"

    def _serve_calibrate(self, _request: Any, response: Any) -> Any:
        response.success, response.message = self._calibrate()
        return response

    def _serve_clutch(self, _request: Any, response: Any) -> Any:
        response.success, response.message = self._clutch()
        return response

    def _on_key(self, message: Any) -> None:
        action, _ = keys.resolve(message.data, episode_running=True)
        if action is Action.CALIBRATE:
            accepted, why = self._calibrate()
            if not accepted:
                self.get_logger().warning(f"not calibrated: {why}")
        elif action is Action.CLUTCH:
            self._clutch()

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        lost = self._teleop.lost(None if self.parameters.lockstep else self.now_ns())
        return (WARN, lost, {}) if lost else (OK, "following", {})


def main() -> int:
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
