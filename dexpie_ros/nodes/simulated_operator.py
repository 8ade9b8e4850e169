"""A person in front of the simulated cell: tracker, glove, the takeover key and the verdict.

It reads the true state to decide and to steer, but acts only through what a person has: the pose of
the hand, the glove, and the services that keys are bound to.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from dexpie_ros.config import config
from dexpie_ros.control.types import Mode
from dexpie_ros.messages import read_objects, read_robot_state, stamp_ns
from dexpie_ros.nodes.base import OK, ContractNode, interface
from dexpie_ros.nodes.observations import ObservationBuffer
from dexpie_ros.runtime import declare_config, run_node
from dexpie_ros.simulation.cell import CellState
from dexpie_ros.simulation.operator import (
    ROLES,
    Operator,
    OperatorConfig,
    OperatorOutput,
    with_role,
)

RUNNING_PHASE = 2
PATIENCE_S = 2.0
"""Wall time after which an unanswered key press counts as unheard."""


@config
class SimulatedOperatorParameters:
    """Parameters of the node."""

    role: Literal["by_kind", "demonstrate", "supervise", "judge"] = "by_kind"
    """``by_kind``: demonstrates demonstrations, supervises corrections, judges the rest."""
    seed: int = 0
    """Draws the operator's habits; the episode's seed draws what happens in it."""
    operator: OperatorConfig = OperatorConfig()


class Key:
    """A key bound to a service: pressed again if nothing answers, quiet while an answer is due."""

    def __init__(self, node: ContractNode, service: str) -> None:
        self._node, self._client = node, node.client(service)
        self._future: Any = None
        self._pressed_s = 0.0

    def press(self, request: Any, answered: Callable[[bool], None] | None = None) -> None:
        now = time.monotonic()
        due = self._future is not None and not self._future.done()
        if not self._client.service_is_ready() or (due and now - self._pressed_s < PATIENCE_S):
            return
        self._pressed_s, self._future = now, self._client.call_async(request)

        def report(done: Any) -> None:
            answer = done.result()
            if answer is None:
                return
            if not answer.success:
                message = f"{self._client.srv_name} refused: {answer.message}"
                self._node.get_logger().info(message)
            if answered is not None:
                answered(bool(answer.success))

        self._future.add_done_callback(report)


class SimulatedOperatorNode(ContractNode):
    """Thin shell around `simulation.Operator`."""

    def __init__(self) -> None:
        super().__init__("simulated_operator")
        self.parameters = p = declare_config(self, SimulatedOperatorParameters)
        self._operator = Operator(p.operator, p.seed)
        self._mode = Mode.HOLD
        self._kind, self._phase = "", 0
        self._resets, self._first_tick = -1, 0
        self._seen = 0
        self._uncalibrated = True
        self._verdict: Any = None
        self._robot = ObservationBuffer(needs_objects=False)
        self._scene: dict[int, Any] = {}
        self._tracker = self.publisher("/teleop/tracker")
        self._glove = self.publisher("/teleop/glove")
        self._events = self.publisher("/simulation/events")
        self._toggle = Key(self, "/intervention/toggle")
        self._calibrate = Key(self, "/teleop/calibrate")
        self._end = Key(self, "/session/end_episode")
        self.subscribe("/arm/joint_states", lambda m: self._measured("arm", m))
        self.subscribe("/hand/joint_states", lambda m: self._measured("hand", m))
        self.subscribe("/arm/tcp_pose", lambda m: self._measured("tcp", m))
        self.subscribe("/simulation/state", self._on_scene)
        self.subscribe("/intervention/state", self._on_intervention)
        self.subscribe("/session/state", self._on_session)
        self.report_diagnostics(lambda: (OK, self._operator.config.role, {}))

    def _on_intervention(self, message: Any) -> None:
        self._mode = Mode(message.mode)

    def _on_session(self, message: Any) -> None:
        self._kind, self._phase = message.kind, message.phase

    def _measured(self, stream: str, message: Any) -> None:
        self._robot.measured(stream, stamp_ns(message.header.stamp), message)
        self._try_observe()

    def _on_scene(self, message: Any) -> None:
        self._scene = {stamp_ns(message.header.stamp): message}
        self._try_observe()

    def _try_observe(self) -> None:
        for stamp, scene in self._scene.items():
            observation = self._robot.at(stamp, read_robot_state)
            if observation is None:
                return
            repeated = stamp == self._seen
            if scene.resets != self._resets:
                self._resets, self._first_tick = scene.resets, scene.tick
                repeated = False
            state = CellState(
                tick=scene.tick,
                time_ns=stamp,
                robot=observation.robot,
                objects=read_objects(scene),
                success=scene.success,
                failure=scene.failure,
                reason=scene.reason,
                contact=scene.contact,
                resets=scene.resets,
                task=scene.task,
                stage=scene.stage,
                seed=scene.seed,
                scene_tick=scene.tick - self._first_tick,
            )
            if state.scene_tick == 0 and not repeated:
                self._begin(state)
            if not repeated:
                self._output = self._operator.observe(state, self._mode)
                self._seen = stamp
            self._act(stamp, self._output)
            still = state.scene_tick == 0 or (
                self._mode is Mode.HOLD and self._operator.config.role == "demonstrate"
            )
            if self._uncalibrated and still:
                self._press_calibrate()
        self._scene.clear()

    def _begin(self, state: CellState) -> None:
        role = self.parameters.role
        if role == "by_kind":
            role = ROLES.get(self._kind, "judge")
        self._operator.config = with_role(self._operator.config, role)
        self._operator.reset(state, state.seed)
        self._verdict = None

    def _act(self, stamp: int, output: OperatorOutput) -> None:
        self._tracker.publish(self.messages.pose_stamped(stamp, "tracker_world", output.tracker))
        self._glove.publish(self.messages.glove(stamp, "right", output.ergonomics))
        if output.note:
            note = {"time_ns": stamp, "note": output.note}
            self._events.publish(self.messages.text(json.dumps(note)))
        if self._phase != RUNNING_PHASE:
            return
        trigger = interface("std_srvs/srv/Trigger").Request()
        if output.toggle:
            self._toggle.press(trigger)
        if output.outcome and self._verdict is None:
            self._verdict = interface("dexpie_msgs/srv/EndEpisode").Request(
                outcome=output.outcome, cause=output.cause
            )
        if self._verdict is not None:
            self._end.press(self._verdict)

    def _press_calibrate(self) -> None:
        """While the scene stands still and the hand is held like the robot's, until it was heard."""
        self._calibrate.press(interface("std_srvs/srv/Trigger").Request(), self._calibrated)

    def _calibrated(self, accepted: bool) -> None:
        self._uncalibrated = not accepted


def main() -> int:
    return run_node(SimulatedOperatorNode)


if __name__ == "__main__":
    sys.exit(main())
