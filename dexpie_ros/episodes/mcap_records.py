"""The records of an MCAP file that a reader of damaged files needs, parsed with bounds checks.

Format: https://mcap.dev/spec. Every length is checked against what is there before it is used, so
that a flipped bit costs an error message and not the memory of the machine.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import lz4.frame  # type: ignore[import-untyped]
import zstandard

MAGIC = b"\x89MCAP0\r\n"
FOOTER_SIZE = 9 + 20 + len(MAGIC)
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
CHUNK_INDEX, STATISTICS, METADATA, SUMMARY_OFFSET, DATA_END = 0x08, 0x0B, 0x0C, 0x0E, 0x0F
LAST_KNOWN = DATA_END
PRIVATE = 0x80
_MAX_CHUNK = 1 << 30

RECORD = struct.Struct("<BQ")
MESSAGE_HEADER = struct.Struct("<HIQQ")
_CHUNK_HEADER = struct.Struct("<QQQI")
_FOOTER = struct.Struct("<QQI")
_STATISTICS = struct.Struct("<QHIIIIQQ")
CHUNK_CRC = RECORD.size + 24
"""Where in a chunk record its checksum lies."""
_SUMMARY_OFFSET = struct.Struct("<BQQ")
_CHUNK_INDEX = struct.Struct("<QQQQ")


class DamagedError(ValueError):
    """A record that cannot be what was written."""


@dataclass(frozen=True)
class Schema:
    """A message definition."""

    id: int
    name: str
    encoding: str
    data: bytes


@dataclass(frozen=True)
class Channel:
    """A topic."""

    id: int
    schema_id: int
    topic: str
    encoding: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Statistics:
    """Counts by channel and the time range."""

    messages: int
    start_ns: int
    end_ns: int
    counts: dict[int, int]


class Cursor:
    """Reads fields one after the other and refuses to read past the end."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data, self.position = data, position

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise DamagedError(f"a field of {size} bytes where {len(self.data)} hold the record")
        part = self.data[self.position : end]
        self.position = end
        return part

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        try:
            return bytes(self.take(self.u32())).decode()
        except UnicodeDecodeError:
            raise DamagedError("a text is not UTF-8") from None

    def table(self) -> dict[str, str]:
        end = self.u32() + self.position
        values = {}
        while self.position < end:
            key = self.text()
            values[key] = self.text()
        if self.position != end:
            raise DamagedError("a table is longer than it says")
        return values


def schema(content: memoryview) -> Schema:
    c = Cursor(content)
    return Schema(c.u16(), c.text(), c.text(), bytes(c.take(c.u32())))


def channel(content: memoryview) -> Channel:
    c = Cursor(content)
    return Channel(c.u16(), c.u16(), c.text(), c.text(), c.table())


def metadata(content: memoryview) -> tuple[str, dict[str, str]]:
    c = Cursor(content)
    return c.text(), c.table()


def statistics(content: memoryview) -> Statistics:
    c = Cursor(content)
    total, _, _, _, _, _, start, end = c.unpack(_STATISTICS)
    stop = c.u32() + c.position
    counts = {}
    while c.position < stop:
        key = c.u16()
        counts[key] = c.u64()
    return Statistics(total, start, end, counts)


def footer(content: memoryview) -> tuple[int, int, int]:
    """(summary_start, summary_offset_start, summary_crc)."""
    start, offsets, crc = Cursor(content).unpack(_FOOTER)
    return start, offsets, crc


def chunk_offset(content: memoryview) -> int:
    """Where the chunk of a chunk index begins."""
    return Cursor(content).unpack(_CHUNK_INDEX)[2]


def summary_offset(content: memoryview) -> tuple[int, int, int]:
    """(opcode of the group, where it begins, its length)."""
    group, start, length = Cursor(content).unpack(_SUMMARY_OFFSET)
    return group, start, length


def chunk(content: memoryview) -> memoryview:
    """The records inside a chunk, checked against its checksum; DamagedError if they differ."""
    c = Cursor(content)
    _, _, size, crc = c.unpack(_CHUNK_HEADER)
    compression = c.text()
    data = c.take(c.u64())
    if size > _MAX_CHUNK:
        raise DamagedError(f"a chunk claims {size} bytes")
    if compression == "":
        records = data
    elif compression == "zstd":
        try:
            # With a streaming reader, for a frame may carry no size or a false one.
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                records = memoryview(stream.read(size + 1))
        except zstandard.ZstdError as error:
            raise DamagedError(f"a chunk cannot be decompressed: {error}") from None
    elif compression == "lz4":
        try:
            with lz4.frame.LZ4FrameDecompressor() as stream:
                records = memoryview(stream.decompress(bytes(data), max_length=size + 1))
        except RuntimeError as error:
            raise DamagedError(f"a chunk cannot be decompressed: {error}") from None
    else:
        raise DamagedError(f"a chunk is compressed with {compression!r}")
    if len(records) != size:
        raise DamagedError(f"a chunk holds {len(records)} bytes, its header says {size}")
    if crc and zlib.crc32(records) != crc:
        raise DamagedError("a chunk's checksum is wrong")
    return records
