"""Tracker and glove -> the operator's follower and the alignment with the robot."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import Any, Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.control import keys
from dexpie_ros.control.held_keys import HeldKeys
from dexpie_ros.control.keys import Action
from dexpie_ros.control.modes import Answer
from dexpie_ros.control.quaternions import is_finite
from dexpie_ros.control.retargeting import RetargetingConfig
from dexpie_ros.control.teleop import Teleop, TeleopConfig
from dexpie_ros.devices import calibration
from dexpie_ros.devices.device import Pace
from dexpie_ros.geometry import Pose
from dexpie_ros.messages import BASE_FRAME, read_pose, read_robot_state, stamp_ns
from dexpie_ros.nodes.base import OK, WARN, ContractNode
from dexpie_ros.nodes.observations import ObservationBuffer
from dexpie_ros.nodes.remembered import Remembered
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import declare_config, run_node

TRACKER_WORLD = "tracker_world"
ALIGNMENT_HZ = 25.0
SLOW_NS = 15_000_000
"""A tracker that speaks more often carries the glove's news along; a slower one does not."""
TOGETHER_NS = 5_000_000
"""What comes this soon after a command waits for the next one."""
ROBOT_NS = 200_000_000
"""A robot whose measurement is older may stand elsewhere by now."""
UNKNOWN = "the robot's wrist is not known to the tracker: hold your hand as it is, then press k"


