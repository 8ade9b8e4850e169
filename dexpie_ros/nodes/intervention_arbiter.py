"""Executes the policy's chunks or the human at 25 Hz and is the only writer of /control/command.

Two ways to be driven, one `control.Arbiter`: on a robot a thread with monotonic deadlines reads the
newest measurements; in simulation a step is made when every input that belongs to it has arrived.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from typing import Any

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.types import STEP_NS, Command, ControlStep, Mode
from dexpie_ros.messages import read_chunk, read_command, read_robot_state, stamp_ns
from dexpie_ros.nodes.base import ERROR, OK, WARN, ContractNode
from dexpie_ros.nodes.lockstep_inputs import LockstepInputs
from dexpie_ros.runtime import ControlLoop, declare_config, run_node


@config
class InterventionArbiterParameters:
    """Parameters of the node; units in the names."""

    lockstep: bool = False
    """Wait for every input of a step (simulation that must not depend on the machine's speed)."""
    wait_for_teleop: bool = False
    """In lockstep: the operator's command belongs to every step."""
    wait_for_policy: bool = False
    """In lockstep: the policy server answers every step."""
    inference_delay_steps: int = 2
    """In lockstep: a chunk takes effect this many steps after its observation."""
    stale_after_s: float = 0.1
    """On the robot: measurements older than this make the arm hold."""
    arbiter: ArbiterConfig = ArbiterConfig()


IDLE_PHASE = 0


class InterventionArbiter(ContractNode):
    """Thin shell around `control.Arbiter`; all state is guarded by one lock."""

    def __init__(self) -> None:
        super().__init__("intervention_arbiter")
        self.parameters = p = declare_config(self, InterventionArbiterParameters)
        self._lock = threading.RLock()
        self._arbiter = Arbiter(p.arbiter)
        self._driven = p.lockstep or bool(self.get_parameter("use_sim_time").value)
        """In simulation measurements make the steps: a timer on a 25 Hz clock would alias."""
        self._inputs = LockstepInputs(
            p.lockstep and p.wait_for_teleop,
            p.lockstep and p.wait_for_policy,
            p.inference_delay_steps,
        )
        self._paused = False
        self._published_mode: tuple[Mode, str, int] | None = None
        self._last: ControlStep | None = None
        self._command_publisher = self.publisher("/control/command")
        self._step_publisher = self.publisher("/control/step")
        self._state_publisher = self.publisher("/intervention/state")
        self._arm: Any = None
        self._hand: Any = None
        self._tcp: Any = None
        self._follower: tuple[int, Command] | None = None
        self._aligned: Alignment | None = None
        self.subscribe("/arm/joint_states", self._on_arm)
        self.subscribe("/hand/joint_states", self._on_hand)
        self.subscribe("/arm/tcp_pose", self._on_tcp)
        self.subscribe("/teleop/command", self._on_teleop)
        self.subscribe("/teleop/alignment", self._on_alignment)
        self.subscribe("/policy/chunk", self._on_chunk)
        self.subscribe("/session/state", self._on_session)
        if p.lockstep:
            self.subscribe("/policy/status", self._on_policy_status)
        self.serve("/intervention/toggle", self._serve_toggle)
        self.serve("/intervention/force", self._serve_force)
        self.serve("/intervention/set", self._serve_set)
        self.serve("/intervention/prepare", self._serve_prepare)
        self.serve("/intervention/start_episode", self._serve_start)
        self.serve("/intervention/end_episode", self._serve_end)
        self.report_diagnostics(self._diagnose)
        self._publish_mode(self.now_ns())
        self._loop: ControlLoop | None = None
        if not self._driven:
            self._loop = ControlLoop(STEP_NS * 1e-9, self._on_deadline, name="arbiter")
            self._loop.start()

    def destroy_node(self) -> None:
        if self._loop is not None:
            self._loop.stop()
        super().destroy_node()

    # -- inputs ----------------------------------------------------------------------------------
    def _on_arm(self, message: Any) -> None:
        self._take("arm", message)

    def _on_hand(self, message: Any) -> None:
        self._take("hand", message)

    def _on_tcp(self, message: Any) -> None:
        self._take("tcp", message)

    def _take(self, stream: str, message: Any) -> None:
        with self._lock:
            if self._driven:
                self._inputs.measured(stream, stamp_ns(message.header.stamp), message)
                self._try_step()
            else:
                setattr(self, f"_{stream}", message)

    def _on_teleop(self, message: Any) -> None:
        with self._lock:
            stamp, command = stamp_ns(message.header.stamp), read_command(message)
            self._follower = (stamp, command)
            if self._driven:
                self._inputs.teleop(stamp, command)
                self._try_step()

    def _on_alignment(self, message: Any) -> None:
        with self._lock:
            self._aligned = Alignment(
                message.angle,
                np.asarray(message.hand_difference, np.float64),
                message.angle_limit,
                message.hand_limit,
            )

    def _on_chunk(self, message: Any) -> None:
        try:
            chunk = read_chunk(message)
        except ValueError as error:
            self.get_logger().error(str(error))
            return
        with self._lock:
            if self.parameters.lockstep:
                self._inputs.chunk(chunk)
                self._try_step()
            else:
                self._arbiter.add_chunk(chunk)

    def _on_policy_status(self, message: Any) -> None:
        with self._lock:
            self._inputs.policy_answered(stamp_ns(message.header.stamp), message.inferred)
            self._try_step()

    def _on_session(self, message: Any) -> None:
        with self._lock:
            if message.phase == IDLE_PHASE and self._paused:
                self._paused = False
                self._try_step()

    # -- steps -----------------------------------------------------------------------------------
    def _try_step(self) -> None:
        """Lockstep: make the step if everything that belongs to it is here."""
        if self._paused:
            return
        ready = self._inputs.ready()
        if ready is None:
            # The world repeats itself, so somebody may not have heard the last step: say it again.
            if self._last is not None and self._inputs.repeated:
                self._publish(self._last)
            self._inputs.repeated = False
            return
        for chunk in ready.chunks:
            self._arbiter.add_chunk(chunk)
        robot = read_robot_state(ready.arm, ready.tcp, ready.hand)
        self._step(ready.time_ns, robot, ready.follower)

    def _on_deadline(self) -> None:
        with self._lock:
            if self._paused:
                return
            now = self.now_ns()
            if self._arm is None or self._hand is None or self._tcp is None:
                return
            age = now - min(stamp_ns(m.header.stamp) for m in (self._tcp, self._hand))
            if age > self.parameters.stale_after_s * 1e9:
                self._arbiter.hold(f"measurements are {age * 1e-9:.2f} s old: arm or hand driver?")
            else:
                self._arbiter.resume()
            follower = self._follower
            fresh = follower is not None and now - follower[0] < self.parameters.stale_after_s * 1e9
            robot = read_robot_state(self._arm, self._tcp, self._hand)
            self._step(now, robot, follower[1] if follower is not None and fresh else None)

    def _step(self, time_ns: int, robot: Any, follower: Command | None) -> None:
        step = self._arbiter.step(time_ns, robot, follower, self._aligned)
        self._last = step
        self._inputs.stepped(time_ns)
        self._publish(step)
        self._publish_mode(time_ns)

    def _publish(self, step: ControlStep) -> None:
        make = self.messages
        self._command_publisher.publish(
            make.control_command(step.time_ns, step.command, step.tick, step.source)
        )
        self._step_publisher.publish(make.control_step(step))

    def _publish_mode(self, time_ns: int) -> None:
        state = (self._arbiter.mode, self._arbiter.reason, self._arbiter.interventions)
        if state != self._published_mode:
            self._published_mode = state
            self._state_publisher.publish(self.messages.intervention_state(time_ns, *state))

    # -- services --------------------------------------------------------------------------------
    def _serve_toggle(self, _request: Any, response: Any) -> Any:
        with self._lock:
            response.success, response.message = self._arbiter.toggle()
        return response

    def _serve_force(self, _request: Any, response: Any) -> Any:
        with self._lock:
            response.success, response.message = self._arbiter.toggle(force=True)
        return response

    def _serve_set(self, request: Any, response: Any) -> Any:
        wanted = Mode.HUMAN if request.data else Mode.POLICY
        with self._lock:
            response.success, response.message = self._arbiter.request(wanted)
        return response

    def _serve_prepare(self, _request: Any, response: Any) -> Any:
        """Before a scene is set up: in simulation nobody commands until the episode starts."""
        with self._lock:
            self._arbiter.stop()
            self._paused = self._driven
            response.success, response.message = True, ""
        return response

    def _serve_start(self, request: Any, response: Any) -> Any:
        with self._lock:
            response.success, response.message = self._arbiter.start(request.kind)
            response.episode_id = request.episode_id
            if not response.success:
                return response
            self._inputs.start_episode(bool(request.policy_id), stamp_ns(request.scene_stamp))
            self._paused = False
            self._publish_mode(self.now_ns())
            self._try_step()
        return response

    def _serve_end(self, _request: Any, response: Any) -> Any:
        """Holds; in simulation the world stands still until the bag is closed."""
        with self._lock:
            self._arbiter.stop()
            self._inputs.end_episode()
            self._paused = self._driven
            self._publish_mode(self.now_ns())
        response.success = True
        return response

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        with self._lock:
            mode, reason = self._arbiter.mode, self._arbiter.reason
            values: dict[str, object] = {
                "mode": mode.name,
                "interventions": self._arbiter.interventions,
            }
            missing = self._inputs.missing() if self._driven else ""
        if self._loop is not None:
            values.update(dataclasses.asdict(self._loop.statistics()))
            if self.count_publishers("/control/command") > 1:
                return ERROR, "another node publishes /control/command; stop it", values
        if mode is Mode.FAULT:
            return ERROR, reason, values
        if missing and not self._paused:
            return WARN, f"waiting for {missing}", values
        return OK, reason or mode.name, values


def main() -> int:
    return run_node(InterventionArbiter)


if __name__ == "__main__":
    sys.exit(main())
