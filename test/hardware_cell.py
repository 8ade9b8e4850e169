"""Hands on the running graph of emulated hardware; see test_graph_hardware."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.control.types import Mode
from dexpie_ros.emulators.peer import Control
from dexpie_ros.graph import NodeSpec
from dexpie_ros.messages import read_pose
from dexpie_ros.nodes.base import interface, status_level
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.running_graph import RunningGraph

WIDTH, HEIGHT, FPS = 320, 240, 30
OK, WARN, ERROR, STALE = range(4)
Trigger = "std_srvs/srv/Trigger"


PATIENCE = {
    "arm_driver": {
        "arm.watchdog_hz": 1.0, "arm.hold_after": 0.9, "arm.lost_after": 2.0,
        "arm.unlock_delay": 0.4, "command_timeout_s": 1.0,
    },
    "hand_driver": {"hand.timeout": 0.5, "command_timeout_s": 1.0},
    "camera_driver": {"realsense.width": WIDTH, "realsense.height": HEIGHT, "realsense.fps": FPS},
    "teleop": {"teleop.stale_seconds": 1.0, "teleop.glove_seconds": 1.0},
    "intervention_arbiter": {
        "guard.arm_s": 1.0, "guard.hand_s": 1.0, "guard.session_s": 20.0, "operator_s": 1.0,
    },
}  # fmt: skip
EMULATORS = {
    "realsense": ("--width", str(WIDTH), "--height", str(HEIGHT), "--fps", str(FPS)),
    "ur5": ("--unlock-delay", "0.2"),
}


def fit_to_a_small_machine(specs: list[NodeSpec]) -> list[NodeSpec]:
    fitted = []
    for spec in specs:
        if spec.arguments is not None:
            more = EMULATORS.get(spec.module.rpartition(".")[2], ())
            fitted.append(replace(spec, arguments=(*spec.arguments, *more)))
        else:
            parameters = {**spec.parameters, **PATIENCE.get(spec.kind, {})}
            fitted.append(replace(spec, parameters=parameters))
    return fitted


@dataclass
class Cell:
    """Hands on the running graph."""

    client: SessionClient
    graph: RunningGraph
    emulators: dict[str, Control]
    episodes: Path
    log: Path
    statuses: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    modes: list[tuple[Mode, str]] = field(default_factory=list)
    newest: dict[str, Any] = field(default_factory=dict)

    def listen(self) -> None:
        node = self.client.node
        node.subscribe("/diagnostics", self._on_diagnostics)
        node.subscribe("/intervention/state", lambda m: self.modes.append((Mode(m.mode), m.reason)))
        for topic in ("/arm/tcp_pose", "/hand/joint_states", "/teleop/command"):
            node.subscribe(topic, lambda m, t=topic: self.newest.__setitem__(t, m))

    def _on_diagnostics(self, message: Any) -> None:
        for s in message.status:
            values = {pair.key: pair.value for pair in s.values}
            self.statuses[s.name] = (status_level(s), s.message, values)

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            self.client.spin_for(0.02)
            if time.monotonic() > end:
                log = self.log.read_text(encoding="utf-8")[-3000:]
                raise AssertionError(f"{what}\n{self.statuses}\n{self.modes[-3:]}\n{log}")

    def until_status(self, name: str, level: int, text: str = "", timeout: float = 60.0) -> None:
        def holds() -> bool:
            found = self.statuses.get(name, (-1, "", {}))
            return found[0] == level and text in found[1]

        self.until(holds, f"{name} never said {text!r} at level {level}", timeout)

    def until_mode(self, mode: Mode, text: str = "") -> None:
        self.until(
            lambda: bool(self.modes) and self.modes[-1][0] is mode and text in self.modes[-1][1],
            f"the arbiter never was {mode.name} because of {text!r}",
        )

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it was started again."""
        pid = self.graph.supervisor.nodes[name].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.statuses.pop(name, None)
        self.until(
            lambda: self.graph.supervisor.nodes[name].pid not in (None, pid),
            f"{name} was not started again",
        )

    def call(self, service: str) -> Any:
        client = self.client.node.client(service)
        assert client.wait_for_service(timeout_sec=10.0), service
        future: Any = None

        def answered() -> bool:
            # an answer is lost where the server is not yet matched; so was a request to a dead one
            nonlocal future
            future = client.call_async(interface(Trigger).Request())
            end = time.monotonic() + 10.0
            while not future.done() and time.monotonic() < end:
                self.client.spin_for(0.02)
            return bool(future.done())

        self.until(answered, f"{service} did not answer", timeout=60.0)
        return future.result()

    def tcp(self) -> np.ndarray:
        """The newest measured position."""
        return np.array(read_pose(self.newest["/arm/tcp_pose"].pose).position)

    def arm_stands_still(self) -> bool:
        """As the emulator itself sees it, half a second after the question."""
        robot = self.emulators["emulator_ur5"]
        self.client.spin_for(0.5)
        before = np.array(robot.ask("state")["joints"])
        self.client.spin_for(0.3)
        return bool(np.abs(np.array(robot.ask("state")["joints"]) - before).max() < 1e-4)

    def hand(self) -> np.ndarray:
        return np.array(self.newest["/hand/joint_states"].position)


DRIVERS = (
    "arm_driver", "hand_driver", "camera_front", "camera_wrist", "tracker_driver", "glove_driver",
)  # fmt: skip


def settled(cell: Cell) -> None:
    """All devices well and the arm following."""
    for name in DRIVERS:
        cell.until_status(name, OK)


def take_over(cell: Cell) -> None:
    def accepted() -> bool:
        return bool(cell.call("/intervention/force").success)

    cell.until(accepted, "the takeover was never accepted")
    cell.until_mode(Mode.HUMAN)
