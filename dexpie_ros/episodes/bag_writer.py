"""Writes one rosbag2 directory (MCAP) that loses at most half a second when the process dies.

Chunks end at 256 kB and every 0.5 s, and are then handed to the disk: what was in a finished chunk
survives ``kill -9`` and, with ``durable``, a power cut. The bag is what ``ros2 bag record`` makes:
``<name>_0.mcap``, metadata.yaml version 8 (read by Humble to Kilted), type hashes, offered QoS.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer

from dexpie_ros import __version__, config
from dexpie_ros.episodes.episode import EpisodeError

_INFINITE = {"sec": 9223372036, "nsec": 854775807}
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_COMPRESSION = {"none": CompressionType.NONE, "zstd": CompressionType.ZSTD}


@lru_cache(maxsize=16)
def qos_profile(transient_local: bool = False, reliable: bool = True, depth: int = 10) -> str:
    """``offered_qos_profiles`` as a version 8 bag holds it: YAML text with rmw's integers."""
    profile = {
        "history": 1,
        "depth": depth,
        "reliability": 1 if reliable else 2,
        "durability": 1 if transient_local else 2,
        "deadline": _INFINITE,
        "lifespan": _INFINITE,
        "liveliness": 1,
        "liveliness_lease_duration": _INFINITE,
        "avoid_ros_namespace_conventions": False,
    }
    return _dump([profile])


@dataclass
class _Channel:
    id: int
    type: str
    qos: str
    type_hash: str
    count: int = 0


class BagWriter:
    """A new bag in ``directory``.

    ``temporary``: write ``<name>_0.mcap.repair``, described as ``<name>_0.mcap``, for the caller to
    rename. ``durable``: every flush goes to the disk itself (fdatasync), not only to the kernel.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        bag_name: str = "",
        temporary: bool = False,
        chunk_bytes: int = 256 << 10,
        chunk_seconds: float = 0.5,
        compression: str = "none",
        durable: bool = True,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._name = f"{self.directory.name}_0.mcap" if not bag_name else bag_name
        self.file = self.directory / (self._name + (".repair" if temporary else ""))
        self._durable, self._chunk_ns = durable, int(chunk_seconds * 1e9)
        try:
            self._stream = open(self.file, "xb")
        except FileExistsError:
            raise EpisodeError(
                f"{self.file}: exists; a recorded bag is never overwritten, choose another directory"
            ) from None
        # Says "in use" to a repair for as long as this process lives, and not longer.
        fcntl.flock(self._stream, fcntl.LOCK_EX)
        self._mcap = Writer(
            self._stream, chunk_size=chunk_bytes, compression=_COMPRESSION[compression]
        )
        self._mcap.start("ros2", f"dexpie_ros {__version__}")
        self._channels: dict[str, _Channel] = {}
        self._schemas: dict[str, int] = {}
        self._start, self._end, self._count = 0, 0, 0
        self._flushed = time.monotonic_ns()
        self._dirty = False

    def add_topic(self, name: str, kind: str, msgdef: str, type_hash: str, qos: str) -> None:
        """Declare a topic with its message definition (ros2msg) and its RIHS01 type hash."""
        if kind not in self._schemas:
            self._schemas[kind] = self._mcap.register_schema(kind, "ros2msg", msgdef.encode())
        metadata = {"offered_qos_profiles": qos, "topic_type_hash": type_hash}
        channel = self._mcap.register_channel(name, "cdr", self._schemas[kind], metadata)
        self._channels[name] = _Channel(channel, kind, qos, type_hash)

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """A metadata record of the MCAP file; reaches the disk with the next flush."""
        self._mcap.add_metadata(name, values)

    def write(
        self,
        topic: str,
        cdr: bytes | memoryview,
        log_time_ns: int,
        publish_time_ns: int,
        sequence: int = -1,
    ) -> None:
        """Append a serialized message; ``sequence`` -1: numbered here."""
        channel = self._channels[topic]
        channel.count += 1
        if not self._count or log_time_ns < self._start:
            self._start = log_time_ns
        self._end = max(self._end, log_time_ns) if self._count else log_time_ns
        self._count += 1
        number = channel.count if sequence < 0 else sequence
        data = cdr if isinstance(cdr, bytes) else bytes(cdr)
        self._mcap.add_message(channel.id, log_time_ns, data, publish_time_ns, number & 0xFFFFFFFF)
        self._dirty = True
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """End the chunk if it is older than ``chunk_seconds``; call it also when nothing arrives."""
        if self._dirty and time.monotonic_ns() - self._flushed >= self._chunk_ns:
            self.flush()

    def flush(self) -> None:
        """End the chunk and hand everything to the disk."""
        self._mcap.flush()
        if self._durable:
            os.fdatasync(self._stream.fileno())
        self._flushed, self._dirty = time.monotonic_ns(), False

    @property
    def count(self) -> int:
        """Messages written."""
        return self._count

    @property
    def duration_ns(self) -> int:
        return self._end - self._start

    def finish(self, custom_data: dict[str, str]) -> None:
        """Write index and metadata.yaml and close."""
        information = self._information(custom_data)
        self._mcap.add_metadata("rosbag2", {"serialized_metadata": _dump(information)})
        self._mcap.finish()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        write_metadata(self.directory, information)

    def close(self) -> None:
        """Close the file as it is; without ``finish`` the bag has no index."""
        # What is still buffered may fail to be written on a full disk; the file is closed all the same.
        with contextlib.suppress(OSError):
            self._stream.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _information(self, custom_data: dict[str, str]) -> dict[str, Any]:
        start = {"nanoseconds_since_epoch": self._start}
        duration = {"nanoseconds": self.duration_ns}
        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": channel.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": channel.qos,
                    "type_description_hash": channel.type_hash,
                },
                "message_count": channel.count,
            }
            for name, channel in self._channels.items()
        ]
        file = {
            "path": self._name,
            "starting_time": start,
            "duration": duration,
            "message_count": self._count,
        }
        return {
            "version": 8,
            "storage_identifier": "mcap",
            "duration": duration,
            "starting_time": start,
            "message_count": self._count,
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self._name],
            "files": [file],
            "custom_data": custom_data,
            "ros_distro": os.environ.get("ROS_DISTRO", "kilted"),
        }


def write_metadata(directory: str | Path, information: dict[str, Any]) -> None:
    """Write metadata.yaml atomically."""
    text = _dump({"rosbag2_bagfile_information": information})
    config.write_atomic(Path(directory) / "metadata.yaml", text)


def _dump(value: Any) -> str:
    # Without aliases: rosbag2 reads the same duration in two places, not a reference.
    return yaml.dump(value, Dumper=_NoAliases, sort_keys=False, width=1 << 20)


class _NoAliases(_Dumper):  # type: ignore[misc,valid-type]
    def ignore_aliases(self, data: Any) -> bool:
        return True
