"""How well a stream arrived: counts, rate, jitter, gaps, delay. Cheap enough for every message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class StreamStatistics:
    """Running figures of one topic; ``add`` for every message."""

    period_ns: float = 0.0
    """Nominal period; 0: published on change, nothing is expected."""
    received: int = 0
    bytes: int = 0
    dropped: int = 0
    """Messages missing between two others, judged by the nominal period."""
    max_gap_ns: int = 0
    max_delay_ns: int = 0
    _first: int = 0
    _last: int = 0
    _sum_squares: float = 0.0
    _delay: int = 0

    def add(self, stamp_ns: int, log_time_ns: int, size: int) -> None:
        """Count a message captured at ``stamp_ns`` that reached the recorder at ``log_time_ns``."""
        if self.received:
            gap = stamp_ns - self._last
            self._sum_squares += float(gap) * gap
            self.max_gap_ns = max(self.max_gap_ns, gap)
            if self.period_ns:
                self.dropped += max(0, round(gap / self.period_ns) - 1)
        else:
            self._first = stamp_ns
        self._last = stamp_ns
        delay = log_time_ns - stamp_ns
        self._delay += delay
        self.max_delay_ns = max(self.max_delay_ns, delay)
        self.received += 1
        self.bytes += size

    def silent_ns(self, now_ns: int) -> int:
        """Since the last message, 0 before the first."""
        return now_ns - self._last if self.received else 0

    def late(self, now_ns: int, periods: float = 5.0, floor_ns: int = 200_000_000) -> bool:
        """The stream has a rate and has been silent for several periods (at least ``floor_ns``)."""
        limit = max(periods * self.period_ns, floor_ns)
        return bool(self.period_ns and self.received and self.silent_ns(now_ns) > limit)

    def summary(self) -> dict[str, Any]:
        """Plain values: counts, rate in Hz, jitter (SD of the period), gaps and delay in ms."""
        intervals = self.received - 1
        span = self._last - self._first
        mean = span / intervals if intervals > 0 else 0.0
        variance = self._sum_squares / intervals - mean * mean if intervals > 0 else 0.0
        expected = self.received
        if self.period_ns:
            expected = round(span / self.period_ns) + 1 if self.received else 0
        return {
            "received": self.received,
            "expected": expected,
            "dropped": self.dropped,
            "bytes": self.bytes,
            "rate_hz": round(1e9 / mean, 3) if mean > 0 else 0.0,
            "jitter_ms": round(math.sqrt(max(0.0, variance)) / 1e6, 3),
            "max_gap_ms": round(self.max_gap_ns / 1e6, 3),
            "mean_delay_ms": round(self._delay / self.received / 1e6, 3) if self.received else 0.0,
            "max_delay_ms": round(self.max_delay_ns / 1e6, 3),
        }
