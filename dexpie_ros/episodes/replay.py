"""Plays a recording back in time, with rate, loop, pause and seek. Who publishes is the caller's.

The messages are those of the bag, byte for byte. After a seek the newest message of every latched
topic before that point comes first, so that a listener knows the state it would have known then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexpie_ros.contract import BY_NAME, Qos
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import EpisodeError

Clock = Callable[[], float]


@dataclass(frozen=True)
class Recorded:
    """One message as it was recorded."""

    topic: str
    type: str
    cdr: bytes
    log_time_ns: int


class Replay:
    """A player of one episode. All controls may be used from any thread while :meth:`run` runs.

    ``topics``: only these; EpisodeError for one that was not recorded. ``rate``: 2 is twice as
    fast. ``start_s``: from this many seconds after the first message.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        topics: Collection[str] = (),
        rate: float = 1.0,
        loop: bool = False,
        start_s: float = 0.0,
        clock: Clock = time.monotonic,
    ) -> None:
        bag = BagReader(find_bag(directory))
        unknown = [name for name in topics if not len(bag.messages.get(name, ()))]
        if unknown:
            recorded = ", ".join(sorted(name for name, s in bag.messages.items() if len(s)))
            raise EpisodeError(
                f"{directory}: nothing recorded on {', '.join(unknown)}; there is: {recorded}"
            )
        chosen = {n: s for n, s in bag.messages.items() if len(s) and (not topics or n in topics)}
        if not chosen:
            raise EpisodeError(f"{directory}: no messages to play")
        times = np.concatenate([stream.log_times() for stream in chosen.values()])
        rows = [(name, i) for name, stream in chosen.items() for i in range(len(stream))]
        order = np.argsort(times, kind="stable")
        self._streams = chosen
        self._times = times[order]
        self._rows = [rows[i] for i in order]
        self._latched = [n for n in chosen if n in BY_NAME and BY_NAME[n].qos is Qos.STATE]
        self.types = {name: stream.type for name, stream in chosen.items()}
        self.start_ns = int(self._times[0])
        self.duration_s = float(self._times[-1] - self._times[0]) / 1e9
        self._loop, self._clock = loop, clock
        self._changed = threading.Condition()
        self._rate = 1.0
        self._paused = self._stopped = self._started = False
        self._anchor_s, self._anchor_clock = 0.0, clock()
        self._next = 0
        self._sought = True
        self.rate = rate
        self.seek(start_s)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def position_s(self) -> float:
        """Seconds after the first message."""
        with self._changed:
            return self._position()

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not 0 < rate <= 1000:
            raise EpisodeError(f"rate {rate}: expected a factor between 0 and 1000")
        with self._changed:
            self._move_anchor(self._position())
            self._rate = rate
            self._changed.notify_all()

    @property
    def paused(self) -> bool:
        return self._paused

    def pause(self, paused: bool = True) -> None:
        """Stand still, or go on."""
        with self._changed:
            self._move_anchor(self._position())
            self._paused = paused
            self._changed.notify_all()

    def seek(self, position_s: float) -> None:
        """Go to a time; before the beginning is the beginning, behind the end the end."""
        with self._changed:
            position = min(max(0.0, position_s), self.duration_s)
            self._move_anchor(position)
            goal = self.start_ns + round(position * 1e9)
            self._next = int(np.searchsorted(self._times, goal, side="left"))
            self._sought = True
            self._changed.notify_all()

    def stop(self) -> None:
        """End :meth:`run` at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self, publish: Callable[[Recorded], None]) -> int:
        """Call ``publish`` for each message when it is due; gives how many. Ends at the end of the
        bag (with ``loop``: never) or on :meth:`stop`.
        """
        count = 0
        while True:
            batch = self._due()
            if batch is None:
                return count
            for row in batch:
                publish(self._message(row))
            count += len(batch)

    # -- inside ----------------------------------------------------------------------------------
    def _due(self) -> list[int] | None:
        """Rows to publish now; waits for the next ones. None at the end."""
        with self._changed:
            if not self._started:  # time begins now, not when the player was made
                self._move_anchor(self._anchor_s)
                self._started = True
            while not self._stopped:
                if self._sought:
                    self._sought = False
                    states = self._states_before(self._next)
                    if states:
                        return states
                if self._next >= len(self._rows) and not self._paused:
                    if not self._loop:
                        return None
                    self._move_anchor(0.0)
                    self._next, self._sought = 0, True
                    continue
                if self._paused:
                    self._changed.wait()
                    continue
                now = self.start_ns + round(self._position() * 1e9)
                stop = int(np.searchsorted(self._times, now, side="right"))
                if stop > self._next:
                    rows = list(range(self._next, stop))
                    self._next = stop
                    return rows
                ahead = (int(self._times[self._next]) - now) / 1e9 / self._rate
                self._changed.wait(max(0.0, ahead))
            return None

    def _states_before(self, row: int) -> list[int]:
        newest: dict[str, int] = {}
        if self._latched:
            for index in range(row):
                name = self._rows[index][0]
                if name in self._latched:
                    newest[name] = index
        return sorted(newest.values())

    def _message(self, row: int) -> Recorded:
        name, index = self._rows[row]
        stream = self._streams[name]
        cdr = bytes(stream.payloads[index])
        return Recorded(name, stream.type, cdr, stream.log_time_ns[index])

    def _position(self) -> float:
        if self._paused or not self._started:
            return self._anchor_s
        return self._anchor_s + (self._clock() - self._anchor_clock) * self._rate

    def _move_anchor(self, position_s: float) -> None:
        self._anchor_s, self._anchor_clock = position_s, self._clock()
