"""Which episodes are misaligned: found by aligning every bag once, in the background.

The other remarks on quality stand in an episode's description. Whether streams fit together is
known only after putting them on the control steps, about 20 ms for each episode; a table of
thousands does not wait for it, and asks again.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.aligned import align_bag
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.web.library import Library

State = tuple[int, int]
_TURN = 1.0
"""Pause after each episode, as a share of what it took: requests come first."""


class Checks:
    """Thread-safe. Works while there is something unknown, then ends its thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = threading.Lock()
        self._known: dict[str, tuple[State, list[str]]] = {}
        self._wanted: dict[str, None] = {}
        self._busy = False
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def look(self) -> dict[str, Any]:
        """Plain values: what is known of every listed episode by now, and how many are left."""
        states = {}
        for name, entry in self._library.entries().items():
            if entry.content is not None and entry.status != "recording":
                try:
                    states[name] = _state(self._library, name)
                except (EpisodeError, OSError):
                    continue  # its row says what is wrong with it
        with self._lock:
            done = {n: self._known[n] for n in states if n in self._known}
            unknown = [n for n, state in states.items() if n not in done or done[n][0] != state]
            self._wanted, busy = dict.fromkeys(unknown), self._busy
            if unknown and self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._work, name="checks", daemon=True)
                self._thread.start()
        return {
            "of": len(states),
            "left": len(unknown) + busy,
            "flags": {name: flag for name, (_, flag) in done.items() if flag},
        }

    def close(self) -> None:
        self._stop.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout=10.0)

    def _work(self) -> None:
        try:
            while (name := self._next()) is not None:
                began = time.monotonic()
                self._check(name)
                with self._lock:
                    self._busy = False
                self._stop.wait(_TURN * (time.monotonic() - began))
        finally:
            with self._lock:
                self._thread, self._busy = None, False

    def _next(self) -> str | None:
        with self._lock:
            name = next(iter(self._wanted), None)
            if name is None or self._stop.is_set():
                return None
            del self._wanted[name]
            self._busy = True
            return name

    def _check(self, name: str) -> None:
        try:
            state = _state(self._library, name)
        except (EpisodeError, OSError):
            return  # gone since it was listed
        flag: list[str] = []
        # Noted first: whatever happens now, it is not tried again before the bag changes.
        self._note(name, state, flag)
        try:
            flag = misaligned(self._library, name)
        except (EpisodeError, OSError):
            return  # told where it is opened; there are no steps to judge
        self._note(name, state, flag)

    def _note(self, name: str, state: State, flag: list[str]) -> None:
        with self._lock:
            self._known[name] = (state, flag)


def misaligned(library: Library, name: str) -> list[str]:
    """[one word, the whole story] of an episode with steps out of tolerance, else nothing.

    EpisodeError if the bag cannot be aligned at all.
    """
    settings = AlignConfig()
    flags = align_bag(BagReader(find_bag(library.directory(name))), settings).arrays["flags"]
    count = int(np.count_nonzero(flags))
    if not count:
        return []
    return [
        "misaligned",
        f"{count} of {len(flags)} steps have a stream that is out of tolerance "
        f"({settings.tolerance_ms:g} ms)",
    ]


def _state(library: Library, name: str) -> State:
    state = find_bag(library.directory(name)).stat()
    return state.st_mtime_ns, state.st_size
