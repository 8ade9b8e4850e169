"""Records the motion by which a learned hand retargeting is calibrated.

    ros2 run dexpie_ros dexpie-glove_motion --ros-args -p output:=calibration/motion.json
    dexpie train retarget calibration/motion.json --output calibration/retargeting

Shows one posture after the other; the operator copies it with the gloved hand. The robot's hand may
lie anywhere: nothing is commanded.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from pydantic import Field
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException

from dexpie_ros.config import ConfigError, config
from dexpie_ros.control.calibration_motion import CalibrationMotion, CalibrationRecording
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.nodes.base import ContractNode
from dexpie_ros.runtime import declare_config, run_node

DRAW_PERIOD_S = 0.1
PATIENCE_S = 10.0


@config
class GloveMotionParameters:
    """Parameters of the node."""

    output: str = "calibration/motion.json"
    side: str = "right"
    rounds: int = Field(3, ge=1)
    """How often every posture is shown."""
    seed: int = Field(0, ge=0)
    """Of the order."""


class GloveMotion(ContractNode):
    """Thin shell around `control.calibration_motion`; ends when the motion is over."""

    def __init__(self) -> None:
        super().__init__("glove_motion")
        self.parameters = p = declare_config(self, GloveMotionParameters)
        self._motion = CalibrationMotion(p.rounds, p.seed)
        self._waiting_since = time.monotonic()
        self._started: float | None = None
        self._times: list[int] = []
        self._values: list[dict[str, float]] = []
        self._shown: list[Any] = []
        self.subscribe("/teleop/glove", self._on_glove)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DRAW_PERIOD_S, self._draw, clock=steady)
        print(f"copy what is shown with the {p.side} hand; {self._motion.duration_s:.0f} s")

    def _on_glove(self, message: Any) -> None:
        if message.side.lower() != self.parameters.side:
            return
        now = time.monotonic_ns()
        if self._started is None:
            self._started = now * 1e-9
        if self._times and now <= self._times[-1]:
            return
        self._times.append(now)
        self._values.append(dict(zip(message.type, map(float, message.value), strict=False)))
        self._shown.append(self._motion.openings(now * 1e-9 - self._started))

    def _draw(self) -> None:
        now = time.monotonic()
        if self._started is None:
            if now - self._waiting_since > PATIENCE_S:
                side = self.parameters.side
                raise ConfigError(
                    f"no /teleop/glove of the {side} hand within {PATIENCE_S:g} s: is the glove's "
                    "driver running and the glove switched on?"
                )
            return
        seconds = now - self._started
        if seconds > self._motion.duration_s:
            self._finish()
        openings = self._motion.openings(seconds)
        bars = "  ".join(
            f"{name} {'#' * round(3 * value):3}" for name, value in zip(HAND_JOINTS, openings)
        )
        print(f"\r{self._motion.prompt(seconds):40} {bars}\x1b[K", end="", flush=True)

    def _finish(self) -> None:
        recording = CalibrationRecording.from_samples(
            self._times, self._values, [np.asarray(o) for o in self._shown], self.parameters.side
        )
        recording.save(self.parameters.output)
        print(f"\n{len(recording)} samples: {self.parameters.output}")
        raise ExternalShutdownException


def main() -> int:
    return run_node(GloveMotion)


if __name__ == "__main__":
    sys.exit(main())
