"""An Inspire hand: openings and forces out at 25 Hz, the arbiter's openings in."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult

from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.devices.device import Level, Status
from dexpie_ros.devices.driver_parameters import HandDriverParameters
from dexpie_ros.devices.inspire_hand import HandSample, InspireHand
from dexpie_ros.devices.inspire_registers import RegisterError
from dexpie_ros.nodes.device_node import ArbiterCommands, DeviceNode
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import declare_config, run_node

RATE_HZ = 25.0
SPEED, FORCE = "hand.speed", "hand.force"
"""Parameters that may be changed while the hand moves."""


class HandDriver(DeviceNode):
    """Thin shell around `devices.inspire_hand`."""

    scheduling = "ordinary"
    """What came of asking for more, when this process started."""

    def __init__(self) -> None:
        super().__init__("hand_driver")
        p = declare_config(self, HandDriverParameters, changeable=(SPEED, FORCE))
        self._hardware = p.hardware
        self._joints = self.publisher("/hand/joint_states")
        self._hand = InspireHand(p.calibrated())
        self._commands = ArbiterCommands(
            self, lambda command: self._hand.command(command.hand), p.command_timeout_s
        )
        self.serve("/hand/clear_errors", self._on_clear_errors)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.drive(self._hand, self._publish_sample, RATE_HZ)

    def judge(self, status: Status) -> Status:
        status = replace(
            status,
            values={"hardware": self._hardware, "scheduling": self.scheduling, **status.values},
        )
        problem = self._commands.problem()
        if status.level is Level.OK and problem:
            return replace(status, level=Level.WARN, message=problem)
        return status

    def _publish_sample(self, sample: HandSample) -> None:
        self._joints.publish(
            self.messages.joint_state(
                sample.time_ns, HAND_JOINTS, sample.openings, effort=sample.force
            )
        )

    def _on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        """Refused, and the old value stays, where the hand cannot have it."""
        setters = {SPEED: self._hand.set_speed, FORCE: self._hand.set_force}
        for parameter in parameters:
            setter = setters.get(parameter.name)
            if setter is None:
                continue
            try:
                accepted = isinstance(parameter.value, int) and setter(parameter.value)
                reason = self._hand.status().message
            except RegisterError as error:
                accepted, reason = False, str(error)
            if not accepted:
                return SetParametersResult(
                    successful=False, reason=f"{parameter.name} = {parameter.value}: {reason}"
                )
        return SetParametersResult(successful=True)

    def _on_clear_errors(self, _request: Any, response: Any) -> Any:
        response.success = self._hand.clear_errors()
        response.message = "asked for" if response.success else self._hand.status().message
        return response


def main() -> int:
    HandDriver.scheduling = prefer_process()
    return run_node(HandDriver)


if __name__ == "__main__":
    sys.exit(main())
