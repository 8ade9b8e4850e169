"""The episodes that the page shows: listed from their descriptions, opened when looked at.

An episode is named by its directory relative to the root. Names are looked up in the list, never
joined to a path: what was not found below the root cannot be asked for.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.aligned import Aligned, align_bag
from dexpie_ros.episodes.annotations import FILE_NAME as ANNOTATIONS
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.collection import (
    Entry,
    creation_order,
    episode_directories,
    read_entry,
)
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.episode_file import FILE_NAME
from dexpie_ros.episodes.images import RecordedImages
from dexpie_ros.episodes.reader import assemble

State = tuple[int, ...]
OPEN = 8
"""Episodes that stay open at once; their pictures are mapped, not loaded."""
FRESH_S = 2.0
"""The directory is read again for a list that is older than this."""


class UnknownEpisodeError(EpisodeError):
    """No such episode below the root."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A bag with its rows and pictures."""

    directory: Path
    bag: BagReader
    aligned: Aligned

    @property
    def cameras(self) -> dict[str, RecordedImages]:
        return self.aligned.cameras

    def episode(self) -> Episode:
        """With the annotations as they are now."""
        return assemble(self.directory, self.aligned, self.aligned.cameras, self.bag)


class Library:
    """Thread-safe: requests are served by several threads."""

    def __init__(self, root: str | Path) -> None:
        self.name = str(root)
        """As it was given."""
        self.root = Path(root).resolve()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._read: dict[Path, tuple[State, Entry]] = {}
        self._read_at = float("-inf")
        self._open: OrderedDict[tuple[str, int, int], Opened] = OrderedDict()
        self._opening: dict[str, threading.Lock] = {}

    def entries(self) -> dict[str, Entry]:
        """All episodes by name, in the order of their creation."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                self._read = {path: self._as_read(path) for path in episode_directories(self.root)}
                entries = sorted((entry for _, entry in self._read.values()), key=creation_order)
                self._entries = {self._name(entry.path): entry for entry in entries}
                self._read_at = time.monotonic()
            return dict(self._entries)

    def entry(self, name: str) -> Entry:
        """One episode as it is now. UnknownEpisodeError if there is none of this name."""
        path = self._known(name).path
        if not path.is_dir():
            raise UnknownEpisodeError(f"{path}: the episode is gone; load the list again")
        with self._lock:
            self._read[path] = self._as_read(path)
            self._entries[name] = self._read[path][1]
            return self._entries[name]

    def directory(self, name: str) -> Path:
        """Where an episode lies. UnknownEpisodeError if there is none of this name."""
        return self._known(name).path

    def open(self, name: str) -> Opened:
        """An episode with its bag. EpisodeError says why it cannot be read."""
        directory = self.directory(name)
        file = find_bag(directory)
        try:
            state = file.stat()
        except OSError as error:
            raise EpisodeError(f"{file}: cannot be read: {error.strerror}") from None
        key = (name, state.st_mtime_ns, state.st_size)
        with self._lock:
            one_at_a_time = self._opening.setdefault(name, threading.Lock())
        with one_at_a_time:
            with self._lock:
                opened = self._open.get(key)
                if opened is not None:
                    self._open.move_to_end(key)
                    return opened
            bag = BagReader(file)
            opened = Opened(directory, bag, align_bag(bag, AlignConfig()))
            with self._lock:
                self._open[key] = opened
                while len(self._open) > OPEN:
                    self._open.popitem(last=False)
            return opened

    def _known(self, name: str) -> Entry:
        with self._lock:
            known = self._entries.get(name)
        if known is None:
            # Perhaps it was recorded since, or nobody asked for the list yet.
            known = self.entries().get(name)
        if known is None:
            raise UnknownEpisodeError(f"no episode {name!r} below {self.root}")
        return known

    def _as_read(self, path: Path) -> tuple[State, Entry]:
        """Read again only where something changed: a thousand descriptions take a while."""
        state = tuple(_changed_at(path / name) for name in ("", FILE_NAME, ANNOTATIONS))
        before = self._read.get(path)
        return before if before is not None and before[0] == state else (state, read_entry(path))

    def _name(self, path: Path) -> str:
        relative = path.relative_to(self.root).as_posix()
        return path.name if relative == "." else relative


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
