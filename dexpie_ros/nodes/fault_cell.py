"""Hands on a graph of emulated hardware whose arm moves, and what its controller's trace shows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from dexpie_ros.control.types import Mode
from dexpie_ros.emulators.peer import Control
from dexpie_ros.graph_robot import CONTROL_PORTS
from dexpie_ros.nodes.base import ERROR, OK, interface, status_level
from dexpie_ros.nodes.fault_cases import Fault
from dexpie_ros.nodes.session_client import GraphError, SessionClient
from dexpie_ros.running_graph import RunningGraph

QUIET_NS = 250_000_000
"""The target counts as held when it has not changed for so long: six control steps."""
STILL = 0.01
"""rad/s of the fastest joint; the motion before the fault gives about 0.1."""
WATCHED_S = 1.5
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """ms from the fault on; -1: never while it was looked at."""

    held: float
    """To the last change of the target that the controller was sent before it stayed the same."""
    rest: float
    """Until the arm itself was at rest."""
    told: float
    """Until /diagnostics said what the fault is to be told by."""
    back: float
    """From the end of the fault until the arm had followed again for half a second."""


class FaultCell:
    """Somebody drives, something fails, everything is well again."""

    def __init__(
        self, client: SessionClient, graph: RunningGraph, host: str, policy: str = ""
    ) -> None:
        """``policy``: directory of the one that drives; empty: the operator does."""
        self.client, self.graph = client, graph
        self._policy, self._driven = policy, Mode.POLICY if policy else Mode.HUMAN
        self._emulators = {
            name: Control(host, port)
            for name, port in CONTROL_PORTS.items()
            if name in graph.supervisor.nodes
        }
        self._levels: dict[str, int] = {}
        self._said: list[tuple[int, str, str]] = []
        """When (ns), who and what: the arbiter says what it waits for at level OK."""
        self._mode, self._why = Mode.HOLD, ""
        client.node.subscribe("/intervention/state", self._on_mode)
        client.node.subscribe("/diagnostics", self._on_diagnostics)
        self._services = {
            name: client.node.client(name)
            for name in ("/intervention/force", "/intervention/clear_fault", "/arm/recover")
        }

    def __enter__(self) -> FaultCell:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for control in self._emulators.values():
            control.close()

    def ask(self, emulator: str, do: str, **values: Any) -> Any:
        """A request to one of the emulators."""
        return self._emulators[f"emulator_{emulator}"].ask(do, **values)

    def pid(self, node: str) -> int:
        """Of a node that runs."""
        pid = self.graph.supervisor.nodes[node].pid
        if pid is None:
            raise GraphError(f"{node} does not run")
        return pid

    def measure(self, fault: Fault) -> Outcome:
        """From an arm that moves to one that does so again."""
        self.drive()
        self._said.clear()
        began = fault.begin(self)
        self.client.spin_for(WATCHED_S)
        trace = self.ask("ur5", "trace", since_ns=began)
        fault.end(self)
        ended, name, text = time.monotonic_ns(), *fault.tells
        told = [t for t, who, what in self._said if who == name and text in what]
        self.drive()
        back = (time.monotonic_ns() - ended) * 1e-6
        return Outcome(
            held_ms(began, trace),
            rest_ms(began, trace),
            (told[0] - began) * 1e-6 if told else -1.0,
            back,
        )

    def said(self) -> str:
        """What was said since the last fault began, each message once."""
        return "; ".join(dict.fromkeys(f"{name}: {text}" for _, name, text in self._said))

    def drive(self) -> None:
        """Until somebody moves the arm, after whatever was before."""
        end = time.monotonic() + PATIENCE_S
        while not self._following():
            if time.monotonic() > end:
                raise self.client.error(
                    f"nobody moves the arm; it is {self._mode.name}: {self._why}"
                )
            if self._levels.get("arm_driver", OK) >= ERROR:
                self._call("/arm/recover")
            elif self._mode is Mode.FAULT:
                self._call("/intervention/clear_fault")
            elif not self.client.running:
                kind = "deployment" if self._policy else "demonstration"
                self.client.start(kind, policy_id=self._policy)
            elif self._driven is Mode.HUMAN and self._mode is not Mode.HUMAN:
                self._call("/intervention/force")
            self.client.spin_for(0.1)

    def _following(self) -> bool:
        """Whether the target has changed all the time for the last half second."""
        if self._mode is not self._driven or max(self._levels.values(), default=ERROR) >= ERROR:
            return False
        since = time.monotonic_ns()
        self.client.spin_for(0.5)
        return follows(self.ask("ur5", "trace", since_ns=since))

    def _call(self, service: str) -> None:
        client = self._services[service]
        if client.service_is_ready():
            future = client.call_async(interface("std_srvs/srv/Trigger").Request())
            end = time.monotonic() + 5.0
            while not future.done() and time.monotonic() < end:
                self.client.spin_for(0.02)

    def _on_mode(self, message: Any) -> None:
        self._mode, self._why = Mode(message.mode), message.reason

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            level = status_level(status)
            self._said.append((time.monotonic_ns(), status.name, status.message))
            if status.name.endswith("_driver"):
                self._levels[status.name] = level


def follows(trace: list[Any]) -> bool:
    """Whether the target changed all the time."""
    gaps = [entry[0] - entry[4] for entry in trace]
    return len(gaps) > 10 and max(gaps) < QUIET_NS / 2


def held_ms(fault_ns: int, trace: list[Any]) -> float:
    """ms until the target changed for the last time before it stayed the same; -1: it never did.

    ``trace``: as the emulated controller keeps it, from the fault on.
    """
    for time_ns, *_, changed_ns in trace:
        if time_ns - max(changed_ns, fault_ns) >= QUIET_NS:
            return max(0.0, (changed_ns - fault_ns) * 1e-6)
    return -1.0


def rest_ms(fault_ns: int, trace: list[Any]) -> float:
    """ms until the arm's joints stood still, and did so for ``QUIET_NS``; -1: they never did."""
    moving_ns = fault_ns
    for time_ns, fastest, *_ in trace:
        if fastest >= STILL:
            moving_ns = time_ns
        elif time_ns - moving_ns >= QUIET_NS:
            return (moving_ns - fault_ns) * 1e-6
    return -1.0
