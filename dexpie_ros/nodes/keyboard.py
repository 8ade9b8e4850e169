"""The operator's keys in a terminal: each asks the service that its action stands for.

    ros2 run dexpie_ros dexpie-keyboard        python -m dexpie_ros.nodes.keyboard

Shows what the robot does and why, the alignment, the session and its quotas, and what is silent.
The table of keys is `control.keys`; the web page uses the same.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import Field
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException

from dexpie_ros.asking import Asking, Requests
from dexpie_ros.config import config
from dexpie_ros.control import keys
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.held_keys import HeldKeys
from dexpie_ros.control.keys import CAUSES, SERVICES, Action
from dexpie_ros.control.panel import PanelState, panel_lines, read_progress
from dexpie_ros.control.staleness import StalenessMonitor, StreamConfig
from dexpie_ros.control.terminal_keys import KeyParser
from dexpie_ros.control.types import Mode
from dexpie_ros.nodes.base import ContractNode, interface, status_level
from dexpie_ros.nodes.terminal import Terminal, TerminalGone
from dexpie_ros.runtime import declare_config, run_node

READ_PERIOD_S = 0.02
RUNNING_PHASE = 2
PHASES = ("idle", "preparing", "running", "finishing")
STREAMS = {
    "/control/step": 0.5,
    "/arm/tcp_pose": 0.5,
    "/hand/joint_states": 0.5,
    "/teleop/tracker": 0.5,
    "/teleop/glove": 0.5,
}
"""Shown when silent for longer, s."""

ALIGNMENT_S = 1.0
"""An older alignment is unknown."""


@config
class KeyboardParameters:
    """Parameters of the node."""

    redraw_hz: float = Field(5.0, gt=0, le=20)
    escape_s: float = Field(0.1, gt=0)
    """The escape key alone counts after so long; a slow line may need more."""
    again_s: float = Field(0.7, ge=0)
    """A key that takes back what it did (space, j ...) counts again after so long without it: a key
    that is held down repeats itself after up to 0.66 s, and then all the time. 0: each time"""
    answer_timeout_s: float = Field(30.0, gt=0)


class Keyboard(ContractNode):
    """Thin shell around `control.keys` and `control.panel`."""

    def __init__(self) -> None:
        super().__init__("keyboard")
        self.parameters = p = declare_config(self, KeyboardParameters)
        self._keys = KeyParser(round(p.escape_s * 1e9))
        self._held = HeldKeys(round(p.again_s * 1e9))
        self._panel = PanelState(message="starting")
        self._complaints: dict[str, str] = {}
        self._running = self._asking_cause = False
        self._began_s = self._aligned_s = 0.0
        self._asked: Requests[str] = Requests()
        self._awaited: Asking | None = None
        """The last one."""
        self._leaving = False
        self._streams = StalenessMonitor(StreamConfig(name, s) for name, s in STREAMS.items())
        self._askable = {action: self.client(service) for action, service in SERVICES.items()}
        self._end = self.client("/session/end_episode")
        for name in STREAMS:
            self.subscribe(name, partial(self._seen, name), raw=True)
        self.subscribe("/intervention/state", self._on_arbiter)
        self.subscribe("/session/state", self._on_session)
        self.subscribe("/session/plan", self._on_plan)
        self.subscribe("/teleop/alignment", self._on_alignment)
        self.subscribe("/diagnostics", self._on_diagnostics)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._terminal = Terminal()
        self.create_timer(READ_PERIOD_S, self._read, clock=steady)
        self.create_timer(1.0 / p.redraw_hz, self._draw, clock=steady)

    def destroy_node(self) -> None:
        if hasattr(self, "_terminal"):
            self._terminal.close()
        super().destroy_node()

    # -- what is shown ---------------------------------------------------------------------------
    def _seen(self, name: str, _message: bytes) -> None:
        self._streams.seen(name, time.monotonic_ns())

    def _on_arbiter(self, message: Any) -> None:
        mode = Mode(message.mode)
        self._panel = replace(
            self._panel, mode=mode, reason=message.reason, interventions=message.interventions
        )

    def _on_session(self, message: Any) -> None:
        running = message.phase == RUNNING_PHASE
        if running and not self._running:
            self._began_s = time.monotonic()
        self._running, self._asking_cause = running, self._asking_cause and running
        episode = message.episode_id if message.phase else ""
        self._panel = replace(self._panel, phase=PHASES[message.phase], episode_id=episode)

    def _on_plan(self, message: Any) -> None:
        prompt, progress = read_progress(message.data)
        self._panel = replace(self._panel, prompt=prompt, progress=progress)

    def _on_alignment(self, message: Any) -> None:
        self._aligned_s = time.monotonic()
        self._panel = replace(self._panel, alignment=Alignment.heard(message))

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status_level(status):
                self._complaints[status.name] = status.message
            else:
                self._complaints.pop(status.name, None)

    def _draw(self) -> None:
        now = time.monotonic_ns()
        silent = not self._streams.fresh("/control/step", now)
        state = replace(
            self._panel,
            mode=None
            if silent and not self.count_publishers("/control/step")
            else self._panel.mode,
            alignment=self._panel.alignment
            if time.monotonic() - self._aligned_s < ALIGNMENT_S
            else None,
            elapsed_s=time.monotonic() - self._began_s if self._running else 0.0,
            streams=self._streams.status(now),
        )
        width, rows = self._terminal.size()
        lines = panel_lines(state, width)
        lines += [f"{name}: {text}"[:width] for name, text in sorted(self._complaints.items())]
        table = keys.help_lines()
        if len(lines) + len(table) + 2 < rows:
            lines += ["", *(line[:width] for line in table)]
        try:
            self._terminal.draw(lines)
        except TerminalGone:
            raise ExternalShutdownException from None

    # -- keys ------------------------------------------------------------------------------------
    def _read(self) -> None:
        try:
            data = self._terminal.read()
        except TerminalGone:
            raise ExternalShutdownException from None
        now = time.monotonic_ns()
        for key in self._keys.feed(data, now) if data else self._keys.idle(now):
            self._press(key, now)
        self._look_for_answers()
        if self._leaving and self._may_leave():
            raise ExternalShutdownException

    def _may_leave(self) -> bool:
        """After `q`: once the session agreed, and where there is none that could."""
        if self._awaited is None:
            return True
        if not self._awaited.over(time.monotonic()):
            return False
        answer = self._awaited.answer
        self._leaving = answer is None or answer.success
        return self._leaving

    def _press(self, key: str, now_ns: int) -> None:
        action, why = keys.resolve(key, self._running)
        if action is not None and not self._held.counts(action, now_ns):
            hint = f"({keys.key_name(key)} counts again after {self.parameters.again_s:g} s)"
            if hint not in self._panel.message:  # beside the answer to the press that counted
                self._say(f"{self._panel.message} {hint}")
        elif self._asking_cause and action is not Action.EMERGENCY_STOP:
            self._asking_cause = False
            cause = keys.cause_of(key)
            self._say("not ended") if cause is None else self._end_episode("failure", cause)
        elif action is None:
            self._say(why)
        elif action in (Action.SUCCESS, Action.ABORTED):
            self._end_episode(action.value)
        elif action is Action.FAILURE:
            self._asking_cause = True
            choices = "  ".join(f"{number}: {cause}" for number, cause in enumerate(CAUSES, 1))
            self._say(f"why?  {choices}   any other key: not ended")
        else:
            request = interface("std_srvs/srv/Trigger").Request()
            self._leaving = action is Action.QUIT
            if self._leaving:
                self._awaited = None  # an answer that is still out is nobody's business now
            if action is Action.CLEAR_FAULT:  # no stop of before must come after it
                self._asked.insist_no_more()
            insist = action is Action.EMERGENCY_STOP
            self._ask(self._askable[action], request, action.value, insist)

    def _end_episode(self, outcome: str, cause: str = "") -> None:
        request = interface("dexpie_msgs/srv/EndEpisode").Request(outcome=outcome, cause=cause)
        self._ask(self._end, request, f"{outcome} {cause}".strip())

    def _ask(self, client: Any, request: Any, what: str, insist: bool = False) -> None:
        if not client.service_is_ready():
            self._say(f"{what}: {client.srv_name} is not there; is its node running?")
            return
        self._say(f"{what} ...")
        patience_s = self.parameters.answer_timeout_s
        self._awaited = Asking(client, request, time.monotonic(), patience_s, insist)
        self._asked.append((self._awaited, what))

    def _look_for_answers(self) -> None:
        for asked, what in self._asked.take_ended(time.monotonic()):
            if (answer := asked.answer) is None:
                self._say(f"{what}: {asked.silence}")
            else:
                verdict = "done" if answer.success else "refused"
                self._say(f"{what}: {answer.message or verdict}")

    def _say(self, text: str) -> None:
        self._panel = replace(self._panel, message=text)


def main() -> int:
    return run_node(Keyboard)


if __name__ == "__main__":
    sys.exit(main())
