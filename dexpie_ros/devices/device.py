"""What all device clients share: status, newest sample, back-off and the thread that keeps one open.

A device that is lost never raises into the control loop: its newest sample grows old, its status
says why, and its worker tries again with growing pauses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, Protocol, TypeVar


class Level(IntEnum):
    """Severity with the numbers of ``diagnostic_msgs/DiagnosticStatus``."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """What a device says of itself; one entry of /diagnostics."""

    device: str
    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


class DeviceError(RuntimeError):
    """A device that cannot be used right now; the message names it and what to do."""


class Stamped(Protocol):
    """Any sample: when it was captured, in ns of ROS time."""

    @property
    def time_ns(self) -> int: ...


S = TypeVar("S", bound=Stamped)


class Newest(Generic[S]):
    """The newest sample and how many there were; one writer, any number of readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sample: S | None = None
        self.count = self._woken = 0

    def put(self, sample: S) -> None:
        with self._changed:
            self._sample = sample
            self.count += 1
            self._changed.notify_all()

    def get(self) -> S | None:
        with self._changed:
            return self._sample

    def wait(self, after: int, timeout: float) -> S | None:
        """The newest sample once more than ``after`` have come; None after ``timeout`` s or when
        woken.
        """
        with self._changed:
            woken = self._woken
            self._changed.wait_for(lambda: self.count > after or self._woken != woken, timeout)
            return self._sample if self.count > after else None

    def wake(self) -> None:
        """Who waits shall look at the status: something happened that is no sample."""
        with self._changed:
            self._woken += 1
            self._changed.notify_all()

    def age(self) -> float:
        """Seconds since the newest sample was captured; infinite before the first."""
        sample = self.get()
        return float("inf") if sample is None else (time.time_ns() - sample.time_ns) * 1e-9


class Backoff:
    """Pauses between attempts: doubling from ``first`` to ``longest`` s, forgotten after success."""

    def __init__(self, first: float = 0.25, longest: float = 5.0) -> None:
        self.first, self.longest, self._next = first, longest, first

    def next(self) -> float:
        pause, self._next = self._next, min(2 * self._next, self.longest)
        return pause

    def reset(self) -> None:
        self._next = self.first


class Pace:
    """Thins a stream to a rate; a device of this very rate loses nothing to its jitter."""

    def __init__(self, rate_hz: float) -> None:
        self._period, self._due = int(1e9 / rate_hz), 0

    def takes(self, time_ns: int) -> bool:
        """Whether the sample of ``time_ns`` belongs to the thinned stream."""
        late = time_ns - self._due
        if abs(late) > 4 * self._period:  # the first one, a pause, or a clock that was set
            self._due = time_ns + self._period
            return True
        if late < -self._period // 2:
            return False
        self._due += self._period
        return True


class Worker(Generic[S]):
    """A device owned by one thread: opened, cycled, closed, and opened again after a loss.

    A subclass gives ``_open``, ``_cycle`` (one transaction; blocks at most a fraction of a second)
    and ``_close``. All three raise :class:`DeviceError` when the device is gone; anything else is a
    mistake in the program, is reported as an ERROR that stays, and ends the worker.
    """

    def __init__(self, name: str, stale_after: float, backoff: Backoff | None = None) -> None:
        self.name = name
        self.samples: Newest[S] = Newest()
        self._stale_after = stale_after
        self._backoff = backoff or Backoff()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._connected = False
        self._problem = "not started"
        self._broken = ""
        self.losses = 0

    def start(self) -> None:
        """Begin connecting in the background; harmless when it runs already."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
        self._problem, self._broken = "connecting", ""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Close the device and end the thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise DeviceError(f"{self.name}: did not stop within {timeout} s")
            self._thread = None
        self._problem = "stopped"

    def newest(self) -> S | None:
        """The newest sample, however old; None before the first. Never blocks."""
        return self.samples.get()

    def wait(self, after: int, timeout: float) -> S | None:
        """The newest sample once more than ``after`` have come (see ``samples.count``)."""
        return self.samples.wait(after, timeout)

    @property
    def connected(self) -> bool:
        """Whether the device answers."""
        return self._connected

    def status(self) -> Status:
        """Level, message and values for /diagnostics. Never blocks."""
        age = self.samples.age()
        values = {
            "connected": str(self._connected).lower(),
            "samples": str(self.samples.count),
            "losses": str(self.losses),
            "age_s": "never" if age == float("inf") else f"{age:.3f}",
        } | self._values()
        if self._broken:
            return Status(self.name, Level.ERROR, self._broken, values)
        if not self._connected:
            return Status(self.name, Level.ERROR, self._problem, values)
        if age > self._stale_after:
            message = self._stale_message(values["age_s"])
            return Status(self.name, Level.STALE, message, values)
        level, message = self._health()
        return Status(self.name, level, message, values)

    def _open(self) -> None:
        raise DeviceError(f"{self.name}: nothing to open")

    def _cycle(self) -> None:
        raise DeviceError(f"{self.name}: nothing to read")

    def _close(self) -> None:
        """Let go of the device; called after a loss and at the end."""

    def _values(self) -> dict[str, str]:
        return {}

    def _stale_message(self, age: str) -> str:
        return f"no sample for {age} s" if age != "never" else "no sample yet"

    def _health(self) -> tuple[Level, str]:
        return Level.OK, "ok"

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._open()
                self._connected = True
                self._backoff.reset()
                while not self._stopping.is_set():
                    self._cycle()
            except DeviceError as error:
                self.losses += self._connected
                self._problem = str(error)
            except BaseException as error:
                self._broken = f"{self.name}: internal error, {type(error).__name__}: {error}"
                raise
            finally:
                self._connected = False
                self.samples.wake()
                self._close()
            self._stopping.wait(self._backoff.next())


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.01) -> bool:
    """Poll ``condition`` until it holds (True) or ``timeout`` s have passed (False)."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
