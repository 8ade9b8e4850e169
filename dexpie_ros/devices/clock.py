"""Stamps of a device that has a clock of its own."""

from __future__ import annotations


class ClockMap:
    """A device's clock to ROS time, from pairs of device stamp and time of arrival.

    Arrival is late by a varying delay; the smallest offset seen lately is the one without delay.
    """

    def __init__(self, drift: float = 1e-4) -> None:
        self._offset: float | None = None
        self._drift, self._last = drift, 0.0

    def __call__(self, device_time: float, host_time: float) -> float:
        """Host time in s at which the device took the sample stamped ``device_time``.

        ``drift`` is how much slower (s/s) the device's clock may run than this one.
        """
        candidate = host_time - device_time
        if self._offset is None or device_time < self._last:  # first sample, or device restart
            self._offset = candidate
        else:
            drifted = self._offset + self._drift * (device_time - self._last)
            # A host clock set forward by more than a second is followed at once.
            jumped = candidate - drifted > 1.0
            self._offset = candidate if jumped else min(drifted, candidate)
        self._last = device_time
        return device_time + self._offset
