"""The arbiter's eyes on the graph: silent streams, a second writer, drivers that report a stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.guard import ARM, HAND, POLICY, TCP, Guard, GuardConfig, fault_of_status
from dexpie_ros.control.timing import TimingMonitor
from dexpie_ros.control.types import ControlStep, Mode
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.arrivals import with_way
from dexpie_ros.nodes.base import ERROR, ContractNode, status_level
from dexpie_ros.nodes.process_watch import PROCESS, ProcessWatch

STREAMS = {"arm": ARM, "hand": HAND, "tcp": TCP}


class InterventionWatch:
    """Feeds a `control.Guard`; ``simulated``: stamps say nothing about ages. For one node only."""

    def __init__(
        self,
        node: ContractNode,
        arbiter: Arbiter,
        lock: threading.RLock,
        settings: GuardConfig,
        simulated: bool,
        timing: TimingMonitor,
    ) -> None:
        self._node, self._arbiter, self._lock = node, arbiter, lock
        self._guard, self._simulated, self._timing = Guard(settings), simulated, timing
        self._processes = ProcessWatch()
        node.subscribe("/control/command", with_way(self._on_command))
        node.subscribe("/diagnostics", self._on_diagnostics)

    def measured(self, stream: str, stamp: int) -> None:
        """A measurement of ``arm``, ``hand`` or ``tcp`` arrived."""
        age = 0 if self._simulated else self._node.now_ns() - stamp
        self._guard.seen(STREAMS[stream], time.monotonic_ns(), age)

    def world_goes_on(self) -> None:
        """The simulated world stood still on purpose; that is no silence."""
        for stream in STREAMS if self._simulated else ():
            self.measured(stream, 0)

    def policy_answered(self) -> None:
        """The policy server is alive and sees."""
        self._guard.seen(POLICY, time.monotonic_ns())

    def check(self, homing: bool) -> str:
        """Before every step: hold or go on; what is missing, or ""."""
        for name in self._processes.ended():  # its stream would be silent for long before it counts
            self._guard.device(name, ERROR, "its process has ended")
        return self._guard.check(self._arbiter, time.monotonic_ns(), policy=not homing)

    def sent(self, step: ControlStep) -> None:
        """The command of ``step`` is about to be published."""
        self._guard.sent(step.time_ns, step.tick)

    def values(self) -> dict[str, object]:
        """Health by stream, for /diagnostics."""
        return {
            f"stream {stream.name}": stream.health.name.lower()
            for stream in self._guard.status(time.monotonic_ns())
        }

    def _on_command(self, message: Any, way_ms: float | None) -> None:
        """What was heard on /control/command must be one's own; its way is what a driver's is."""
        with self._lock:
            if self._guard.is_own(stamp_ns(message.header.stamp), message.tick):
                if way_ms is not None:
                    self._timing.command_arrived(message.tick, way_ms)
                return
            infos = self._node.get_publishers_info_by_topic("/control/command")
            names = ", ".join(sorted({info.node_name for info in infos}))
            reason = f"two nodes command the arm; publishers of /control/command: {names}"
            if self._arbiter.mode is not Mode.FAULT:
                self._node.get_logger().error(reason)
            self._arbiter.fault(reason)

    def _on_diagnostics(self, message: Any) -> None:
        with self._lock:
            for status in message.status:
                self._guard.seen(status.name, time.monotonic_ns())
                level = status_level(status)
                self._guard.device(status.name, level, status.message)
                for value in status.values:
                    if value.key == PROCESS:
                        self._processes.said(status.name, value.value)
                fault = fault_of_status(status.name, level, status.message)
                if fault:
                    self._arbiter.fault(fault)
