"""An Inspire RH56 hand as its registers show it: byte memory, finger motion, grip force, faults."""

from __future__ import annotations

import struct
import time

import numpy as np

from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.emulators.channel import EventLog

LOW, HIGH = 1000, 5200
LATENCY = 0.06
"""s from a command to the first motion (measured on hands: 0.044..0.070)."""
FULL_SPEED = 2200.0
"""Angle units per s at speed 1000."""
OPENING, GRASPING, AT_POSITION, AT_FORCE, STALLED, IDLE = 0, 1, 2, 3, 6, 255
STALL_BIT, HOT_BIT = 1, 2
GRIP_PER_UNIT = 20.0
"""Grip force (g) per angle unit that a finger presses into an object."""


class HandModel:
    """Memory and motion; :meth:`step` moves the fingers."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._memory = bytearray(HIGH - LOW)
        self._angles = np.full(6, 1000.0)
        self._goals: list[tuple[float, list[int]]] = []
        self._target = np.full(6, float(reg.NO_ACTION))
        self._objects = np.full(6, -1e9)
        """Angle at which each finger touches something."""
        self._stalled: set[int] = set()
        self._errors = [0] * 6
        self._temperature = [32] * 6
        self.transactions = 0
        self.writes = 0
        self._power_on()

    def _power_on(self) -> None:
        self._put(reg.HAND_ID, [1])
        self._put(reg.ANGLE_SET, [reg.NO_ACTION] * 6)
        self._put(reg.SPEED_SET, [1000] * 6)
        self._put(reg.FORCE_SET, [500] * 6)
        self._put(reg.STATUS, [IDLE] * 6)
        self._publish(np.zeros(6))

    def value(self, register: reg.Register) -> list[int]:
        """What stands in a register."""
        return self._get(register)

    def read(self, address: int, size: int) -> bytes | None:
        """Bytes of the memory; None beyond its ends."""
        self.transactions += 1
        if not (LOW <= address and address + size <= HIGH):
            return None
        return bytes(self._memory[address - LOW : address - LOW + size])

    def write(self, address: int, data: bytes) -> bool:
        """Store bytes and act on what they mean."""
        self.transactions += 1
        if not (LOW <= address and address + len(data) <= HIGH):
            return False
        self._memory[address - LOW : address - LOW + len(data)] = data
        end = address + len(data)
        if address < reg.ANGLE_SET.address + 12 and end > reg.ANGLE_SET.address:
            self.writes += 1
            wanted = self._get(reg.ANGLE_SET)
            self._goals.append((time.monotonic() + LATENCY, wanted))
            self.log.add("angles", values=wanted)
        if address <= reg.CLEAR_ERROR.address < end and self._get(reg.CLEAR_ERROR) == [1]:
            self._put(reg.CLEAR_ERROR, [0])
            self._errors = [bits & HOT_BIT for bits in self._errors]
            self._stalled.clear()
            self.log.add("clear")
        return True

    def stall(self, finger: int) -> int:
        """A finger is blocked: it stops and reports it until the errors are cleared."""
        self._stalled.add(finger)
        self._errors[finger] |= STALL_BIT
        return self.log.add("stall", finger=finger)

    def heat(self, finger: int, degrees: int) -> int:
        """Temperature of a finger; from 70 degrees on it reports over-temperature."""
        self._temperature[finger] = degrees
        self._errors[finger] = self._errors[finger] & ~HOT_BIT | (HOT_BIT if degrees >= 70 else 0)
        return self.log.add("heat", finger=finger, degrees=degrees)

    def power_cut(self, angles: list[float]) -> int:
        """Off and on again: it has forgotten what it was told, and somebody moved its fingers."""
        self._goals.clear()
        self._target = np.full(6, float(reg.NO_ACTION))
        self._angles = np.array(angles, np.float64)
        self._power_on()
        return self.log.add("power_cut", angles=angles)

    def hold_object(self, angles: list[float]) -> None:
        """Something lies in the hand that each finger touches at an angle (below 0: nothing)."""
        self._objects = np.array([a if a >= 0 else -1e9 for a in angles])

    def step(self, period: float) -> None:
        """Move for ``period`` s."""
        now = time.monotonic()
        while self._goals and self._goals[0][0] <= now:
            wanted = np.array(self._goals.pop(0)[1], np.float64)
            self._target = np.where(wanted < 0, self._target, wanted)
        limit = np.array(self._get(reg.SPEED_SET)) / 1000 * FULL_SPEED * period
        target = np.where(self._target < 0, self._angles, self._target)
        limit[list(self._stalled)] = 0.0
        grip_limit = np.array(self._get(reg.FORCE_SET), np.float64)
        deepest = self._objects - grip_limit / GRIP_PER_UNIT
        step = np.clip(target - self._angles, -limit, limit)
        moved = np.maximum(self._angles + step, np.minimum(deepest, self._angles))
        grip = np.clip((self._objects - moved) * GRIP_PER_UNIT, 0, 3000)
        status = np.where(step > 0.5, OPENING, np.where(step < -0.5, GRASPING, AT_POSITION))
        status = np.where((grip > 0) & (moved <= deepest + 0.5), AT_FORCE, status)
        status = np.where(self._target < 0, IDLE, status)
        status[list(self._stalled)] = STALLED
        self._angles = moved
        self._put(reg.STATUS, [int(code) for code in status])
        self._publish(grip)

    def _publish(self, grip: np.ndarray) -> None:
        angles = [int(round(a)) for a in self._angles]
        self._put(reg.ANGLE_ACT, angles)
        self._put(reg.POS_ACT, [2000 - 2 * a for a in angles])
        self._put(reg.FORCE_ACT, [int(g) for g in grip])
        self._put(reg.CURRENT, [50 + int(g) // 4 for g in grip])
        self._put(reg.ERROR, self._errors)
        self._put(reg.TEMP, self._temperature)

    def _put(self, register: reg.Register, values: list[int]) -> None:
        layout = f"<{register.count}{'h' if register.short else 'B'}"
        struct.pack_into(layout, self._memory, register.address - LOW, *values)

    def _get(self, register: reg.Register) -> list[int]:
        layout = f"<{register.count}{'h' if register.short else 'B'}"
        return list(struct.unpack_from(layout, self._memory, register.address - LOW))