@config
class TeleopParameters:
    """Parameters of the node."""

    lockstep: bool = False
    """True in simulation: one command for every control step, when all its inputs are here."""
    follow: Literal["relative", "absolute"] = "relative"
    """like arbiter.follow; absolute: commands are poses in `base`, and there are none before the
    operator has said once that his wrist is aligned"""
    teleop: TeleopConfig = TeleopConfig()
    glove_calibration: str = ""
    """file of `dexpie calibrate glove`; replaces teleop.retargeting"""
    tracker_calibration: str = ""
    """file of `dexpie calibrate tracker`; replaces teleop.mounting_quaternion. tracker_driver is
    given it too, as `calibration`, and refuses another tracker's"""

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
        settings = self.parameters.calibrated()
        self._teleop = Teleop(settings)
        given = settings.world_quaternion != TeleopConfig().world_quaternion
        self._world_given = given or self.parameters.lockstep
        absolute = self.parameters.follow == "absolute" and not self.parameters.lockstep
        self._needs_world = absolute or not self._world_given
        self._mounting = [*settings.mounting_position, *settings.mounting_quaternion]
        self._remembered = Remembered(self.get_name())
        self._robot = ObservationBuffer(needs_objects=False)
        self._tracker: dict[int, Any] = {}
        self._glove_stamp = self._tracker_stamp = self._tracker_period = 0
        self._command = self.publisher("/teleop/command")
        self._alignment = self.publisher("/teleop/alignment")
        self.subscribe("/arm/joint_states", lambda m: self._measured("arm", m))
        self.subscribe("/hand/joint_states", lambda m: self._measured("hand", m))
        self.subscribe("/arm/tcp_pose", lambda m: self._measured("tcp", m))
        self.subscribe("/teleop/tracker", self._on_tracker)
        self.subscribe("/teleop/glove", self._on_glove)
        self._alignment_pace = Pace(ALIGNMENT_HZ)
        self._held = True
        self._held_keys = HeldKeys()
        self._kept = ""
        self._restore()
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
            self._tracker_period = stamp - self._tracker_stamp
            self._tracker_stamp = stamp
            self._publish(stamp)

    def _on_glove(self, message: Any) -> None:
        ergonomics = dict(zip(message.type, message.value, strict=False))
        self._glove_stamp = stamp_ns(message.header.stamp)
        try:
            taken = self._teleop.update_glove(ergonomics, message.side, self._glove_stamp)
        except ValueError as error:
            self.get_logger().warning(f"/teleop/glove: {error}", throttle_duration_sec=2.0)
            taken = False
        if self.parameters.lockstep:
            self._try_lockstep()
            return
        age = self._glove_stamp - self._tracker_stamp
        if taken and age > TOGETHER_NS and max(age, self._tracker_period) > SLOW_NS:
            self._publish(self._glove_stamp)

    def _try_lockstep(self) -> None:
        """Lockstep: tracker, glove and robot of one control step make its command."""
        if not self.parameters.lockstep or self._glove_stamp not in self._tracker:
            return
        if self._robot.at(self._glove_stamp, read_robot_state) is None:
            return
        stamp = self._glove_stamp
        self._teleop.update(self._tracker.pop(stamp), stamp)
        self._publish(stamp)

    def _publish(self, now: int) -> None:
        """What the operator asks for at ``now``; the command is as old as its oldest part."""
        if self.parameters.lockstep or self._alignment_pace.takes(now):
            self._publish_alignment(now)
        if self.parameters.follow == "relative":
            follower, frame = self._teleop.follower(now), TRACKER_WORLD
        elif self._teleop.calibrated:
            follower, frame = self._teleop.follower_in_base(now), BASE_FRAME
        else:
            return
        if follower is None:
            follower = self._teleop.unled(in_base=frame == BASE_FRAME)
        if follower is not None:
            stamp = now if self.parameters.lockstep else self._teleop.oldest_ns
            self._command.publish(self.messages.control_command(stamp, follower, frame=frame))

    def _publish_alignment(self, stamp: int) -> None:
        robot = self._robot.newest(read_robot_state)
        if robot is not None:
            a = self._teleop.alignment(robot.robot)
            if not self._teleop.calibrated and self._needs_world:
                a = dataclasses.replace(a, meant=False)  # in an unknown world it is chance
            self._alignment.publish(
                self.messages.alignment(
                    stamp, a.angle, a.hand_difference, a.angle_limit, a.hand_limit, a.aligned
                )
            )

    def _calibrate(self) -> Answer:
        """The operator's wrist is aligned with the robot's now."""
        robot = self._robot.newest(read_robot_state)
        if robot is None:
            return False, f"no measurement of the robot: {self._robot.missing()}"
        now = None if self.parameters.lockstep else self.now_ns()
        silent = "" if now is None else self._robot.older_than(now - ROBOT_NS)
        if silent:
            return False, f"the robot's measurement is old: {silent}; see its driver"
        try:
            self._teleop.calibrate(robot.robot, now, self.parameters.follow == "absolute")
        except ValueError as error:
            return False, str(error)
        self._aligned_ns, self._kept = self.now_ns(), ""
        return True, self._remember("aligned")

    def _clutch(self) -> Answer:
        self._held = not self._held
        self._teleop.clutch(self._held)
        said = "follows again" if self._held else "let go: the follower stands still"
        return True, self._remember(said)

    def _remember(self, said: str) -> str:
        """Keep what the operator told this node, for its next start; ``said`` and what is amiss."""
        values: dict[str, Any] = {"held": self._held, "mounting": self._mounting}
        if self._teleop.calibrated:
            world = self._teleop.world
            pose = [*map(float, world.position), *map(float, world.quaternion)]
            values |= {"world": pose, "aligned_ns": self._aligned_ns}
        problem = self._remembered.save(values)
        if problem:
            self.get_logger().info(problem, once=True)
        return said

    def _restore(self) -> None:
        """Started anew within a session: take up what the operator said before, and say so."""
        self._aligned_ns = 0
        values = self._remembered.load()
        if values.get("held") is False:
            self._held = False
            self._teleop.clutch(False)
            self.get_logger().warning("started anew and still let go of; press j to take hold")
        try:
            numbers = np.array(values["world"], np.float64)
            world, self._aligned_ns = Pose(numbers[:3], numbers[3:]), int(values["aligned_ns"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return
        if values.get("mounting") != self._mounting or not is_finite(world):
            self.get_logger().warning(f"started anew with another tracker mounting: {UNKNOWN}")
            return
        self._teleop.restore(world)
        at = time.strftime("%H:%M:%S", time.localtime(self._aligned_ns * 1e-9))
        self._kept = f"aligned at {at}, before this node was started anew"
        self.get_logger().warning(f"{self._kept}; press k if the tracking system moved since")

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
        elif action is Action.CLUTCH and self._held_keys.counts(action, time.monotonic_ns()):
            self._clutch()

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        lost = self._teleop.lost(None if self.parameters.lockstep else self.now_ns())
        if lost:
            return WARN, lost, {}
        if not self._held:
            return OK, "let go: the follower stands still", {}
        if not self._teleop.calibrated and not self._world_given:
            return WARN, UNKNOWN, {}
        return OK, f"following; {self._kept}" if self._kept else "following", {}


def main() -> int:
    prefer_process()
    return run_node(TeleopNode)


if __name__ == "__main__":
    sys.exit(main())
