"""Executes the policy's chunks or the human at 25 Hz and is the only writer of /control/command.

Two ways to be driven, one `control.Arbiter`: on a robot a thread with monotonic deadlines reads the
newest measurements; in simulation a step is made when every input that belongs to it has arrived.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from pydantic import Field
from rclpy.clock import Clock, ClockType

from dexpie_ros.config import ConfigError, config
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.guard import GuardConfig
from dexpie_ros.control.homing import HomingConfig
from dexpie_ros.control.jogging import JogConfig
from dexpie_ros.control.types import STEP_NS, Command, ControlStep, Mode
from dexpie_ros.episodes.execution import POLICY_ID
from dexpie_ros.messages import read_chunk, read_robot_state, stamp_ns
from dexpie_ros.nodes.arrivals import with_way
from dexpie_ros.nodes.base import ERROR, OK, WARN, ContractNode
from dexpie_ros.nodes.intervention_operator import InterventionOperator
from dexpie_ros.nodes.intervention_services import InterventionServices
from dexpie_ros.nodes.intervention_watch import InterventionWatch
from dexpie_ros.nodes.lockstep_inputs import LockstepInputs
from dexpie_ros.nodes.remembered import Remembered
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import ControlLoop, abort, declare_config, run_node


@config
class InterventionArbiterParameters:
    """Parameters of the node; units in the names."""

    lockstep: bool = False
    """Wait for every input of a step (simulation that must not depend on the machine's speed)."""
    wait_for_teleop: bool = False
    """In lockstep: the operator's command belongs to every step."""
    wait_for_policy: bool = False
    """In lockstep: the policy server answers every step."""
    inference_delay_steps: int = Field(2, ge=0)
    """In lockstep: a chunk takes effect this many steps after its observation."""
    operator_s: float = Field(0.15, gt=0, le=1.0)
    """An operator's command older than this counts as lost (not in lockstep)."""
    guard: GuardConfig = GuardConfig()
    arbiter: ArbiterConfig = ArbiterConfig()
    homing: HomingConfig = HomingConfig()
    home_needed: bool = False
    """The session will ask for it (homing:=true): without a home this node does not start."""
    jog: JogConfig = JogConfig()


IDLE_PHASE, RUNNING_PHASE = 0, 2
PATIENCE_NS = 1_000_000_000
"""In lockstep something is always waited for; what is missing for longer is told."""


class InterventionArbiter(ContractNode):
    """Thin shell around `control.Arbiter`; all state is guarded by one lock."""

    def __init__(self) -> None:
        super().__init__("intervention_arbiter")
        self.parameters = p = declare_config(self, InterventionArbiterParameters)
        self._lock = threading.RLock()
        self._driven = p.lockstep or bool(self.get_parameter("use_sim_time").value)
        """In simulation measurements make the steps: a timer on a 25 Hz clock would alias."""
        homing = p.homing.in_simulation() if self._driven else p.homing
        if p.home_needed and homing.unknown():
            raise ConfigError(f"homing:=true, but {homing.unknown()}")
        self._arbiter = Arbiter(p.arbiter)
        self._requests = InterventionServices(self, self._arbiter, self._lock, homing, p.jog)
        self._timing = self._requests.timing
        self._watch: InterventionWatch | None = None
        """In lockstep nothing can be late: a step waits for what belongs to it."""
        if not p.lockstep:
            self._watch = InterventionWatch(
                self, self._arbiter, self._lock, p.guard, self._driven, self._timing
            )
        self._inputs = LockstepInputs(
            p.lockstep and p.wait_for_teleop,
            p.lockstep and p.wait_for_policy,
            p.inference_delay_steps,
        )
        self._paused = self._session_seen = False
        self._arrived_ns = self._stepped_ns = 0
        self._published_mode: tuple[Mode, str, int] | None = None
        self._remembered = Remembered(self.get_name())
        self._person_drove = self._remembered.marked
        """When an earlier process of this node ended during this launch."""
        self._last: ControlStep | None = None
        self._command_publisher = self.publisher("/control/command")
        self._step_publisher = self.publisher("/control/step")
        self._state_publisher = self.publisher("/intervention/state")
        self._arm: Any = None
        self._hand: Any = None
        self._tcp: Any = None
        self.subscribe("/arm/joint_states", self._on_arm)
        self.subscribe("/hand/joint_states", self._on_hand)
        self.subscribe("/arm/tcp_pose", self._on_tcp)
        self._operator = InterventionOperator(
            self, self._arbiter, self._lock, self._timing, p.operator_s,
            lockstep=p.lockstep, simulated=self._driven, heard=self._on_operator,
        )  # fmt: skip
        self.subscribe("/policy/chunk", with_way(self._on_chunk))
        self.subscribe("/session/state", self._on_session)
        self.subscribe("/policy/status", self._on_policy_status)
        self.serve("/intervention/prepare", self._serve_prepare)
        self.serve("/intervention/start_episode", self._serve_start)
        self.serve("/intervention/end_episode", self._serve_end)
        self.report_diagnostics(self._diagnose)
        self._publish_mode(self.now_ns())
        self._scheduling = "" if p.lockstep else prefer_process()
        self._loop: ControlLoop | None = None
        if not self._driven:
            self._loop = ControlLoop(STEP_NS * 1e-9, self._on_deadline, "arbiter", on_error=abort)
            self._loop.start()
        elif self._watch is not None:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(STEP_NS * 1e-9, self._on_silence, clock=steady)

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
        stamp, now = stamp_ns(message.header.stamp), time.monotonic_ns()
        with self._lock:
            if self._watch is not None:
                self._watch.measured(stream, stamp)
            if self._driven:
                if self._watch is not None and self._inputs.begins_anew(stamp):
                    self._arbiter.fault("the simulation began anew: its clock went back")
                self._inputs.measured(stream, stamp, message)
                self._arrived_ns = now
                self._try_step()
            else:
                setattr(self, f"_{stream}", message)

    def _on_operator(self, stamp: int, command: Command) -> None:
        """His command was heard; the lock is held."""
        if self._driven:
            self._inputs.teleop(stamp, command)
            self._try_step()

    def _on_chunk(self, message: Any, way_ms: float | None) -> None:
        try:
            chunk = read_chunk(message)
        except ValueError as error:
            self.get_logger().error(str(error))
            return
        with self._lock:
            if self.parameters.lockstep:
                self._inputs.chunk(chunk)
                self._try_step()
            elif not self._requests.homing:
                if way_ms is not None:
                    self._timing.chunk_arrived(way_ms)
                self._arbiter.add_chunk(chunk)

    def _on_policy_status(self, message: Any) -> None:
        with self._lock:
            if self._watch is not None:
                self._watch.policy_answered()
                return
            self._inputs.policy_answered(stamp_ns(message.header.stamp), message.inferred)
            self._try_step()

    def _on_session(self, message: Any) -> None:
        with self._lock:
            first, self._session_seen = not self._session_seen, True
            if message.phase == IDLE_PHASE and not message.episode_id and self._arbiter.kind:
                self._arbiter.stop()
                self._inputs.end_episode()
                self.get_logger().warning("the session began anew: its episode is over")
            if message.phase == RUNNING_PHASE and first and not self.parameters.lockstep:
                _, why = self._arbiter.start(message.kind)
                if self._person_drove and message.kind != "demonstration":
                    # the policy must not drive what nobody has given back to it
                    _, why = self._arbiter.request(Mode.HOLD)
                self.get_logger().warning(f"back during {message.episode_id}: {why}")
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
        self._check()
        self._step(ready.time_ns, robot, ready.follower)

    def _check(self) -> str:
        return self._watch.check(self._requests.homing) if self._watch is not None else ""

    def _on_silence(self) -> None:
        """Simulation in real time: measurements that stay away make no step, but are told."""
        with self._lock:
            if not self._paused and self._check():
                self._publish_mode(self.now_ns())

    def _on_deadline(self) -> None:
        with self._lock:
            if self._paused:
                return
            self._arrived_ns = time.monotonic_ns()
            now = self.now_ns()
            self._check()
            if self._arm is None or self._hand is None or self._tcp is None:
                self._publish_mode(now)
                return
            robot = read_robot_state(self._arm, self._tcp, self._hand)
            self._step(now, robot, self._operator.follower(now))

    def _step(self, time_ns: int, robot: Any, follower: Command | None) -> None:
        aligned = self._operator.alignment(time_ns)
        step = self._arbiter.step(time_ns, robot, follower, aligned)
        self._last = step
        self._stepped_ns = time.monotonic_ns()
        self._inputs.stepped(time_ns)
        self._publish(step)
        self._timing.decided(step, (time.monotonic_ns() - self._arrived_ns) * 1e-6)
        self._requests.stepped(step)
        self._publish_mode(time_ns)

    def _publish(self, step: ControlStep) -> None:
        make = self.messages
        if self._watch is not None:
            self._watch.sent(step)
        self._command_publisher.publish(
            make.control_command(step.time_ns, step.command, step.tick, step.source)
        )
        self._step_publisher.publish(make.control_step(step))

    def _publish_mode(self, time_ns: int) -> None:
        state = (self._arbiter.mode, self._arbiter.reason, self._arbiter.interventions)
        if state != self._published_mode:
            self._published_mode = state
            self._remembered.mark(self._arbiter.mode in (Mode.HUMAN, Mode.ALIGNING))
            self._state_publisher.publish(self.messages.intervention_state(time_ns, *state))

    # -- services --------------------------------------------------------------------------------
    def _serve_prepare(self, _request: Any, response: Any) -> Any:
        """Before a scene is set up: in simulation nobody commands until the episode starts."""
        with self._lock:
            self._arbiter.stop()
            self._paused = self._driven
            self._timing.pause()
            response.success, response.message = True, ""
        return response

    def _serve_start(self, request: Any, response: Any) -> Any:
        with self._lock:
            response.success, response.message = self._arbiter.start(
                request.kind, scene_anew=self._driven
            )
            response.episode_id = request.episode_id
            if not response.success:
                return response
            policy, scene_ns = request.policy_id, stamp_ns(request.scene_stamp)
            replayed = self.parameters.lockstep and policy == POLICY_ID
            self._inputs.start_episode(bool(policy), scene_ns, replayed)
            self._timing.clear()
            self._arrived_ns = time.monotonic_ns()  # the scene's set-up is no decision
            self._paused = False
            if self._watch is not None:
                self._watch.world_goes_on()
            self._publish_mode(self.now_ns())
            self._try_step()
        return response

    def _serve_end(self, _request: Any, response: Any) -> Any:
        """Holds; in simulation the world stands still until the bag is closed."""
        self.publish_diagnostics()  # the recorder keeps the episode's figures
        with self._lock:
            self._arbiter.stop()
            self._inputs.end_episode()
            self._paused = self._driven
            self._timing.pause()
            self._publish_mode(self.now_ns())
        response.success = True
        return response

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        with self._lock:
            mode, reason = self._arbiter.mode, self._arbiter.reason
            values: dict[str, object] = {
                "mode": mode.name,
                **_rounded(self._arbiter.statistics()),
                **_rounded(self._timing.as_dict()),
            }
            quiet = time.monotonic_ns() - self._stepped_ns > PATIENCE_NS
            missing = self._inputs.missing() if self._watch is None and quiet else ""
            if self._watch is not None:
                values.update(self._watch.values(), scheduling=self._scheduling)
        if self._loop is not None:
            loop = self._loop.statistics()
            values.update(missed=loop.missed, late_p99_ms=round(loop.late_p99, 3))
        if mode is Mode.FAULT:
            return ERROR, reason, values
        if self._arbiter.suspended or (missing and not self._paused):
            return WARN, f"waiting for {missing}" if missing else reason, values
        return OK, reason or mode.name, values


def _rounded(figures: dict[str, float]) -> dict[str, object]:
    return {name: round(float(value), 3) for name, value in figures.items()}


def main() -> int:
    return run_node(InterventionArbiter)


if __name__ == "__main__":
    sys.exit(main())
