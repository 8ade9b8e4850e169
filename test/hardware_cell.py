"""Hands on the running graph of emulated hardware; see test_graph_hardware."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message

from dexpie_ros import contract
from dexpie_ros.control.modes import DRIVES
from dexpie_ros.control.types import Mode
from dexpie_ros.emulators.peer import Control
from dexpie_ros.graph import NodeSpec
from dexpie_ros.messages import read_pose
from dexpie_ros.nodes.base import interface, status_level
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.realtime import VARIABLE
from dexpie_ros.running_graph import RunningGraph

WIDTH, HEIGHT, FPS = 320, 240, 30
OK, WARN, ERROR, STALE = range(4)
Trigger = "std_srvs/srv/Trigger"
START_S = 180.0
"""Fourteen processes on a machine that does other things, too."""
CALLED = (
    "/arm/recover", "/hand/clear_errors", "/intervention/clear_fault", "/intervention/force",
    "/teleop/calibrate",
)  # fmt: skip


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


@contextlib.contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """For what is started inside: these processes fill two cores, and those that go before all others
    would leave none of the rest, jogs and this program among them, any time at all.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        yield


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
    newest: dict[str, bytes] = field(default_factory=dict)
    services: dict[str, Any] = field(default_factory=dict)

    def listen(self) -> None:
        node = self.client.node
        # early: a server loses its answer to a client that it has not been matched with yet
        self.services = {name: node.client(name) for name in CALLED}
        node.subscribe("/diagnostics", self._on_diagnostics)
        node.subscribe("/intervention/state", lambda m: self.modes.append((Mode(m.mode), m.reason)))
        for topic in ("/arm/tcp_pose", "/hand/joint_states"):  # unread: a busy machine has no time
            keep = partial(self.newest.__setitem__, topic)
            node.subscribe(topic, keep, raw=True)

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

    def until_was(self, mode: Mode, text: str) -> None:
        """As :meth:`until_mode`, since the last kill, if only for a moment."""
        self.until(
            lambda: any(seen is mode and text in reason for seen, reason in self.modes),
            f"the arbiter never was {mode.name} because of {text!r}",
        )

    @property
    def reason(self) -> str:
        return self.modes[-1][1] if self.modes else ""

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it was started again; what is said counts from then on."""
        pid = self.graph.supervisor.nodes[name].pid
        assert pid is not None
        self.client.spin_for(0.1)
        os.kill(pid, signal.SIGKILL)
        self.statuses.pop(name, None)
        self.modes.clear()
        self.until(
            lambda: self.graph.supervisor.nodes[name].pid not in (None, pid),
            f"{name} was not started again",
        )

    def call(self, service: str) -> Any:
        client = self.services[service]
        self.until(client.service_is_ready, f"{service} is not there")
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

    def succeeds(self, service: str) -> None:
        """Until it does: a busy machine may make a device, or an answer, late."""
        self.until(lambda: bool(self.call(service).success), f"{service} was always refused")

    def recover(self) -> None:
        """The arm: by the service; its answer may be lost where it was carried out."""

        def recovered() -> bool:
            answer = self.call("/arm/recover")
            return bool(answer.success) or "not stopped" in answer.message

        self.until(recovered, "the arm was not recovered")
        self.until_status("arm_driver", OK)

    def clear_fault(self) -> None:
        """Until there is none: a driver's last word about it may come late."""

        def cleared() -> bool:
            if self.modes and self.modes[-1][0] is Mode.FAULT:
                self.call("/intervention/clear_fault")
                self.client.spin_for(0.5)
            return not self.modes or self.modes[-1][0] is not Mode.FAULT

        self.until(cleared, "the fault was not cleared")

    def tcp(self) -> np.ndarray:
        """The newest measured position."""
        return np.array(read_pose(self._read("/arm/tcp_pose").pose).position)

    def _read(self, topic: str) -> Any:
        self.until(lambda: topic in self.newest, f"nothing on {topic}")
        return deserialize_message(self.newest[topic], interface(contract.BY_NAME[topic].type))

    def arm_stands_still(self) -> bool:
        """As the emulator itself sees it, half a second after the question."""
        robot = self.emulators["emulator_ur5"]
        self.client.spin_for(0.5)
        before = np.array(robot.ask("state")["joints"])
        self.client.spin_for(0.3)
        return bool(np.abs(np.array(robot.ask("state")["joints"]) - before).max() < 1e-4)

    def hand(self) -> np.ndarray:
        return np.array(self._read("/hand/joint_states").position)


DRIVERS = (
    "arm_driver", "hand_driver", "camera_front", "camera_wrist", "tracker_driver", "glove_driver",
)  # fmt: skip


def settled(cell: Cell) -> None:
    """All devices well and the arm following."""
    for name in DRIVERS:
        cell.until_status(name, OK)
    cell.clear_fault()


def take_over(cell: Cell) -> None:
    """Until the operator drives; the key alone would give back what he has already."""

    def drives() -> bool:
        if not (cell.modes and cell.modes[-1][0] is Mode.HUMAN):
            cell.call("/intervention/force")
            cell.client.spin_for(0.5)
        return bool(cell.modes) and cell.modes[-1] == (Mode.HUMAN, DRIVES[Mode.HUMAN])

    cell.until(drives, "the takeover was never accepted")
