"""An Inspire RH56 hand: openings in, openings, forces, currents, faults and temperatures out.

One thread owns the line. Each cycle writes the newest command if it differs from what the hand has,
and reads angles and forces; currents, errors, status and temperatures are read twice a second on a
serial line, and over TCP in the middle of each cycle, so that silence shows within half of one. The
hand itself keeps its last set-point, so silence from here makes it hold. A hand that comes back without
its set-point lost its power, and is not sent to the old command (:mod:`dexpie_ros.devices.inspire_return`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from dexpie_ros.control.guard import CLEAR_ERRORS
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.devices.device import Backoff, DeviceError, Level, Worker
from dexpie_ros.devices.inspire_config import InspireConfig
from dexpie_ros.devices.inspire_return import Return
from dexpie_ros.devices.inspire_transport import NoAnswer
from dexpie_ros.geometry import Array

__all__ = ["HandSample", "InspireConfig", "InspireHand"]

SLOW_PERIOD = 0.5
"""s between reads of currents, errors, status and temperatures."""
COMMAND_AGE = 0.5
"""s after which a command that could not be written is forgotten."""
MAX_REQUESTS = 16
"""Further writes (errors, speed, force) that may wait for their turn."""
MAX_FAILURES = 5
"""Cycles in a row without an answer until the line is opened anew."""
SLOW = (reg.CURRENT, reg.ERROR, reg.STATUS, reg.TEMP)
"""What changes slowly; these lie one behind the other."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class HandSample:
    """State of the hand at ``time_ns`` (ROS time); arrays (6,) in the order of HAND_JOINTS."""

    time_ns: int
    openings: Array
    """0 closed .. 1 open."""
    force: Array
    """N"""
    current: Array
    """A; like the next three at most ``SLOW_PERIOD`` old."""
    errors: Array
    """Bits, see inspire_registers.ERROR_BITS."""
    status: Array
    """Codes, see inspire_registers.STATUS_NAMES."""
    temperature: Array
    """Celsius"""


