"""The picture of a start that the session wants to be restored: shown over the live one.

The session names it on /session/plan, together with the episode that it is of. What arrives there is
a path from another process: only a JPEG below the page's own directory is ever opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 8 << 20
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class StartPicture:
    """What the plan says of the start that comes next."""

    episode_id: str
    path: str


def planned_start(plan: str) -> StartPicture | None:
    """The picture that a message of /session/plan names; None where it names none."""
    try:
        said = json.loads(plan)
        episode, path = said["assignment"]["same_start_as"], said["picture"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(episode, str) and isinstance(path, str) and episode and path):
        return None
    return StartPicture(episode, path)


def start_file(start: StartPicture, root: Path) -> Path | None:
    """The file, if it lies below ``root``; None for any other, also through a link."""
    try:
        path = Path(start.path).resolve()
    except (OSError, ValueError, RuntimeError):  # a null byte, links in a circle
        return None
    inside = path.is_relative_to(root.resolve()) and path.suffix == ".jpg"
    return path if inside and path.is_file() else None


def read_start(start: StartPicture, root: Path) -> bytes | None:
    """The JPEG, or None where :func:`start_file` has none or the file is something else."""
    path = start_file(start, root)
    try:
        if path is None or path.stat().st_size > _LARGEST:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if data.startswith(_JPEG) else None
