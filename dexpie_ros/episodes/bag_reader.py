"""Reads a rosbag2 MCAP directory, whole or damaged, without ever guessing.

Opening looks at the index only (milliseconds, however long the bag is). The first access to
messages walks the chunks, checks their checksums and notes what is missing in ``problems``; what
was in a damaged or torn chunk is left out, all the rest is delivered.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dexpie_ros.episodes import mcap_records as mcap
from dexpie_ros.episodes.bag_walk import TopicMessages, Walk
from dexpie_ros.episodes.episode import EpisodeError


@dataclass(frozen=True)
class _Index:
    statistics: mcap.Statistics
    schemas: dict[int, mcap.Schema]
    channels: dict[int, mcap.Channel]
    start: int
    """Where the index begins in the file."""
    chunks: tuple[int, int]
    """Where the part about chunks begins and ends: the only one that grows with the recording."""


def find_bag(directory: str | Path) -> Path:
    """The one MCAP file of a bag directory; EpisodeError says what is there instead."""
    folder = Path(directory)
    if not folder.is_dir():
        raise EpisodeError(f"{folder}: no such directory; an episode is a rosbag2 directory")
    files = sorted(folder.glob("*.mcap"))
    if len(files) == 1:
        return files[0]
    if len(files) > 1:
        raise EpisodeError(
            f"{folder}: {len(files)} MCAP files; a split bag is joined with `ros2 bag convert`"
        )
    if any(folder.glob("*.db3")):
        raise EpisodeError(
            f"{folder}: an sqlite3 bag; convert it with `ros2 bag convert` or `rosbags-convert` to mcap"
        )
    raise EpisodeError(f"{folder}: no *.mcap in it; not a recorded episode")


class BagReader:
    """One MCAP file. ``problems`` is complete once messages have been read."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        try:
            with open(self.path, "rb") as stream:
                size = stream.seek(0, 2)
                if size < len(mcap.MAGIC):
                    raise EpisodeError(
                        f"{self.path}: {size} bytes, nothing was recorded; delete the directory"
                    )
                # The mapping outlives the file handle, and the file's name should a repair replace it.
                self._data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise EpisodeError(f"{self.path}: cannot be read: {error.strerror}") from None
        if bytes(self._data[: len(mcap.MAGIC)]) != mcap.MAGIC:
            raise EpisodeError(f"{self.path}: not an MCAP file (wrong first bytes)")
        self.end_of_data = len(self._data)
        """Where the walk ended; behind it nothing could be read."""
        self.whole_chunks = 0
        try:
            self.index: _Index | None = self._read_index()
        except mcap.DamagedError:
            self.index = None

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def indexed(self) -> bool:
        """The file was closed properly and its index is sound."""
        return self.index is not None

    @property
    def topics(self) -> dict[str, str]:
        """Message type by topic; from the index if there is one."""
        if self.index is not None:
            types = {
                c.topic: self.index.schemas[c.schema_id].name
                for c in self.index.channels.values()
                if c.schema_id in self.index.schemas
            }
            return types
        return {name: stream.type for name, stream in self.messages.items()}

    @property
    def messages(self) -> dict[str, TopicMessages]:
        """Messages by topic; the first access walks the file."""
        return self._walked[0]

    @property
    def metadata(self) -> list[tuple[str, dict[str, str]]]:
        """Metadata records in the order of the file."""
        return self._walked[1]

    @property
    def schemas(self) -> dict[str, mcap.Schema]:
        """Message definitions by type."""
        return self._walked[2]

    @property
    def channels(self) -> dict[str, mcap.Channel]:
        """Channels by topic."""
        return self._walked[3]

    def first(self, topic: str) -> tuple[str, memoryview] | None:
        """Type and first message of a topic; the file is read no further than to it.

        None where there is none before the first damage.
        """
        walk = Walk()
        if self.index is not None:
            ids = [i for i, c in self.index.channels.items() if c.topic == topic]
            if not any(self.index.statistics.counts.get(i) for i in ids):
                return None
            walk.declare(self.index.schemas, self.index.channels)
        position = len(mcap.MAGIC)
        try:
            while position < len(self._data):
                code, content, position = self._record(position)
                if code == mcap.CHUNK:
                    self._chunk(walk, mcap.chunk(content))
                elif code == mcap.DATA_END:
                    break
                elif code != mcap.METADATA:
                    walk.record(code, content)
                if found := walk.messages.get(topic):
                    return found.type, found.payloads[0]
        except mcap.DamagedError:
            return None
        return None

    def checksums(self) -> Iterator[bytes]:
        """What tells this content from any other: checksums of all chunks and the index itself.

        All bytes where the file has no index or a chunk has no checksum.
        """
        parts = []
        for offset in self.chunk_offsets:
            crc = bytes(self._data[offset + mcap.CHUNK_CRC : offset + mcap.CHUNK_CRC + 4])
            parts.append(crc)
        if self.index is None or b"\0\0\0\0" in parts or not parts:
            yield bytes(self._data)
        else:
            yield from parts
            yield bytes(self._data[self.index.start :])

    # -- index ---------------------------------------------------------------------------------
    def _read_index(self) -> _Index:
        data = self._data
        if len(data) < len(mcap.MAGIC) + mcap.FOOTER_SIZE or bytes(data[-8:]) != mcap.MAGIC:
            raise mcap.DamagedError("no footer")
        footer = data[-mcap.FOOTER_SIZE : -8]
        code, length = mcap.RECORD.unpack(footer[:9])
        if code != mcap.FOOTER or length != 20:
            raise mcap.DamagedError("no footer")
        start, groups, crc = mcap.footer(footer[9:])
        end = len(data) - mcap.FOOTER_SIZE
        if not 0 < start <= end:
            raise mcap.DamagedError("no index")
        # The checksum covers the summary and the footer up to the checksum itself.
        if crc and zlib.crc32(data[start : len(data) - 12]) != crc:
            raise mcap.DamagedError("the index's checksum is wrong")
        statistics: mcap.Statistics | None = None
        schemas, channels = {}, {}
        chunks = self._chunk_group(groups, end)
        position = start
        while position < end:
            if position == chunks[0] < chunks[1] <= end:
                position = chunks[1]
                continue
            code, content, position = self._record(position)
            if code == mcap.STATISTICS:
                statistics = mcap.statistics(content)
            elif code == mcap.SCHEMA:
                schema = mcap.schema(content)
                schemas[schema.id] = schema
            elif code == mcap.CHANNEL:
                channel = mcap.channel(content)
                channels[channel.id] = channel
        if statistics is None:
            raise mcap.DamagedError("no statistics")
        return _Index(statistics, schemas, channels, start, chunks if chunks[1] else (start, end))

    def _chunk_group(self, position: int, end: int) -> tuple[int, int]:
        """The range of the chunk indexes, from the summary offsets; (0, 0) if there are none."""
        while 0 < position < end:
            code, content, position = self._record(position)
            if code == mcap.SUMMARY_OFFSET:
                group, first, length = mcap.summary_offset(content)
                if group == mcap.CHUNK_INDEX:
                    return first, first + length
        return 0, 0

    @cached_property
    def chunk_offsets(self) -> tuple[int, ...]:
        """Where the chunks begin, by the index; nothing without one."""
        if self.index is None:
            return ()
        offsets = []
        position, end = self.index.chunks
        try:
            while position < end:
                code, content, position = self._record(position)
                if code == mcap.CHUNK_INDEX:
                    offsets.append(mcap.chunk_offset(content))
        except mcap.DamagedError:
            # Only where the index has no checksum; what is there still helps.
            pass
        return tuple(sorted(offsets))

    def _record(self, position: int, data: memoryview | None = None) -> tuple[int, memoryview, int]:
        data = self._data if data is None else data
        if position + 9 > len(data):
            raise mcap.DamagedError("cut off inside a record")
        code, length = mcap.RECORD.unpack_from(data, position)
        end = position + 9 + length
        if end > len(data):
            raise mcap.DamagedError("cut off inside a record")
        return code, data[position + 9 : end], end

    # -- walk ----------------------------------------------------------------------------------
    @cached_property
    def _walked(
        self,
    ) -> tuple[
        dict[str, TopicMessages],
        list[tuple[str, dict[str, str]]],
        dict[str, mcap.Schema],
        dict[str, mcap.Channel],
    ]:
        walk = Walk()
        if self.index is not None:
            # So that damage to the first chunk, which declares them, does not cost all the others.
            walk.declare(self.index.schemas, self.index.channels)
        position, ended, lost = len(mcap.MAGIC), False, 0
        while not ended and position < len(self._data):
            start = position
            try:
                code, content, position = self._record(start)
                if not mcap.HEADER <= code <= mcap.LAST_KNOWN and code < mcap.PRIVATE:
                    raise mcap.DamagedError(f"unknown record {code:#x}")
                if code == mcap.CHUNK:
                    self._chunk(walk, mcap.chunk(content))
                    self.whole_chunks += 1
                elif code == mcap.METADATA:
                    walk.metadata.append(mcap.metadata(content))
                elif code == mcap.DATA_END:
                    ended = True
                else:
                    walk.record(code, content)
                self.end_of_data = position
            except mcap.DamagedError as error:
                resume = self._resume(start)
                if resume is None:
                    self.problems.append(
                        f"{self.path}: {error} at byte {start}; the {len(self._data) - start} bytes "
                        "from there on are lost (`dexpie episodes repair`)"
                    )
                    break
                lost += 1
                self.problems.append(
                    f"{self.path}: {error} at byte {start}; {resume - start} bytes are lost"
                )
                position = resume
        if self.index is None and not self.problems:
            self.problems.append(f"{self.path}: no index; the recording was not ended properly")
        self._count(walk)
        return walk.messages, walk.metadata, walk.by_type(), walk.by_topic()

    def _chunk(self, walk: Walk, records: memoryview) -> None:
        position = 0
        while position < len(records):
            code, content, position = self._record(position, records)
            walk.record(code, content)

    def _resume(self, start: int) -> int | None:
        """The next chunk behind damage, if the index knows one."""
        return next((offset for offset in self.chunk_offsets if offset > start), None)

    def _count(self, walk: Walk) -> None:
        if self.index is None:
            return
        for identifier, expected in self.index.statistics.counts.items():
            channel = self.index.channels.get(identifier)
            topic = channel.topic if channel else f"channel {identifier}"
            found = walk.counts.get(identifier, 0)
            if found != expected:
                self.problems.append(
                    f"{self.path}: {topic}: {found} of {expected} messages could be read"
                )