class InspireHand(Worker[HandSample]):
    """One Inspire hand; see :mod:`dexpie_ros.devices` for the common shape."""

    def __init__(
        self, settings: InspireConfig, name: str = "hand", backoff: Backoff | None = None
    ) -> None:
        super().__init__(name, stale_after=0.3, backoff=backoff)
        self._config = settings
        self._transport = settings.make_transport()
        self._channel = np.array([settings.order.index(finger) for finger in HAND_JOINTS])
        """Channel of each finger."""
        self._closed = np.array(settings.raw_closed, np.float64)
        self._range = np.array(settings.raw_open, np.float64) - self._closed
        self._lock = threading.Lock()
        self._speed, self._force = settings.speed, settings.force
        self._wanted: tuple[float, Array] | None = None
        self._written: list[int] | None = None
        self._sent: deque[list[int]] = deque(maxlen=2)
        """The newest set-points, of which the last one may not have arrived."""
        self._return: Return | None = None
        self._back: Array | None = None
        """The command when the line came back, until it is known whether the hand has it still."""
        self._seen = 0
        self._requests: deque[tuple[reg.Register, list[int]]] = deque()
        self._slow = {register: np.zeros(6) for register in SLOW}
        self._slow_at = 0.0
        self._tcp = settings.transport == "modbus_tcp"
        # TCP repeats what is lost by itself; on a serial line one disturbed byte is no loss.
        self._attempts = 1 if self._tcp else 2
        self._in_a_row, self._failure = 0, ""
        self.failures = 0
        """Transactions without a valid answer since the start."""

    def command(self, openings: ArrayLike) -> bool:
        """Where the fingers shall be, (6,) 0 closed .. 1 open; NaN leaves a finger alone.

        Values outside are clipped. Never blocks; False while the hand is not connected.
        """
        values = np.asarray(openings, np.float64)
        if values.shape != (6,):
            raise ValueError(f"hand command of shape {values.shape}, expected (6,)")
        with self._lock:
            self._wanted = (time.monotonic(), values.copy())
        return self.connected

    def clear_errors(self) -> bool:
        """Ask the hand to forget errors (not over-temperature: it must cool down)."""
        return self._request(reg.CLEAR_ERROR, [1])

    def set_speed(self, speed: int) -> bool:
        """Speed 0..1000 of all fingers, also after the line was lost; RegisterError beyond."""
        accepted = self._request(reg.SPEED_SET, [speed] * 6)
        self._speed = speed if accepted else self._speed
        return accepted

    def set_force(self, force: int) -> bool:
        """Grip force 0..3000 (g) at which fingers stop, likewise."""
        accepted = self._request(reg.FORCE_SET, [force] * 6)
        self._force = force if accepted else self._force
        return accepted

    def raw_angles_of(self, sample: HandSample) -> Array:
        """ANGLE_ACT (6,) by finger as the hand sent it, for calibration."""
        return sample.openings * self._range + self._closed

    def _request(self, register: reg.Register, values: list[int]) -> bool:
        """Write it at the next cycle; False, and nothing is kept, while that cannot be."""
        reg.encode(register, values)  # mistakes belong to the caller
        if not self.connected or len(self._requests) >= MAX_REQUESTS:
            return False
        self._requests.append((register, values))
        return True

    def _open(self) -> None:
        self._transport.open()
        self._written, self._slow_at, self._in_a_row = None, 0.0, 0
        self._due = time.monotonic()
        with self._lock:
            self._back = self._wanted[1] if self._wanted and self._sent else None
        self._seen = self.samples.count
        self._requests.clear()  # asked for before the line was lost: nobody expects it any more
        self._set(reg.SPEED_SET, [self._speed] * 6)
        self._set(reg.FORCE_SET, [self._force] * 6)

    def _close(self) -> None:
        self._transport.close()

    def _cycle(self) -> None:
        period = 1.0 / self._config.rate_hz
        if self._part(self._transactions) and self._tcp:
            self._stopping.wait(max(0.0, self._due + period / 2 - time.monotonic()))
            self._part(self._read_slow)
        self._due = max(self._due + period, time.monotonic() - 0.1)
        self._stopping.wait(max(0.0, self._due - time.monotonic()))

    def _part(self, transactions: Callable[[], None]) -> bool:
        """Some of a cycle's transactions; the first one without an answer ends them (False)."""
        try:
            transactions()
            self._in_a_row = 0
            return True
        except (NoAnswer, reg.RegisterError) as error:
            self._in_a_row += 1
            self._failure = str(error)
            self._written = None  # whether it arrived is unknown
            self.samples.wake()
            if self._in_a_row >= MAX_FAILURES:
                raise DeviceError(f"{error} ({MAX_FAILURES} times in a row)") from None
            return False

    def _transactions(self) -> None:
        self._write_command()
        while self._requests:
            self._set(*self._requests[0])
            self._requests.popleft()  # only now: without an answer it is written again
        (angles,) = self._get(reg.ANGLE_ACT)
        time_ns = time.time_ns()
        # with a word more over Modbus, so that no late answer about angles passes for one to this
        force, *_ = self._get(reg.FORCE_ACT, spare=0 if self._config.transport == "eb90" else 2)
        if time.monotonic() - self._slow_at > SLOW_PERIOD:
            self._read_slow()
        settings = self._config
        self.samples.put(
            HandSample(
                time_ns,
                (angles - self._closed) / self._range,
                force * np.array(settings.force_scale) + np.array(settings.force_offset),
                self._slow[reg.CURRENT] * 1e-3,
                self._slow[reg.ERROR].astype(int),
                self._slow[reg.STATUS].astype(int),
                self._slow[reg.TEMP],
            )
        )

    def _read_slow(self) -> None:
        if self._config.transport == "eb90":
            values = [self._get(register)[0] for register in SLOW]
        else:
            values = self._get(*SLOW)
        self._slow = dict(zip(SLOW, values, strict=True))
        self._slow_at = time.monotonic()

    def _write_command(self) -> None:
        with self._lock:
            wanted = self._wanted
        if wanted is None or time.monotonic() - wanted[0] > COMMAND_AGE:
            return
        openings = wanted[1]
        if self._back is not None:
            if self.samples.count == self._seen:
                return  # where the fingers are is not known yet
            lost_again = self._return is not None  # what it has then is a place on its way
            whole = not lost_again and self._has_set_point()
            self._return, self._back = None if whole else Return(self._back), None
        if self._return is not None:
            openings = self._returning(self._return, openings)
        raw = np.rint(np.clip(openings, 0.0, 1.0) * self._range + self._closed)
        raw = np.where(np.isnan(openings), reg.NO_ACTION, np.clip(raw, 0, 1000))
        values = [int(value) for value in raw]
        if values != self._written:
            # a row that leaves all fingers alone is no set-point that could be lost
            if values not in self._sent and max(values) >= 0:
                self._sent.append(values)
            self._set(reg.ANGLE_SET, values)
            self._written = values

    def _returning(self, back: Return, openings: Array) -> Array:
        sample = self.newest()
        assert sample is not None  # one came since the line is back
        openings = back.next(openings, sample.openings, time.monotonic())
        if back.done:
            self._return = None
        return openings

    def _has_set_point(self) -> bool:
        """Whether the hand still goes where it was sent last: only its line was away, not its power.

        Read with more words than anything else, for the reason that forces are.
        """
        try:
            raw, *_ = self._get(reg.ANGLE_SET, spare=0 if self._config.transport == "eb90" else 4)
        except reg.RegisterError:  # no hand must be lost over what its firmware keeps there
            return False
        return raw.astype(int).tolist() in self._sent

    def _get(self, *registers: reg.Register, spare: int = 0) -> list[Array]:
        """Values by finger of neighbouring registers, read at once, and of ``spare`` bytes none."""
        high_first = self._config.high_byte_first and self._config.transport != "eb90"

        def ask() -> list[Array]:
            size = sum(register.size for register in registers)
            data = self._transport.read(registers[0].address, size + spare)
            values: list[Array] = []
            for register in registers:
                piece, data = data[: register.size], data[register.size :]
                values.append(reg.decode(register, piece, high_first)[self._channel])
            return values

        return self._answered(ask)

    def _set(self, register: reg.Register, values: list[int]) -> None:
        """Write values by finger (or a single one)."""
        if len(values) == len(HAND_JOINTS):
            channels = [0] * len(values)
            for finger, channel in enumerate(self._channel):
                channels[channel] = values[finger]
            values = channels
        data = reg.encode(register, values)
        self._answered(lambda: self._transport.write(register.address, data))

    def _answered(self, ask: Callable[[], T]) -> T:
        """The answer; what came to nothing is asked for again at once, as often as the line allows."""
        attempt = 1
        while True:
            try:
                return ask()
            except (NoAnswer, reg.RegisterError):
                self.failures += 1
                if attempt == self._attempts:
                    raise
            attempt += 1

    def _values(self) -> dict[str, str]:
        sample = self.newest()
        values = {
            "where": self._config.where,
            "timeout_ms": f"{self._transport.timeout * 1e3:.1f}",
            "failures": str(self.failures),
        }
        if sample is not None:
            for index, finger in enumerate(HAND_JOINTS):
                code = int(sample.status[index])
                values[finger] = (
                    f"{reg.STATUS_NAMES.get(code, code)}, {sample.temperature[index]:.0f} C, "
                    f"{sample.current[index]:.2f} A"
                )
        return values

    def _health(self) -> tuple[Level, str]:
        sample = self.newest()
        assert sample is not None  # the worker asks only when there is a fresh one
        if self._in_a_row:
            return Level.STALE, self._failure
        faults = [
            f"{finger}: {', '.join(reg.error_names(int(bits)))}"
            for finger, bits in zip(HAND_JOINTS, sample.errors, strict=True)
            if bits
        ]
        if faults:
            return Level.ERROR, f"{'; '.join(faults)}; free the fingers, then {CLEAR_ERRORS}"
        back = self._return
        if back is not None and back.said:
            return Level.WARN, back.said
        hot = [
            f"{finger}: {degrees:.0f} C"
            for finger, degrees in zip(HAND_JOINTS, sample.temperature, strict=True)
            if degrees >= self._config.hot
        ]
        if hot:
            return Level.WARN, "hot: " + ", ".join(hot) + "; let the hand rest"
        return Level.OK, "ok"
