"""What the arbiter hears of the operator: his follower and his alignment, and how old they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.takeover import wrong_frame
from dexpie_ros.control.timing import TimingMonitor
from dexpie_ros.control.types import Command, Mode
from dexpie_ros.messages import read_command, stamp_ns
from dexpie_ros.nodes.base import ContractNode
from dexpie_ros.nodes.lockstep_inputs import FRESH_NS


class InterventionOperator:
    """Part of the arbiter's node, not for use alone; ``lock`` guards the arbiter.

    In lockstep nothing ages: a step waits for what belongs to it. In simulation in real time the
    world's own clock says how old something is, on a robot the machine's.
    """

    def __init__(
        self,
        node: ContractNode,
        arbiter: Arbiter,
        lock: threading.RLock,
        timing: TimingMonitor,
        operator_s: float,
        *,
        lockstep: bool,
        simulated: bool,
        heard: Callable[[int, Command], None],
    ) -> None:
        self._node, self._arbiter, self._lock, self._timing = node, arbiter, lock, timing
        self._lockstep, self._simulated = lockstep, simulated
        self._limit_ns = FRESH_NS if simulated else round(operator_s * 1e9)
        self._heard = heard
        self._follower: tuple[int, Command] | None = None
        self._aligned: tuple[int, Alignment] | None = None
        node.subscribe("/teleop/command", self._on_command)
        node.subscribe("/teleop/alignment", self._on_alignment)

    def follower(self, now_ns: int) -> Command | None:
        """On a robot: the newest command; None where it is too old."""
        if self._follower is None or now_ns - self._follower[0] >= self._limit_ns:
            return None
        return self._follower[1]

    def alignment(self, time_ns: int) -> Alignment | None:
        """At the control step of ``time_ns``; unknown, and so no reason to take over, where old."""
        if self._lockstep:
            return self._aligned[1] if self._aligned is not None else None
        now = time_ns if self._simulated else time.monotonic_ns()
        if self._aligned is None or abs(now - self._aligned[0]) > self._limit_ns:
            return Alignment.unknown()
        return self._aligned[1]

    def _on_command(self, message: Any) -> None:
        wrong = wrong_frame(self._arbiter.config.follow, message.header.frame_id)
        if wrong:
            self._node.get_logger().error(wrong, throttle_duration_sec=2.0)
            return
        with self._lock:
            stamp, command = stamp_ns(message.header.stamp), read_command(message)
            self._follower = (stamp, command)
            self._heard(stamp, command)

    def _on_alignment(self, message: Any) -> None:
        now = time.monotonic_ns()
        alignment = Alignment.heard(message)
        with self._lock:
            at = stamp_ns(message.header.stamp) if self._simulated else now
            self._aligned = (at, alignment)
            if self._arbiter.mode is Mode.ALIGNING:
                self._timing.aligned(alignment.aligned, now)
