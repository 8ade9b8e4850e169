"""The server's side of Modbus: function codes 3, 6 and 16 over a byte memory, TCP and RTU frames."""

from __future__ import annotations

import struct
from collections.abc import Callable

READ, WRITE_ONE, WRITE_MANY = 3, 6, 16
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 1, 2, 3, 4

Read = Callable[[int, int], "bytes | None"]
Write = Callable[[int, bytes], bool]


def answer(request: bytes, read: Read, write: Write) -> bytes:
    """The reply to one protocol data unit. ``read(address, size)`` gives None and ``write`` False
    where the memory ends; words are little-endian in memory, big-endian on the wire.
    """
    if not request:
        return b"\x80" + bytes([ILLEGAL_FUNCTION])
    function = request[0]

    def refuse(code: int) -> bytes:
        return bytes([function | 0x80, code])

    if function == READ:
        if len(request) != 5:
            return refuse(ILLEGAL_VALUE)
        address, count = struct.unpack(">HH", request[1:])
        if not 1 <= count <= 125:
            return refuse(ILLEGAL_VALUE)
        data = read(address, 2 * count)
        if data is None:
            return refuse(ILLEGAL_ADDRESS)
        return bytes([function, 2 * count]) + _swapped(data)
    if function == WRITE_ONE and len(request) == 5:
        address = int.from_bytes(request[1:3], "big")
        done = write(address, _swapped(request[3:5]))
        return request if done else refuse(ILLEGAL_ADDRESS)
    if function == WRITE_MANY and len(request) >= 6:
        address, count, size = struct.unpack(">HHB", request[1:6])
        if size != 2 * count or len(request) != 6 + size or not 1 <= count <= 123:
            return refuse(ILLEGAL_VALUE)
        done = write(address, _swapped(request[6:]))
        return request[:5] if done else refuse(ILLEGAL_ADDRESS)
    return refuse(ILLEGAL_FUNCTION)


def _swapped(data: bytes) -> bytes:
    result = bytearray(data)
    result[0::2], result[1::2] = data[1::2], data[0::2]
    return bytes(result)


def crc(data: bytes) -> bytes:
    """The two CRC bytes of an RTU frame, low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


class RtuParser:
    """Requests in a serial stream: (unit, data unit); anything else is skipped byte by byte."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        while len(self._buffer) >= 8:
            function = self._buffer[1]
            size = 9 + self._buffer[6] if function == WRITE_MANY else 8
            if function not in (READ, WRITE_ONE, WRITE_MANY):
                del self._buffer[0]
                continue
            if len(self._buffer) < size:
                return found
            body = bytes(self._buffer[: size - 2])
            if crc(body) == bytes(self._buffer[size - 2 : size]):
                found.append((body[0], body[1:]))
                del self._buffer[:size]
            else:
                del self._buffer[0]
        return found
