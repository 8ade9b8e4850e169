"""The register map of the Inspire RH56 hands, one for all transports.

Addresses are **byte** addresses and shorts are little-endian. Over Modbus the start address is the
byte address and the count is in 16-bit words, so six words at 1486 are the six fingers' angles and
one word at 1488 is the ring finger's. Sources: RH56 user manual V1.09 and public drivers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

FINGERS = len(HAND_JOINTS)
NO_ACTION = -1
"""A set-point of -1 leaves that finger alone; on the wire 0xFFFF."""


@dataclass(frozen=True)
class Register:
    """``count`` values from byte ``address`` on: shorts (signed) or single bytes."""

    name: str
    address: int
    count: int
    short: bool
    writable: bool
    low: int
    high: int

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return self.count * (2 if self.short else 1)


class RegisterError(ValueError):
    """Values that do not belong into a register, or bytes that are none."""


def _shorts(name: str, address: int, low: int, high: int, writable: bool = False) -> Register:
    return Register(name, address, FINGERS, True, writable, low, high)


HAND_ID = Register("HAND_ID", 1000, 1, False, True, 1, 254)
CLEAR_ERROR = Register("CLEAR_ERROR", 1004, 1, False, True, 0, 1)
SAVE = Register("SAVE", 1005, 1, False, True, 0, 1)
FORCE_CALIBRATION = Register("GESTURE_FORCE_CLB", 1009, 1, False, True, 0, 1)
CURRENT_LIMIT = _shorts("CURRENT_LIMIT", 1020, 0, 1500, writable=True)
POS_SET = _shorts("POS_SET", 1474, -1, 2000, writable=True)
ANGLE_SET = _shorts("ANGLE_SET", 1486, -1, 1000, writable=True)
FORCE_SET = _shorts("FORCE_SET", 1498, 0, 3000, writable=True)
SPEED_SET = _shorts("SPEED_SET", 1522, 0, 1000, writable=True)
POS_ACT = _shorts("POS_ACT", 1534, -100, 2100)
ANGLE_ACT = _shorts("ANGLE_ACT", 1546, -100, 1100)
FORCE_ACT = _shorts("FORCE_ACT", 1582, -4000, 4000)
CURRENT = _shorts("CURRENT", 1594, -4000, 4000)
ERROR = Register("ERROR", 1606, FINGERS, False, False, 0, 255)
STATUS = Register("STATUS", 1612, FINGERS, False, False, 0, 255)
TEMP = Register("TEMP", 1618, FINGERS, False, False, 0, 255)
REGISTERS = (
    HAND_ID, CLEAR_ERROR, SAVE, FORCE_CALIBRATION, CURRENT_LIMIT, POS_SET, ANGLE_SET, FORCE_SET,
    SPEED_SET, POS_ACT, ANGLE_ACT, FORCE_ACT, CURRENT, ERROR, STATUS, TEMP,
)  # fmt: skip

ERROR_BITS = ("stall", "over-temperature", "over-current", "motor fault", "communication fault")
STATUS_NAMES = {
    0: "opening", 1: "grasping", 2: "at position", 3: "at force", 5: "current protection",
    6: "stalled", 7: "actuator fault", 255: "not commanded yet",
}  # fmt: skip


def encode(register: Register, values: Sequence[int]) -> bytes:
    """Bytes to write; RegisterError for a wrong count, range or a read-only register."""
    if not register.writable:
        raise RegisterError(f"{register.name} cannot be written")
    if len(values) != register.count:
        raise RegisterError(f"{register.name} takes {register.count} values, got {len(values)}")
    for index, value in enumerate(values):
        if not register.low <= value <= register.high:
            raise RegisterError(
                f"{register.name}[{index}] = {value}: must lie in {register.low}..{register.high}"
            )
    kind = "h" if register.short else "B"
    return struct.pack(f"<{register.count}{kind}", *values)


def decode(register: Register, data: bytes, high_byte_first: bool = False) -> Array:
    """Values (count,) from the bytes of a register; RegisterError for a wrong length or range.

    ``high_byte_first`` swaps the pairs of a byte register, as some Modbus firmwares send them.
    """
    if len(data) != register.size:
        raise RegisterError(f"{register.name}: {len(data)} bytes, expected {register.size}")
    kind = "h" if register.short else "B"
    values = np.array(struct.unpack(f"<{register.count}{kind}", data), np.float64)
    if high_byte_first and not register.short:
        values = values.reshape(-1, 2)[:, ::-1].reshape(-1)
    if values.min() < register.low or values.max() > register.high:
        raise RegisterError(f"{register.name}: impossible values {values.astype(int).tolist()}")
    return values


def error_names(bits: int) -> list[str]:
    """What an ERROR byte says."""
    return [name for bit, name in enumerate(ERROR_BITS) if bits >> bit & 1]
