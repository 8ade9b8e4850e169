"""Which streams are alive: ages, rates, and values that repeat themselves.

The arbiter's caller feeds every arrival and asks once per control step; a needed stream older than
its limit makes the robot hold within that step. A driver uses the same monitor for the heartbeat
that /control/command is. Times are of one clock, the caller's; a clock that went back starts anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from pydantic import Field

from dexpie_ros.config import ConfigError, config

RATE_WINDOW = 50
"""Arrivals that a rate is estimated from."""


@config
class StreamConfig:
    """One stream and how long it may be silent."""

    name: str
    """topic, as a person knows it"""
    limit_s: float = Field(gt=0)
    """older than this is stale"""
    needed: bool = True
    """False: reported, but nobody holds because of it"""
    frozen_s: float = Field(0.0, ge=0)
    """values bit-identical for longer than this are stale too (a dead glove repeats itself); 0 off"""
    rate_hz: float = Field(0.0, ge=0)
    """nominal rate; far below it is a warning; 0: none"""


class Health(IntEnum):
    """Of one stream, worst last."""

    FRESH = 0
    SLOW = 1
    STALE = 2
    FROZEN = 3
    MISSING = 4


@dataclass(frozen=True)
class StreamStatus:
    """A stream at one instant."""

    name: str
    health: Health
    needed: bool
    age_s: float
    """s since the newest arrival; infinite before the first"""
    rate_hz: float
    """over the last arrivals; 0 where fewer than two"""
    limit_s: float

    @property
    def usable(self) -> bool:
        return self.health <= Health.SLOW

    def describe(self) -> str:
        """For a person; the text stays the same while the state does."""
        if self.health is Health.MISSING:
            return f"{self.name} never came; is its node up?"
        if self.health is Health.STALE:
            return f"{self.name} is silent for more than {self.limit_s:g} s"
        if self.health is Health.FROZEN:
            return f"{self.name} repeats the same values; is the device still connected?"
        if self.health is Health.SLOW:
            return f"{self.name} comes at less than half of its rate"
        return f"{self.name} is fresh"


class _Stream:
    def __init__(self, settings: StreamConfig) -> None:
        self.config = settings
        self.arrivals: deque[int] = deque(maxlen=RATE_WINDOW)
        self.value: object = None
        self.changed_ns = 0


class StalenessMonitor:
    """Watches the streams that a control loop lives on."""

    def __init__(self, streams: Iterable[StreamConfig]) -> None:
        self._streams: dict[str, _Stream] = {}
        for stream in streams:
            if stream.name in self._streams:
                raise ConfigError(f"stream {stream.name} is listed twice")
            self._streams[stream.name] = _Stream(stream)

    def seen(self, name: str, now_ns: int, value: object = None) -> None:
        """A message arrived; ``value`` (compared with ==, e.g. bytes or a tuple) finds frozen ones.

        Raises KeyError for a stream that is not watched.
        """
        stream = self._streams[name]
        if stream.arrivals and now_ns < stream.arrivals[-1]:
            stream.arrivals.clear()
            stream.changed_ns = now_ns
        if not stream.arrivals or value is None or value != stream.value:
            stream.changed_ns, stream.value = now_ns, value
        stream.arrivals.append(now_ns)

    def forget(self) -> None:
        """All streams are missing again: after a restart of the clock or of the graph."""
        for stream in self._streams.values():
            stream.arrivals.clear()

    def status(self, now_ns: int) -> tuple[StreamStatus, ...]:
        """Every stream at ``now_ns``, in the order given."""
        return tuple(self._judge(stream, now_ns) for stream in self._streams.values())

    def problem(self, now_ns: int) -> str:
        """Why the robot must hold at ``now_ns``, or "" where every needed stream is usable."""
        bad = [s.describe() for s in self.status(now_ns) if s.needed and not s.usable]
        return "; ".join(bad)

    def fresh(self, name: str, now_ns: int) -> bool:
        """Whether one stream is usable. Raises KeyError for one that is not watched."""
        return self._judge(self._streams[name], now_ns).usable

    def _judge(self, stream: _Stream, now_ns: int) -> StreamStatus:
        settings, arrivals = stream.config, stream.arrivals
        if not arrivals:
            return self._status(settings, Health.MISSING, float("inf"), 0.0)
        age = (now_ns - arrivals[-1]) * 1e-9
        span = (arrivals[-1] - arrivals[0]) * 1e-9
        rate = (len(arrivals) - 1) / span if span > 0 else 0.0
        health = Health.FRESH
        if settings.rate_hz and len(arrivals) > 10 and rate < 0.5 * settings.rate_hz:
            health = Health.SLOW
        if settings.frozen_s and (arrivals[-1] - stream.changed_ns) * 1e-9 > settings.frozen_s:
            health = Health.FROZEN
        if age > settings.limit_s:
            health = Health.STALE
        return self._status(settings, health, age, rate)

    @staticmethod
    def _status(settings: StreamConfig, health: Health, age: float, rate: float) -> StreamStatus:
        return StreamStatus(settings.name, health, settings.needed, age, rate, settings.limit_s)
