"""An arm that fails without a graph: its driver's library over the emulator, as `arm_driver` uses it.

For an arm at 500 Hz: what stops an arm whose own connection or program fails is its process and its
controller; and a graph around it is more than two cores carry.
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any, Literal

import numpy as np

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.device import Level
from dexpie_ros.devices.ur5 import Phase, Ur5, Ur5Config
from dexpie_ros.emulators.peer import Emulator
from dexpie_ros.geometry import Pose
from dexpie_ros.nodes.fault_cases import Fault
from dexpie_ros.nodes.fault_cell import PATIENCE_S, WATCHED_S, Outcome, follows, held_ms, rest_ms
from dexpie_ros.nodes.session_client import GraphError

RADIUS, TURNS = 0.03, 0.3
"""m and turns a second of the circle that is commanded at 25 Hz."""


class LoneArm:
    """Context manager; `measure` is that of a :class:`~dexpie_ros.nodes.fault_cell.FaultCell`."""

    def __init__(self, model: Literal["ur5", "ur5e"], host: str) -> None:
        self._robot = Emulator("ur5", "--host", host, "--model", model)
        limits = ArmLimits(workspace_low=(-0.9, -0.9, -0.1))
        self._arm = Ur5(Ur5Config(host=host, model=model, limits=limits))
        self._said: list[tuple[int, str]] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=call) for call in (self._circle, self._listen)]

    def __enter__(self) -> LoneArm:
        self._arm.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._arm.stop()
        self._robot.close()

    def ask(self, emulator: str, do: str, **values: Any) -> Any:
        """A request to the emulator, which is the arm's."""
        return self._robot.ask(do, **values)

    def pid(self, node: str) -> int:
        """This process stands in the place of the arm's driver."""
        return os.getpid()

    def measure(self, fault: Fault) -> Outcome:
        """From an arm that moves to one that does so again."""
        self._drive()
        self._said.clear()
        began = fault.begin(self)
        time.sleep(WATCHED_S)
        trace = self.ask("ur5", "trace", since_ns=began)
        fault.end(self)
        ended, text = time.monotonic_ns(), fault.tells[1]
        told = [t for t, what in self._said if text in what]
        self._drive()
        return Outcome(
            held_ms(began, trace),
            rest_ms(began, trace),
            (told[0] - began) * 1e-6 if told else -1.0,
            (time.monotonic_ns() - ended) * 1e-6,
        )

    def said(self) -> str:
        """What the status said since the last fault began, each message once."""
        return "; ".join(dict.fromkeys(text for _, text in self._said))

    def _drive(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while True:
            since = time.monotonic_ns()
            time.sleep(0.5)
            if follows(self.ask("ur5", "trace", since_ns=since)):
                return
            if time.monotonic() > end:
                raise GraphError(f"nobody moves the arm: {self._arm.status().message}")
            if self._arm.phase is Phase.STOPPED:
                self._arm.recover()

    def _circle(self) -> None:
        """Commands at 25 Hz, of a circle that begins anew where the arm stands."""
        start, begun = None, 0
        due = time.monotonic_ns()
        while not self._stopping.is_set():
            newest = self._arm.newest()
            if not self._arm.ready or newest is None:
                start = None
            else:
                if start is None:
                    start, begun = newest.target, due
                angle = 2 * np.pi * TURNS * (due - begun) * 1e-9
                offset = np.array([np.cos(angle) - 1, np.sin(angle), 0.0]) * RADIUS
                self._arm.command(Pose(start.position + offset, start.quaternion))
            due += STEP_NS
            time.sleep(max(0.0, (due - time.monotonic_ns()) * 1e-9))

    def _listen(self) -> None:
        """What the status says: the driver's node looks whenever it changes, this every 5 ms."""
        while not self._stopping.wait(0.005):
            status = self._arm.status()
            if status.level >= Level.WARN:
                self._said.append((time.monotonic_ns(), status.message))
