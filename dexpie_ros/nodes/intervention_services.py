"""What people ask of the arbiter, by service and by key event, and the way home.

Requests take effect at the next control step. A key event (`/intervention/key`: a pedal, a web page)
does what the service of the same action does; what is refused is said in the log.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from dexpie_ros.control import keys
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.held_keys import HeldKeys
from dexpie_ros.control.homing import HomingConfig, plan_home
from dexpie_ros.control.jogging import JogConfig, Jogging
from dexpie_ros.control.keys import Action
from dexpie_ros.control.modes import Answer
from dexpie_ros.control.session import EMERGENCY_STOP
from dexpie_ros.control.timing import TimingMonitor
from dexpie_ros.control.types import ControlStep, Mode
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.base import ContractNode

ACTIONS = (
    Action.EMERGENCY_STOP,
    Action.TOGGLE,
    Action.FORCE,
    Action.ALIGN,
    Action.HOLD,
    Action.CLEAR_FAULT,
)
"""Those that are the arbiter's business."""


class InterventionServices:
    """Serves them on the arbiter's node; ``lock`` guards the arbiter."""

    def __init__(
        self,
        node: ContractNode,
        arbiter: Arbiter,
        lock: threading.RLock,
        homing: HomingConfig,
        jog: JogConfig | None = None,
    ) -> None:
        self._node, self._arbiter, self._lock, self._settings = node, arbiter, lock, homing
        self.timing = TimingMonitor()
        self._home_from_next_step = False
        self._home_end_ns = 0
        self.homing = False
        """The way home or a jog is what drives, not the policy."""
        self._jogging, self._jogs = Jogging(jog), False
        self._held = HeldKeys()
        self._run: object = None
        """Which of the arbiter's episodes that motion is."""
        for action in ACTIONS:
            node.serve(keys.SERVICES[action], self._server(action))
        node.serve("/intervention/set", self._serve_set)
        node.serve("/intervention/home", self._serve_home)
        node.subscribe("/intervention/key", self._on_key)
        node.subscribe("/intervention/jog", self._on_jog)

    def carry_out(self, action: Action) -> Answer:
        """One action of a person; whether it was accepted, and why or why not."""
        with self._lock:
            arbiter = self._arbiter
            before = arbiter.mode
            if action is Action.EMERGENCY_STOP:
                arbiter.fault(EMERGENCY_STOP)
                answer = True, "the robot holds; clear the fault to go on"
            elif action is Action.ALIGN:
                answer = arbiter.request(Mode.ALIGNING)
            elif action is Action.HOLD:
                answer = arbiter.request(Mode.HOLD)
            elif action is Action.CLEAR_FAULT:
                answer = arbiter.clear_fault()
            elif action is Action.FORCE:  # no toggle: whoever is in a hurry presses it twice
                answer = arbiter.request(Mode.HUMAN, force=True)
            else:
                answer = arbiter.toggle()
            self._note_takeover(before)
        return answer

    def stepped(self, step: ControlStep) -> None:
        """After every control step: the timing, and how the way home goes on."""
        self.timing.stepped(step, time.monotonic_ns())
        if not self.homing:
            return
        if self._arbiter.counts is not self._run:
            self.homing = self._jogs = False  # an episode began meanwhile: the robot is its
        elif self._jogs:
            self._go_on_jogging(step)
        elif self._home_from_next_step:
            self._home_from_next_step = False
            chunk = plan_home(step.command, self._settings.home, step.time_ns, self._settings)
            self._home_end_ns = chunk.due_ns(len(chunk) - 1)
            self._arbiter.add_chunk(chunk)
        elif step.time_ns >= self._home_end_ns or self._arbiter.mode is not Mode.POLICY:
            self.homing = False
            self._arbiter.stop()

    def _move(self) -> str:
        """Begin a motion of one's own between episodes; "" or why not. The lock is held."""
        arbiter = self._arbiter
        if arbiter.kind:
            return (
                "the robot moves already" if self.homing else "an episode is running; end it first"
            )
        if arbiter.suspended or arbiter.mode is Mode.FAULT:
            return f"not moving: {arbiter.reason}"
        if arbiter.mode in (Mode.ALIGNING, Mode.HUMAN):
            return "the operator has the robot; he must give it back first"
        _, why = arbiter.start("deployment")
        self.homing, self._run = arbiter.mode is Mode.POLICY, arbiter.counts
        return "" if self.homing else why

    def _go_on_jogging(self, step: ControlStep) -> None:
        if self._arbiter.mode is Mode.POLICY and self._jogging.asked(time.monotonic_ns()):
            self._arbiter.add_chunk(self._jogging.chunk(step))
            return
        self.homing = self._jogs = False
        self._arbiter.stop()

    def _on_jog(self, message: Any) -> None:
        """Velocities, asked for again and again (a jog keeps its stamp); refusals go to the log."""
        now = time.monotonic_ns()
        with self._lock:
            why = self._jogging.ask(
                message.name,
                message.velocity,
                now,
                message.position,
                stamp_ns(message.header.stamp),
            )
            if not why and not self._jogs and self._jogging.asked(now):
                why = self._move()
                self._jogs = not why
        if why:
            self._node.get_logger().warning(f"jog: {why}", throttle_duration_sec=1.0)

    def _note_takeover(self, before: Mode) -> None:
        if self._arbiter.mode is Mode.HUMAN and before is not Mode.HUMAN:
            self.timing.toggled(time.monotonic_ns())

    def _server(self, action: Action) -> Any:
        def serve(_request: Any, response: Any) -> Any:
            response.success, response.message = self.carry_out(action)
            return response

        return serve

    def _serve_set(self, request: Any, response: Any) -> Any:
        """True: the operator drives. False: he does not; the policy does, where there is one."""
        with self._lock:
            before = self._arbiter.mode
            wanted = Mode.HUMAN if request.data else Mode.POLICY
            if wanted is Mode.POLICY and self._arbiter.kind in ("", "demonstration"):
                wanted = Mode.HOLD
            response.success, response.message = self._arbiter.request(wanted)
            self._note_takeover(before)
        return response

    def _on_key(self, message: Any) -> None:
        action, why = keys.resolve(message.data, bool(self._arbiter.kind))
        if action not in ACTIONS:
            return  # the session's or nobody's
        accepted, why = False, "asked for again at once; counted once"
        if self._held.counts(action, time.monotonic_ns()):
            accepted, why = self.carry_out(action)
        if not accepted:
            self._node.get_logger().warning(f"key {keys.key_name(message.data)}: {why}")

    async def _serve_home(self, _request: Any, response: Any) -> Any:
        """Between episodes: travels home within the limits of `control.homing`."""
        response.success = False
        with self._lock:
            response.message = self._settings.unknown() or self._move()
            if response.message:
                return response
            self._home_from_next_step, self._home_end_ns = True, 0
        while self.homing:
            await self._node.pause(0.05)
        with self._lock:
            arrived = self._arbiter.mode is Mode.HOLD and self._arrived()
            response.success = arrived
            response.message = "home" if arrived else f"stopped on the way: {self._arbiter.reason}"
        return response

    def _arrived(self) -> bool:
        last = self._arbiter.last_command
        if last is None:
            return False
        gap = last.tcp.position - self._settings.home.tcp.position
        return bool((gap**2).sum() < 0.01**2)
