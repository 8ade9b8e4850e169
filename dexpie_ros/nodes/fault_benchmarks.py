"""How soon the arm holds when a device fails: `dexpie bench faults`.

The robot's graph over emulators with the settings of production (`dexpie launch collect
hardware:=emulated`, only the cameras smaller), an operator whose wrist moves all the time and drives
the arm. Each fault is stamped by whoever has it, and what came of it is read from the trace of the
emulated controller; all stamps are of one clock.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dexpie_ros.control.types import Mode
from dexpie_ros.emulators.peer import Control
from dexpie_ros.graph import stack
from dexpie_ros.graph_robot import CONTROL_PORTS
from dexpie_ros.node_spec import NodeSpec
from dexpie_ros.nodes.base import interface, status_level
from dexpie_ros.nodes.session_client import GraphError, SessionClient
from dexpie_ros.running_graph import RunningGraph

HOST = "127.0.0.91"
QUIET_NS = 250_000_000
"""The target counts as held when it has not changed for so long: six control steps."""
STILL = 0.01
"""rad/s of the fastest joint; the operator's motion gives about 0.1."""
WATCHED_S = 1.5
OK, ERROR = 0, 2
PATIENCE_S = 60.0
CAMERA = ("--width", "320", "--height", "240", "--fps", "15")


@dataclass(frozen=True)
class Fault:
    """What fails, and how that ends; ``begin`` returns its stamp (``time.monotonic_ns``)."""

    begin: Callable[[_Cell], int]
    end: Callable[[_Cell], object] = lambda cell: None


def _ask(name: str, do: str, **values: Any) -> Callable[[_Cell], int]:
    return lambda cell: int(cell.emulators[f"emulator_{name}"].ask(do, **values) or 0)


def _signal(name: str, number: int) -> Callable[[_Cell], int]:
    def send(cell: _Cell) -> int:
        pid = cell.graph.supervisor.nodes[name].pid
        if pid is None:
            raise GraphError(f"{name} does not run")
        now = time.monotonic_ns()
        os.kill(pid, number)
        return now

    return send


def _paused(name: str) -> Fault:
    return Fault(_signal(name, signal.SIGSTOP), _signal(name, signal.SIGCONT))


FAULTS: dict[str, Fault] = {
    "arm_connection_dropped": Fault(_ask("ur5", "drop")),
    "arm_silent": Fault(_ask("ur5", "freeze"), _ask("ur5", "freeze", on=False)),
    "arm_protective_stop": Fault(_ask("ur5", "protective_stop")),
    "arm_program_halted": Fault(_ask("ur5", "halt", reason="pendant")),
    "hand_silent": Fault(
        _ask("inspire", "line_fault", kind="silence"), _ask("inspire", "line_fault", kind="")
    ),
    "hand_unplugged": Fault(_ask("inspire", "unplug"), _ask("inspire", "plug")),
    "tracker_lost": Fault(
        _ask("vive", "tracking", result=201, valid=False), _ask("vive", "tracking")
    ),
    "tracker_frozen": Fault(_ask("vive", "freeze"), _ask("vive", "freeze", on=False)),
    "glove_silent": Fault(_ask("manus", "silence"), _ask("manus", "silence", on=False)),
    "glove_frozen": Fault(_ask("manus", "freeze"), _ask("manus", "freeze", on=False)),
    "teleop_hangs": _paused("teleop"),
    "arbiter_hangs": _paused("intervention_arbiter"),
}


