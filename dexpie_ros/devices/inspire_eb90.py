"""Inspire's own serial protocol ("EB 90"): frames and a parser that survives any bytes.

Request ``EB 90 | id | length | command | address low, high | data | sum``, reply ``90 EB | ...`` of
the same layout; length = data + 3, sum = low 8 bits of the sum from id to the last data byte.
Command 0x11 reads (data: number of bytes wanted), 0x12 writes (reply data: 1).
"""

from __future__ import annotations

from dataclasses import dataclass

REQUEST, REPLY = b"\xeb\x90", b"\x90\xeb"
READ, WRITE = 0x11, 0x12
OVERHEAD = 8
"""Bytes of a frame beside its data."""
MAX_DATA = 252


@dataclass(frozen=True)
class Frame:
    """One frame, either direction."""

    hand_id: int
    command: int
    address: int
    data: bytes


def build(header: bytes, frame: Frame) -> bytes:
    """Bytes of a frame; ValueError when the data are too long."""
    if len(frame.data) > MAX_DATA:
        raise ValueError(f"{len(frame.data)} data bytes do not fit into one frame")
    body = bytes([frame.hand_id, len(frame.data) + 3, frame.command])
    body += frame.address.to_bytes(2, "little") + frame.data
    return header + body + bytes([sum(body) & 0xFF])


class Parser:
    """Finds frames with the given header in a stream; noise and broken frames are counted."""

    def __init__(self, header: bytes) -> None:
        self._header, self._buffer = header, bytearray()
        self.broken = 0
        """Frames with a wrong checksum or an impossible length."""

    def clear(self) -> None:
        self._buffer.clear()

    def feed(self, data: bytes) -> list[Frame]:
        """All frames that ``data`` completes."""
        self._buffer += data
        frames: list[Frame] = []
        while True:
            start = self._buffer.find(self._header)
            if start < 0:
                # The last byte may be the first half of a header.
                del self._buffer[: max(0, len(self._buffer) - 1)]
                return frames
            del self._buffer[:start]
            if len(self._buffer) < 4:
                return frames
            end = self._buffer[3] + 5
            if end < OVERHEAD:
                self.broken += 1
                del self._buffer[:2]
                continue
            if len(self._buffer) < end:
                return frames
            body = bytes(self._buffer[2 : end - 1])
            if sum(body) & 0xFF != self._buffer[end - 1]:
                self.broken += 1
                del self._buffer[:2]  # a header may hide inside the broken frame
                continue
            del self._buffer[:end]
            frames.append(Frame(body[0], body[2], int.from_bytes(body[3:5], "little"), body[5:]))
