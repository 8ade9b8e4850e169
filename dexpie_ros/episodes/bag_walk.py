"""What the records of a bag say, collected one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.episodes import mcap_records as mcap


@dataclass
class TopicMessages:
    """Messages of one topic in the order of the file."""

    type: str
    log_time_ns: list[int] = field(default_factory=list)
    publish_time_ns: list[int] = field(default_factory=list)
    sequence: list[int] = field(default_factory=list)
    payloads: list[memoryview] = field(default_factory=list)
    """CDR; views into the file where the chunk is not compressed."""

    def __len__(self) -> int:
        return len(self.payloads)

    def log_times(self) -> NDArray[np.int64]:
        return np.array(self.log_time_ns, np.int64)


class Walk:
    """Collects what the records of a file say."""

    def __init__(self) -> None:
        self.messages: dict[str, TopicMessages] = {}
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self.counts: dict[int, int] = {}
        self._schemas: dict[int, mcap.Schema] = {}
        self._channels: dict[int, mcap.Channel] = {}
        self._streams: dict[int, TopicMessages] = {}

    def record(self, code: int, content: memoryview) -> None:
        if code == mcap.MESSAGE:
            if len(content) < mcap.MESSAGE_HEADER.size:
                raise mcap.DamagedError("a message shorter than its header")
            identifier, sequence, log, publish = mcap.MESSAGE_HEADER.unpack_from(content)
            stream = self._streams.get(identifier)
            if stream is None:
                raise mcap.DamagedError(f"a message of the unknown channel {identifier}")
            if log >= 1 << 63 or publish >= 1 << 63:
                raise mcap.DamagedError("a message from beyond the year 2262")
            stream.log_time_ns.append(log)
            stream.publish_time_ns.append(publish)
            stream.sequence.append(sequence)
            stream.payloads.append(content[mcap.MESSAGE_HEADER.size :])
            self.counts[identifier] = self.counts.get(identifier, 0) + 1
        elif code == mcap.SCHEMA:
            schema = mcap.schema(content)
            self._schemas[schema.id] = schema
        elif code == mcap.CHANNEL:
            channel = mcap.channel(content)
            if channel.id not in self._channels:
                self._channel(channel)

    def _channel(self, channel: mcap.Channel) -> None:
        schema = self._schemas.get(channel.schema_id)
        if schema is None:
            raise mcap.DamagedError(f"{channel.topic} without a message definition")
        # Two channels of one topic (several publishers) are one stream.
        stream = self.messages.setdefault(channel.topic, TopicMessages(schema.name))
        if stream.type != schema.name:
            raise mcap.DamagedError(f"{channel.topic} is {stream.type} and {schema.name}")
        self._channels[channel.id] = channel
        self._streams[channel.id] = stream

    def declare(self, schemas: dict[int, mcap.Schema], channels: dict[int, mcap.Channel]) -> None:
        self._schemas.update(schemas)
        for channel in channels.values():
            self._channel(channel)

    def by_type(self) -> dict[str, mcap.Schema]:
        return {schema.name: schema for schema in self._schemas.values()}

    def by_topic(self) -> dict[str, mcap.Channel]:
        return {channel.topic: channel for channel in self._channels.values()}