def bench_faults(quick: bool = False) -> dict[str, float]:
    """Takes about 2 min (quick: each fault once) or 6 (four times).

    ``<fault>_held_ms``: from the fault to the last change of the target that the controller was
    sent before it stayed the same (worst of the times; 0: it never changed again).
    ``<fault>_rest_ms``: until the emulated arm itself was at rest: braking and the servo's lag of
    0.1 s included. -1: it was not, within 1.5 s.
    """
    with tempfile.TemporaryDirectory(prefix="dexpie-bench-") as name:
        specs = [
            _smaller_camera(spec)
            for spec in stack(
                "collect",
                sim=False,
                hardware="emulated",
                emulators=HOST,
                directory=str(Path(name) / "episodes"),
            )
        ]
        with (
            RunningGraph(specs, log_file=Path(name) / "graph.log") as graph,
            SessionClient("bench", watch=graph.check) as client,
        ):
            client.wait_ready(nodes=[spec.name for spec in specs if spec.is_node])
            cell = _Cell(client, graph)
            figures: dict[str, float] = {}
            for _ in range(1 if quick else 4):
                for fault_name, fault in FAULTS.items():
                    held, rest = cell.measure(fault)
                    for key, value in (("held", held), ("rest", rest)):
                        key = f"{fault_name}_{key}_ms"
                        figures[key] = max(figures.get(key, -1.0), round(value, 1))
                    print(
                        f"{fault_name}: held {held:.0f} ms, at rest {rest:.0f} ms", file=sys.stderr
                    )
            cell.close()
            return figures


def _smaller_camera(spec: NodeSpec) -> NodeSpec:
    if spec.module.endswith("emulators.realsense"):
        return replace(spec, arguments=(*(spec.arguments or ()), *CAMERA))
    if spec.kind == "camera_driver":
        shape = dict(zip(("width", "height", "fps"), map(int, CAMERA[1::2]), strict=True))
        more = {f"realsense.{key}": value for key, value in shape.items()}
        return replace(spec, parameters={**spec.parameters, **more})
    return spec


class _Cell:
    """Hands on the graph: the operator drives, something fails, everything is well again."""

    def __init__(self, client: SessionClient, graph: RunningGraph) -> None:
        self.client, self.graph = client, graph
        self.emulators = {name: Control(HOST, port) for name, port in CONTROL_PORTS.items()}
        self._robot = self.emulators["emulator_ur5"]
        self._levels: dict[str, int] = {}
        self._mode = Mode.HOLD
        client.node.subscribe("/intervention/state", self._on_mode)
        client.node.subscribe("/diagnostics", self._on_diagnostics)
        self._services = {
            name: client.node.client(name)
            for name in ("/intervention/force", "/intervention/clear_fault", "/arm/recover")
        }

    def close(self) -> None:
        for control in self.emulators.values():
            control.close()

    def measure(self, fault: Fault) -> tuple[float, float]:
        """ms from a fault to the held target and to the arm at rest."""
        self._drive()
        began = fault.begin(self)
        self.client.spin_for(WATCHED_S)
        trace = self._robot.ask("trace", since_ns=began)
        fault.end(self)
        return held_ms(began, trace), rest_ms(began, trace)

    def _drive(self) -> None:
        """Until the operator's motion moves the arm, after whatever was before."""
        end = time.monotonic() + PATIENCE_S
        while not self._following():
            if time.monotonic() > end:
                raise self.client.error("the arm does not follow the operator")
            if self._levels.get("arm_driver", OK) >= ERROR:
                self._call("/arm/recover")
            elif self._mode is Mode.FAULT:
                self._call("/intervention/clear_fault")
            elif not self.client.running:
                self.client.start("demonstration")
            elif self._mode is not Mode.HUMAN:
                self._call("/intervention/force")
            self.client.spin_for(0.3)

    def _following(self) -> bool:
        """Whether the target has changed all the time for the last half second."""
        if self._mode is not Mode.HUMAN or max(self._levels.values(), default=ERROR) >= ERROR:
            return False
        since = time.monotonic_ns()
        self.client.spin_for(0.5)
        trace = self._robot.ask("trace", since_ns=since)
        gaps = [entry[0] - entry[4] for entry in trace]
        return len(gaps) > 10 and max(gaps) < QUIET_NS / 2

    def _call(self, service: str) -> None:
        client = self._services[service]
        if client.service_is_ready():
            future = client.call_async(interface("std_srvs/srv/Trigger").Request())
            end = time.monotonic() + 5.0
            while not future.done() and time.monotonic() < end:
                self.client.spin_for(0.02)

    def _on_mode(self, message: Any) -> None:
        self._mode = Mode(message.mode)

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.endswith("_driver"):
                self._levels[status.name] = status_level(status)


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
