"""What the drivers share: a device's samples onto topics, its status onto /diagnostics."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType

from dexpie_ros.control.guard import Voices
from dexpie_ros.devices.device import DeviceError, Level, Pace, Status
from dexpie_ros.messages import read_command, stamp_ns
from dexpie_ros.nodes.base import ContractNode
from dexpie_ros.runtime import abort

WATCH_PERIOD_S = 0.05
ARBITER = "intervention_arbiter"


class DeviceNode(ContractNode):
    """Owns one device of `dexpie_ros.devices`; a subclass calls :meth:`drive` when it is set up."""

    def drive(
        self, device: Any, publish: Callable[[Any], None], rate_hz: float, start: bool = True
    ) -> None:
        """Publish samples at ``rate_hz`` at most, from a thread; ``start=False``: it is fed."""
        self.device = device
        self._publish, self._pace = publish, Pace(rate_hz)
        self._stopping = threading.Event()
        self._shown = ""
        self.report_diagnostics(self._diagnose)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)
        self._alarm = self.create_guard_condition(self._watch)
        if start:
            device.start()
        self._thread = threading.Thread(target=self._run, name="samples")
        self._thread.start()

    def judge(self, status: Status) -> Status:
        """The device's status, or what this node has to complain of; for subclasses."""
        return status

    def destroy_node(self) -> None:
        if hasattr(self, "_thread"):
            self._stopping.set()
            self._thread.join()
            try:
                self.device.stop()
            except DeviceError as error:
                self.get_logger().error(str(error))
        super().destroy_node()

    def _run(self) -> None:
        try:
            seen = 0
            while not self._stopping.is_set():
                sample = self.device.wait(seen, 0.2)
                if sample is None:
                    self._alarm.trigger()  # a loss must not wait for the timer: the arm holds for it
                    continue
                seen = self.device.samples.count
                if self._pace.takes(sample.time_ns):
                    self._publish(sample)
        except Exception as error:  # noqa: BLE001 - it must end the node, not only this thread
            if self.context.ok():  # else: Ctrl-C came while something was being published
                abort(error)

    def _diagnose(self) -> tuple[int, str, dict[str, object]]:
        status = self.judge(self.device.status())
        values: dict[str, object] = {"device": status.device}
        return int(status.level), status.message, values | status.values

    def _watch(self) -> None:
        """A change that a person must see goes out at once, not with the next second's report."""
        status = self.judge(self.device.status())
        shown = f"{status.level} " + re.sub(r"[\d.]+", "#", status.message)
        if shown == self._shown:
            return
        self._shown = shown
        self.publish_diagnostics()
        # by level from call sites of their own: rclpy keeps one severity per line of code
        if status.level is Level.OK:
            self.get_logger().info(f"{status.device}: {status.message}")
        elif status.level is Level.WARN:
            self.get_logger().warning(f"{status.device}: {status.message}")
        else:
            self.get_logger().error(f"{status.device}: {status.message}")


class ArbiterCommands:
    """/control/command for a driver: fresh ones, from the one arbiter only.

    A driver that hears nothing, or a second voice, sends nothing: the device keeps its last target.
    An arbiter that was killed and started again is followed at once, although DDS goes on listing
    the dead one for a while.
    """

    def __init__(self, node: ContractNode, take: Callable[[Any], object], timeout_s: float) -> None:
        self._node, self._take, self._timeout_s = node, take, timeout_s
        self._heard_ns: int | None = None
        self._strangers: list[str] = []
        self._voices = Voices()
        self._listed = False
        """Whether the arbiter is among the publishers."""
        node.subscribe("/control/command", self._on_command)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(0.25, self._look_around, clock=steady)

    def problem(self) -> str:
        """Empty while commands are followed, else why not."""
        if self._strangers:
            who = ", ".join(self._strangers)
            return f"not following: {who} publishes /control/command as well; stop it"
        if self._voices.several(time.monotonic_ns()):
            return f"not following: two nodes called {ARBITER} command; stop one of them"
        if self._heard_ns is None:
            return "waiting for the first /control/command; is intervention_arbiter running?"
        silence = (self._node.now_ns() - self._heard_ns) * 1e-9
        if silence > self._timeout_s:
            return f"holding: no /control/command for {silence:.1f} s; see intervention_arbiter"
        return ""

    def _on_command(self, message: Any) -> None:
        now, stamp = self._node.now_ns(), stamp_ns(message.header.stamp)
        # One that waited in a queue is no command for now.
        if now - stamp > self._timeout_s * 1e9:
            return
        heard_ns = time.monotonic_ns()
        if self._voices.heard(message.tick, heard_ns):
            self._look_around()
        if self._strangers or not self._listed or self._voices.several(heard_ns):
            return
        self._heard_ns = stamp
        self._take(read_command(message))

    def _look_around(self) -> None:
        publishers = self._node.get_publishers_info_by_topic("/control/command")
        names = {info.node_name for info in publishers}
        self._listed = ARBITER in names
        self._strangers = sorted(names - {ARBITER})
