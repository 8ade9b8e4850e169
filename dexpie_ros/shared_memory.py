"""Shared memory that Fast DDS processes leave behind when they are killed (8 MB each)."""

from __future__ import annotations

import fcntl
import re
import time
from pathlib import Path

DIRECTORY = Path("/dev/shm")

_LOCK = re.compile(r"(fastdds_[0-9a-z]{16}|fastdds_port\d{1,5})_(el|sl)")
"""Fast DDS holds a lock on this file as long as the segment or port beside it is in use."""

_YOUNG = 5.0
"""Seconds: a file just made may not be locked yet."""


def remove_stale_segments(directory: Path = DIRECTORY) -> int:
    """Remove segments and ports that no process holds a lock on; returns how many files went."""
    removed = 0
    in_use: set[str] = set()
    stale: set[str] = set()
    for file in directory.glob("fastdds_*"):
        match = _LOCK.fullmatch(file.name)
        if match:
            (in_use if _is_locked(file) else stale).add(match.group(1))
    for base in stale - in_use:
        for name in (base, f"{base}_el", f"{base}_sl", f"sem.{base}_mutex"):
            try:
                (directory / name).unlink()
                removed += 1
            except FileNotFoundError:
                continue
    return removed


def _is_locked(file: Path) -> bool:
    try:
        if time.time() - file.stat().st_mtime < _YOUNG:
            return True
        with file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # locked, or another user's
        return True
    return False
