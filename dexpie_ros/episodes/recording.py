"""The recorder without ROS: a pre-roll, a queue, one writer thread, a watch over disk and streams.

Whoever receives messages calls :meth:`Recording.receive` for every one of them, always; what came
in the seconds before ``start`` is then in the bag too. The writer thread is the only one that
touches the disk, so receiving never waits for it.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dexpie_ros import config
from dexpie_ros.contract import Qos, Topic
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo
from dexpie_ros.episodes.watch import Watch
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig

_FLUSH_S = 0.25
ENDED_EARLY = "recording ended early"
"""How the warning begins that an episode is not recorded any further."""


@config.config
class RecordingConfig:
    """Settings of a recording."""

    preroll_s: float = 1.0
    """So much of the time before the start is in the bag; 0: nothing."""
    preroll_mb: float = 256.0
    """The pre-roll is shortened rather than let grow beyond this."""
    queue_mb: float = 1024.0
    """What may wait for a slow disk; more, and messages are dropped, counted and reported."""
    minimum_free_gb: float = 1.0
    """Less free disk and no episode is started; a running one is ended."""
    writer: WriterConfig = WriterConfig()


@dataclass(frozen=True)
class Item:
    """One serialized message."""

    topic: str
    cdr: bytes
    log_time_ns: int
    publish_time_ns: int
    sequence: int = -1


class Recording:
    """Records one episode after the other. ``warn`` is called with what a person can still help.

    ``receive`` may be called from any one thread; ``start`` and ``end`` from any one thread.
    """

    def __init__(
        self,
        topics: Iterable[Topic],
        settings: RecordingConfig | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.topics, self.settings = tuple(topics), settings or RecordingConfig()
        self.warnings: list[str] = []
        self.troubles: tuple[str, ...] = ()
        """What is wrong with the running episode's streams at the moment."""
        self.error = ""
        """Why the running episode was ended before its time; empty: it was not."""
        self.dropped = 0
        """Messages that found the queue full."""
        self._warn = warn
        self._latching = {topic.name for topic in self.topics if topic.qos is Qos.STATE}
        self._latched: dict[str, Item] = {}
        self._preroll: deque[Item] = deque()
        self._preroll_bytes = 0
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._waiting = 0
        self._writer: EpisodeWriter | None = None
        self._thread: threading.Thread | None = None

    @property
    def recording(self) -> EpisodeInfo | None:
        """The episode that is being recorded."""
        return self._writer.info if self._writer is not None else None

    @property
    def directory(self) -> Path | None:
        return self._writer.directory if self._writer is not None else None

    @property
    def received(self) -> dict[str, int]:
        """Messages written so far, by topic."""
        streams = self._writer.streams if self._writer is not None else {}
        return {name: stream.received for name, stream in streams.items() if stream.received}

    def receive(
        self, topic: str, cdr: bytes, log_time_ns: int, publish_time_ns: int, sequence: int = -1
    ) -> None:
        """Take one message; recorded if an episode is running or starts within the pre-roll."""
        item = Item(topic, cdr, log_time_ns, publish_time_ns, sequence)
        with self._lock:
            if self._preroll and log_time_ns < self._preroll[-1].log_time_ns:
                # Another clock (a simulation that was started anew): its before is not this one's.
                self._forget()
            if topic in self._latching:
                self._latched[topic] = item
            if self._writer is None:
                self._remember(item)
            elif self._waiting + len(cdr) > self.settings.queue_mb * 1e6:
                self.dropped += 1
            else:
                self._waiting += len(cdr)
                self._queue.put(item)

    def start(
        self,
        directory: str | Path,
        info: EpisodeInfo,
        start_ns: int = 0,
        new_scene: bool = False,
    ) -> None:
        """Begin an episode. EpisodeError if one is running, the disk is full or the place taken.

        Control steps captured before ``start_ns`` do not belong to it. ``new_scene``: nothing
        captured before it does, for the world was another one then.
        """
        if self._writer is not None:
            raise EpisodeError(f"still recording {self._writer.info.episode_id}; end it first")
        require_space(directory, self.settings.minimum_free_gb)
        writer = EpisodeWriter(directory, info, self.topics, self.settings.writer, start_ns)
        with self._lock:
            self.error, self.dropped, self.warnings, self.troubles = "", 0, [], ()
            self._queue = queue.SimpleQueue()
            early = [
                item
                for item in self._preroll
                if not new_scene
                or item.topic in self._latching
                or writer.captured_ns(item.topic, item.cdr, item.log_time_ns) >= start_ns
            ]
            known = {id(item) for item in self._preroll}
            # As if heard when the bag begins: one of an hour ago would make the bag an hour long.
            begin = min((item.log_time_ns for item in early), default=start_ns)
            states = [
                replace(item, log_time_ns=begin or item.log_time_ns)
                for item in self._latched.values()
                if id(item) not in known
            ]
            for item in (*states, *early):
                self._waiting += len(item.cdr)
                self._queue.put(item)
            self._forget()
            self._writer = writer
        self._thread = threading.Thread(target=self._write, args=(writer, self._queue), daemon=True)
        self._thread.start()

    def end(
        self, outcome: str = "", cause: str = "", statistics: Mapping[str, Any] | None = None
    ) -> EpisodeInfo:
        """Write what is still waiting and close the bag whole."""
        writer = self._stop()
        figures = {"queue_dropped": self.dropped, "warnings": self.warnings, **(statistics or {})}
        if self.error:
            figures["ended_early"] = self.error
        return writer.finish(outcome, cause, figures)

    def discard(self) -> None:
        """End the episode and delete it."""
        self._stop().discard()

    def _stop(self) -> EpisodeWriter:
        writer, thread = self._writer, self._thread
        if writer is None or thread is None:
            raise EpisodeError("no episode is being recorded")
        with self._lock:
            self._writer = None
            self._queue.put(None)
        thread.join()
        return writer

    def _forget(self) -> None:
        self._preroll.clear()
        self._preroll_bytes = 0

    def _remember(self, item: Item) -> None:
        self._preroll.append(item)
        self._preroll_bytes += len(item.cdr)
        horizon = item.log_time_ns - self.settings.preroll_s * 1e9
        limit = self.settings.preroll_mb * 1e6
        while self._preroll and (
            self._preroll[0].log_time_ns <= horizon or self._preroll_bytes > limit
        ):
            self._preroll_bytes -= len(self._preroll.popleft().cdr)

    def _write(self, writer: EpisodeWriter, items: queue.SimpleQueue[Item | None]) -> None:
        """The writer thread."""
        watch, newest_ns = Watch(writer, writer.start_ns), 0
        heard = checked = time.monotonic()
        while True:
            try:
                item = items.get(timeout=_FLUSH_S)
                if item is None:
                    return
                heard, newest_ns = time.monotonic(), item.log_time_ns
                self._take(writer, item)
            except queue.Empty:
                self._guarded(writer.flush_if_due)
            now = time.monotonic()
            if now - checked > 1.0:
                checked = now
                self._guarded(partial(self._look, watch, writer, newest_ns, now - heard))

    def _take(self, writer: EpisodeWriter, item: Item) -> None:
        with self._lock:
            self._waiting -= len(item.cdr)
        self._guarded(
            partial(
                writer.write,
                item.topic, item.cdr, item.log_time_ns, item.publish_time_ns, item.sequence,
            )
        )  # fmt: skip

    def _look(self, watch: Watch, writer: EpisodeWriter, now_ns: int, idle_s: float) -> None:
        """Say what is wrong by now; EpisodeError or OSError where the recording must end."""
        require_space(writer.directory, self.settings.minimum_free_gb)
        for message in watch.look(now_ns, self.dropped, self._resources(writer), idle_s):
            self._say(message)
        self.troubles = tuple(watch.wrong.values())

    def _resources(self, writer: EpisodeWriter) -> dict[str, str]:
        """What runs short while there is still time to help it."""
        short = {}
        waiting, room = self._waiting * 1e-6, self.settings.queue_mb
        if waiting > 0.5 * room:
            short["queue"] = f"{waiting:.0f} of {room:g} MB wait for the disk; then messages drop"
        free, least = free_gb(writer.directory), self.settings.minimum_free_gb
        if free < 2 * least:
            short["disk"] = f"{free:.2f} GB left on the disk; below {least:g} GB recording ends"
        return short

    def _guarded(self, action: Callable[[], None]) -> None:
        """What fails ends the recording, and is told; it never ends the thread or the process.
        Nothing is done any more after it has ended.
        """
        if self.error:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next episode must be recorded
            ours = isinstance(error, EpisodeError)
            self.error = str(error) if ours else f"{type(error).__name__}: {error}"
            in_words = isinstance(error, (OSError, EpisodeError))
            self._say(f"{ENDED_EARLY}: {error if in_words else self.error}")

    def _say(self, message: str) -> None:
        self.warnings.append(message)
        if self._warn is not None:
            self._warn(message)


def free_gb(directory: str | Path) -> float:
    """Free space on the disk of ``directory`` or of its nearest parent."""
    existing = Path(directory).absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free / 1e9


def require_space(directory: str | Path, minimum_gb: float) -> None:
    """EpisodeError if the disk of ``directory`` (or of its nearest parent) has less free space."""
    free = free_gb(directory)
    if free < minimum_gb:
        raise EpisodeError(
            f"{directory}: {free:.2f} GB free, less than minimum_free_gb = {minimum_gb:g}; make room"
        )
