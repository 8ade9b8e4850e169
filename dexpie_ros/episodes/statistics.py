"""How well a stream arrived: counts, rate, jitter, gaps, delay. Cheap enough for every message."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

_LEARN = 16
"""Gaps from which a stream's own period is learned."""
_SLOW = 1.5
"""A stream that is regularly so much slower than it should be is slow; it does not lose messages."""


@dataclass
class StreamStatistics:
    """Running figures of one topic; ``add`` for every message."""

    period_ns: float = 0.0
    """Nominal period; 0: published on change, nothing is expected. Of a stream that is regularly
    slower (a camera set to 30 Hz) its own, so that what is lost of it can be told."""
    received: int = 0
    bytes: int = 0
    dropped: int = 0
    """Messages missing between two others, judged by the period."""
    out_of_order: int = 0
    """Messages older than one that came before them."""
    max_gap_ns: int = 0
    max_delay_ns: int = 0
    _first: int = 0
    _last: int = 0
    _sum_squares: float = 0.0
    _delay: int = 0
    _gaps: list[int] = field(default_factory=list)
    _nominal_ns: float = 0.0

    @property
    def slow(self) -> str:
        """``29.9 Hz instead of 60 Hz``, or nothing."""
        if not self._nominal_ns:
            return ""
        return f"{1e9 / self.period_ns:.1f} Hz instead of {1e9 / self._nominal_ns:g} Hz"

    def add(self, stamp_ns: int, log_time_ns: int, size: int) -> None:
        """Count a message captured at ``stamp_ns`` that reached the recorder at ``log_time_ns``."""
        if self.received:
            self._after(stamp_ns - self._last)
        else:
            self._first = stamp_ns
        self._last = max(self._last, stamp_ns)
        delay = log_time_ns - stamp_ns
        self._delay += delay
        self.max_delay_ns = max(self.max_delay_ns, delay)
        self.received += 1
        self.bytes += size

    def _after(self, gap: int) -> None:
        """``gap``: from the newest stamp so far."""
        if gap < 0:
            self.out_of_order += 1
            return
        self._sum_squares += float(gap) * gap
        self.max_gap_ns = max(self.max_gap_ns, gap)
        if self.period_ns:
            self.dropped += max(0, round(gap / self.period_ns) - 1)
            if len(self._gaps) < _LEARN:
                self._gaps.append(gap)
                self._learn()

    def _learn(self) -> None:
        median = sorted(self._gaps)[len(self._gaps) // 2]
        if len(self._gaps) == _LEARN and median > _SLOW * self.period_ns:
            self._nominal_ns, self.period_ns = self.period_ns, float(median)
            self.dropped = sum(max(0, round(gap / median) - 1) for gap in self._gaps)

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
            **({"out_of_order": self.out_of_order} if self.out_of_order else {}),
            **({"slow": self.slow} if self.slow else {}),
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
