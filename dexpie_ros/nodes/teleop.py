"""Tracker and glove -> the operator's follower and the alignment with the robot."""

from __future__ import annotations

import sys
from typing import Any

from dexpie_ros.config import config
from dexpie_ros.control.teleop import Teleop, TeleopConfig
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


class TeleopNode(ContractNode):
    """Thin shell around `control.Teleop`."""

    def __init__(self) -> None:
        super().__init__("teleop")
        self.parameters = declare_config(self, TeleopParameters)
        self._teleop = Teleop(self.parameters.teleop)
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
        self.serve("/teleop/calibrate", self._serve_calibrate)
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

    def _serve_calibrate(self, _request: Any, response: Any) -> Any:
        """The operator's wrist is aligned with the robot's now."""
        robot = self._robot.newest(read_robot_state)
        response.success = robot is not None
        if robot is None:
            response.message = f"no measurement of the robot: {self._robot.missing()}"
            return response
        try:
            self._teleop.calibrate(robot.robot)
        except ValueError as error:
            response.success, response.message = False, str(error)
        return response

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        lost = self._teleop.lost(None if self.parameters.lockstep else self.now_ns())
        return (WARN, lost, {}) if lost else (OK, "following", {})


def main() -> int:
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
