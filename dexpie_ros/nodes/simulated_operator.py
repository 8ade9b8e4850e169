"""A person in front of the simulated cell: tracker, glove, the takeover key and the verdict.

It reads the true state to decide and to steer, but acts only through what a person has: the pose of
the hand, the glove, and the services that keys are bound to.
"""

from __future__ import annotations

import json
import sys
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

IDLE_PHASE = 0


@config
class SimulatedOperatorParameters:
    """Parameters of the node."""

    role: Literal["by_kind", "demonstrate", "supervise", "judge"] = "by_kind"
    """``by_kind``: demonstrates demonstrations, supervises corrections, judges the rest."""
    seed: int = 0
    """Draws the operator's habits; the episode's seed draws what happens in it."""
    operator: OperatorConfig = OperatorConfig()


class SimulatedOperatorNode(ContractNode):
    """Thin shell around `simulation.Operator`."""

    def __init__(self) -> None:
        super().__init__("simulated_operator")
        self.parameters = p = declare_config(self, SimulatedOperatorParameters)
        self._operator = Operator(p.operator, p.seed)
        self._mode = Mode.HOLD
        self._kind, self._phase = "", IDLE_PHASE
        self._resets, self._first_tick = -1, 0
        self._seen = 0
        self._judged, self._uncalibrated = True, True
        self._asked: Any = None
        self._robot = ObservationBuffer(needs_objects=False)
        self._scene: dict[int, Any] = {}
        self._tracker = self.publisher("/teleop/tracker")
        self._glove = self.publisher("/teleop/glove")
        self._events = self.publisher("/simulation/events")
        self._toggle = self.client("/intervention/toggle")
        self._calibrate = self.client("/teleop/calibrate")
        self._end = self.client("/session/end_episode")
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
            if self._uncalibrated and state.scene_tick == 0:
                self._press_calibrate()
        self._scene.clear()

    def _begin(self, state: CellState) -> None:
        role = self.parameters.role
        if role == "by_kind":
            role = ROLES.get(self._kind, "judge")
        self._operator.config = with_role(self._operator.config, role)
        self._operator.reset(state, state.seed)
        self._judged, self._asked = False, None

    def _act(self, stamp: int, output: OperatorOutput) -> None:
        self._tracker.publish(self.messages.pose_stamped(stamp, "tracker_world", output.tracker))
        self._glove.publish(self.messages.glove(stamp, "right", output.ergonomics))
        if output.note:
            note = {"time_ns": stamp, "note": output.note}
            self._events.publish(self.messages.text(json.dumps(note)))
        if self._phase == IDLE_PHASE:
            return
        if output.toggle and (self._asked is None or self._asked.done()):
            self._asked = self._press(self._toggle, interface("std_srvs/srv/Trigger").Request())
        if output.outcome and not self._judged:
            self._judged = True
            request = interface("dexpie_msgs/srv/EndEpisode").Request(
                outcome=output.outcome, cause=output.cause
            )
            self._press(self._end, request)

    def _press_calibrate(self) -> None:
        """While the scene stands still and the hand is held like the robot's, until it was heard."""
        if self._calibrate.service_is_ready():
            future = self._press(self._calibrate, interface("std_srvs/srv/Trigger").Request())
            future.add_done_callback(self._calibrated)

    def _calibrated(self, future: Any) -> None:
        self._uncalibrated = not future.result().success

    def _press(self, client: Any, request: Any) -> Any:
        """A key press: what it did is seen on the state topics; a refusal is logged."""
        future = client.call_async(request)

        def answered(done: Any) -> None:
            answer = done.result()
            if answer is not None and not answer.success:
                self.get_logger().info(f"{client.srv_name} refused: {answer.message}")

        future.add_done_callback(answered)
        return future


def main() -> int:
    return run_node(SimulatedOperatorNode)


if __name__ == "__main__":
    sys.exit(main())
