"""A UR arm: state out at 125 Hz, the arbiter's 25 Hz commands in; recovery on request."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from dexpie_ros.control.types import ARM_JOINTS
from dexpie_ros.devices.device import Level, Status
from dexpie_ros.devices.driver_parameters import ArmDriverParameters
from dexpie_ros.devices.ur5 import ArmSample, Ur5
from dexpie_ros.messages import BASE_FRAME
from dexpie_ros.nodes.device_node import ArbiterCommands, DeviceNode
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import declare_config, run_node

RATE_HZ = 125.0


class ArmDriver(DeviceNode):
    """Thin shell around `devices.ur5`; limits, interpolation and watchdog are the arm process's."""

    scheduling = "ordinary"
    """What came of asking for more, when this process started."""

    def __init__(self) -> None:
        super().__init__("arm_driver")
        p = declare_config(self, ArmDriverParameters)
        self._hardware, self._where = p.hardware, f"{p.arm.model} {p.arm.host}"
        self._joints = self.publisher("/arm/joint_states")
        self._tcp = self.publisher("/arm/tcp_pose")
        self._arm = Ur5(p.arm)
        self._commands = ArbiterCommands(
            self, lambda command: self._arm.command(command.tcp), p.command_timeout_s
        )
        self.serve("/arm/recover", self._on_recover)
        self.drive(self._arm, self._publish_sample, RATE_HZ)

    def judge(self, status: Status) -> Status:
        values = {
            "where": self._where, "hardware": self._hardware, "scheduling": self.scheduling,
            **status.values,
        }  # fmt: skip
        status = replace(status, values=values)
        problem = self._commands.problem()
        if status.level is Level.OK and problem:
            return replace(status, level=Level.WARN, message=problem)
        return status

    def _publish_sample(self, sample: ArmSample) -> None:
        make = self.messages
        self._joints.publish(
            make.joint_state(
                sample.time_ns, ARM_JOINTS, sample.joints, sample.joint_velocities, frame=BASE_FRAME
            )
        )
        self._tcp.publish(make.pose_stamped(sample.time_ns, BASE_FRAME, sample.tcp))

    def _on_recover(self, _request: Any, response: Any) -> Any:
        response.success, response.message = self._arm.recover()
        self.get_logger().warning(f"recovery asked for: {response.message}")
        return response


def main() -> int:
    ArmDriver.scheduling = prefer_process()
    return run_node(ArmDriver)


if __name__ == "__main__":
    sys.exit(main())
