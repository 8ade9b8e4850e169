"""Stamps of a device that has a clock of its own, on a host whose clock may be set."""

from __future__ import annotations

import time
from collections.abc import Callable

SET_S = 0.02
"""From one look to the next a host's clock moves by less than this unless somebody sets it."""
TELL_S = 60.0
"""For so long a status says that the clock was set."""


def host_times() -> tuple[float, float]:
    """ROS time, and a clock that nobody sets or slews; both in s."""
    return time.time(), time.clock_gettime(time.CLOCK_MONOTONIC_RAW)


class ClockMap:
    """A device's clock to ROS time, from pairs of device stamp and time of arrival.

    Arrival is late by a varying delay; the smallest offset seen lately is the one without delay. It
    is an offset to a steady clock: only there a larger one means lateness, which must show for as long
    as it lasts, and never a host clock that was set forward.
    """

    def __init__(self, drift: float = 2e-4) -> None:
        self._offset: float | None = None
        self._drift, self._last = drift, 0.0

    def __call__(
        self, device_time: float, host_time: float, steady_time: float | None = None
    ) -> float:
        """Host time in s at which the device took the sample stamped ``device_time``.

        ``host_time`` and ``steady_time`` (:func:`host_times`) are of its arrival; without the latter
        the host's clock counts as steady. ``drift`` is how much slower (s/s) the device's clock may
        run than this one: two crystals of 100 ppm each.
        """
        steady = host_time if steady_time is None else steady_time
        candidate = steady - device_time
        if self._offset is None or device_time < self._last:  # first sample, or device restart
            self._offset = candidate
        else:
            drifted = self._offset + self._drift * (device_time - self._last)
            # a device's clock that lost more than a second is followed at once
            jumped = candidate - drifted > 1.0
            self._offset = candidate if jumped else min(drifted, candidate)
        self._last = device_time
        return device_time + self._offset + (host_time - steady)


class ClockWatch:
    """Notices that the host's clock was set: what was stamped before and after does not fit."""

    def __init__(self, clock: Callable[[], tuple[float, float]] = host_times) -> None:
        self._clock = clock
        host, steady = clock()
        self._offset, self._moved, self._at = host - steady, 0.0, -TELL_S

    def said(self) -> str:
        """What a status says of it: empty unless it was set within the last minute."""
        host, steady = self._clock()
        moved, self._offset = host - steady - self._offset, host - steady
        if abs(moved) > SET_S:
            self._moved, self._at = moved, steady
        if not self._moved or steady - self._at > TELL_S:
            return ""
        where = "forward" if self._moved > 0 else "back"
        return f"; this computer's clock was set {where} by {abs(self._moved):.3f} s"
