"""Records one episode: a rosbag2 directory plus ``episode.json``. Works without ROS.

Order of what reaches the disk: the description (status ``recording``), chunk after chunk, index,
metadata.yaml, the description again (``finished``). Wherever that is cut off, what is there tells
how far it came, and ``dexpie episodes repair`` makes it whole.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, cast, get_args

from dexpie_ros import config, messages
from dexpie_ros.contract import Qos, Topic, recorded_topics
from dexpie_ros.episodes.bag_writer import BagWriter, qos_profile
from dexpie_ros.episodes.decoding import has_header, header_stamp_ns, is_human_step
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo, Outcome
from dexpie_ros.episodes.episode_file import (
    RECORD_NAME,
    EpisodeFile,
    to_record,
    write_episode_file,
)
from dexpie_ros.episodes.statistics import StreamStatistics

CONTROL_STEP = "/control/step"
_DEPTH = {Qos.SENSOR: 10, Qos.COMMAND: 10, Qos.EVENT: 100, Qos.STATE: 1}


@config.config
class WriterConfig:
    """How a bag is written."""

    chunk_bytes: int = 256 << 10
    chunk_seconds: float = 0.5
    """A chunk older than this is ended and flushed: what a crash may cost."""
    compression: str = "none"
    """``none`` or ``zstd``."""
    durable: bool = True
    """Flush to the disk itself, so that a power cut costs no more than a crash."""


# Once per process: it asks git, and the code that runs does not change.
_provenance = lru_cache(maxsize=1)(config.provenance)


class EpisodeWriter:
    """Writes the episode ``info`` into ``directory`` (new or empty).

    ``topics`` are rows of the contract; :func:`dexpie_ros.contract.recorded_topics` by default.
    ``write`` takes CDR as DDS delivers it or as :func:`dexpie_ros.messages.serialize` makes it.
    Control steps captured before ``start_ns`` are the moment before the episode, not part of it.
    Used by one thread at a time.
    """

    def __init__(
        self,
        directory: str | Path,
        info: EpisodeInfo,
        topics: Iterable[Topic] | None = None,
        settings: WriterConfig | None = None,
        start_ns: int = 0,
    ) -> None:
        self.directory = Path(directory)
        if self.directory.exists() and any(self.directory.iterdir()):
            raise EpisodeError(
                f"{self.directory}: not empty; an episode is never overwritten, choose another"
            )
        self.settings = settings or WriterConfig()
        self.info = dataclasses.replace(info, software=info.software or dict(_provenance()))
        self.streams: dict[str, StreamStatistics] = {}
        self._stamped: dict[str, bool] = {}
        self.start_ns = start_ns
        self._steps = self._human_steps = 0
        self._newest_step_ns = start_ns - 1
        self._closed = False
        self.directory.mkdir(parents=True, exist_ok=True)
        start = EpisodeFile(self.info, "recording", start_ns=start_ns)
        write_episode_file(self.directory, start)
        self._bag = BagWriter(
            self.directory,
            chunk_bytes=self.settings.chunk_bytes,
            chunk_seconds=self.settings.chunk_seconds,
            compression=self.settings.compression,
            durable=self.settings.durable,
        )
        self._bag.add_metadata(RECORD_NAME, to_record(start))
        for topic in recorded_topics() if topics is None else topics:
            self.add_topic(topic)
        self._bag.flush()

    def add_topic(self, topic: Topic) -> None:
        """Declare one more topic; EpisodeError if its type is unknown here."""
        if topic.name in self.streams:
            raise EpisodeError(f"{topic.name}: declared twice")
        store = messages.bag_typestore()
        if topic.type not in store.types:
            raise EpisodeError(
                f"{topic.name}: message type {topic.type} is unknown; known are the common ROS 2 "
                "interfaces and dexpie_msgs"
            )
        definition, _ = store.generate_msgdef(topic.type, ros_version=2)
        qos = qos_profile(topic.qos is Qos.STATE, depth=_DEPTH[topic.qos])
        self._bag.add_topic(topic.name, topic.type, definition, store.hash_rihs01(topic.type), qos)
        self._stamped[topic.name] = has_header(topic.type)
        rate = topic.simulated_rate_hz if self.info.simulated else topic.rate_hz
        self.streams[topic.name] = StreamStatistics(period_ns=1e9 / rate if rate else 0.0)

    def write(
        self,
        topic: str,
        cdr: bytes | memoryview,
        log_time_ns: int,
        publish_time_ns: int,
        sequence: int = -1,
    ) -> None:
        """Append one message; times in ns of ROS time. KeyError for an undeclared topic."""
        stamp = self.captured_ns(topic, cdr, log_time_ns)
        self.streams[topic].add(stamp, log_time_ns, len(cdr))
        if topic == CONTROL_STEP and stamp > self._newest_step_ns:
            # A step that was said twice, because somebody had not heard it, is one step.
            self._newest_step_ns = stamp
            self._steps += 1
            self._human_steps += is_human_step(cdr)
        self._bag.write(topic, cdr, log_time_ns, publish_time_ns, sequence)

    def captured_ns(self, topic: str, cdr: bytes | memoryview, log_time_ns: int) -> int:
        """The stamp of a message's header; the time it arrived at where it has none."""
        return header_stamp_ns(cdr, log_time_ns) if self._stamped[topic] else log_time_ns

    def flush_if_due(self) -> None:
        """To be called about twice a second when nothing arrives (``write`` does it itself)."""
        self._bag.flush_if_due()

    def flush(self) -> None:
        """Hand everything so far to the disk."""
        self._bag.flush()

    def late(self, now_ns: int) -> list[str]:
        """Topics with a rate that have fallen silent."""
        return [name for name, stream in self.streams.items() if stream.late(now_ns)]

    def finish(
        self,
        outcome: str = "",
        cause: str = "",
        statistics: Mapping[str, Any] | None = None,
        missing: Sequence[str] = (),
    ) -> EpisodeInfo:
        """Close the bag whole, with its result. ``statistics`` (JSON) is kept with the episode.

        ``missing``: what the recording lacks, in words, where it was partial before it came here.
        """
        if outcome not in get_args(Outcome):
            raise EpisodeError(
                f"outcome {outcome!r}: expected success, failure, aborted or nothing"
            )
        status = "repaired" if missing else "finished"
        return self._close(status, cast(Outcome, outcome), cause, statistics, missing)

    def abort(self, cause: str = "") -> EpisodeInfo:
        """Close the bag whole, but marked as aborted: kept, not used for training."""
        return self._close("aborted", "aborted", cause, None)

    def discard(self) -> None:
        """Close and delete everything that was recorded."""
        self._bag.close()
        self._closed = True
        shutil.rmtree(self.directory)

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._closed:
            self.abort("" if error is None else f"{type(error).__name__}: {error}")

    def _close(
        self,
        status: str,
        outcome: Outcome,
        cause: str,
        statistics: Mapping[str, Any] | None,
        missing: Sequence[str] = (),
    ) -> EpisodeInfo:
        if self._closed:
            raise EpisodeError(f"{self.directory}: the episode is already closed")
        self._closed = True
        self.info = dataclasses.replace(self.info, outcome=outcome, cause=cause)
        streams = {name: s.summary() for name, s in self.streams.items() if s.received}
        silent = [name for name, s in self.streams.items() if s.period_ns and not s.received]
        end = EpisodeFile(
            info=self.info,
            status=status,
            duration_ns=self._bag.duration_ns,
            steps=self._steps,
            human_steps=self._human_steps,
            messages=self._bag.count,
            start_ns=self.start_ns,
            statistics={**(statistics or {}), "streams": streams, "silent": silent},
            repair={"problems": list(missing)} if missing else {},
        )
        self._bag.add_metadata(RECORD_NAME, to_record(end))
        custom = {"episode_id": self.info.episode_id, "kind": self.info.kind, "outcome": outcome}
        try:
            self._bag.finish(custom)
            write_episode_file(self.directory, end)
        except OSError as error:
            self._bag.close()
            raise EpisodeError(
                f"{self.directory}: cannot be finished ({error.strerror}); everything up to the last "
                "half second is on the disk: make room, then `dexpie episodes repair`"
            ) from None
        return self.info
