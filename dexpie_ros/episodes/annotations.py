"""What people say of an episode afterwards: ``annotations.json`` beside the bag.

Every change is a new revision with author and time; nothing said before is lost. Two editors cannot
overwrite each other: whoever saves states the revision that was looked at, and a newer one is an
:class:`AnnotationConflict`. The recording itself never changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import getpass
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config
from dexpie_ros.episodes.episode import Bool, EpisodeError, EpisodeInfo

FILE_NAME = "annotations.json"
FORMAT = 1


class AnnotationConflict(EpisodeError):
    """Somebody else changed the annotations in the meantime; look again, then save again."""


@config.config
class Annotation:
    """The state of the annotations; None everywhere means "as recorded"."""

    outcome: Literal["success", "failure", "aborted"] | None = None
    cause: str | None = None
    stage: str | None = None
    use_for_critic: bool | None = None
    use_for_actor: bool | None = None
    note: str | None = None
    """Free text."""
    stages: list[tuple[int, str]] | None = None
    """Stage boundaries: (ROS time in ns from which on it is this stage, its name)."""
    interventions: list[tuple[int, int]] | None = None
    """Corrected human segments: [from, to) in ns of ROS time."""

    def __post_init__(self) -> None:
        starts = [time for time, _ in self.stages or ()]
        if starts != sorted(set(starts)):
            raise ValueError("stages: the times must ascend")
        flat = [time for segment in self.interventions or () for time in segment]
        if any(b <= a for a, b in self.interventions or ()) or flat != sorted(flat):
            raise ValueError("interventions: segments [from, to) in order, without overlap")


@dataclass(frozen=True)
class Revision:
    """One saved state."""

    number: int
    time: str
    author: str
    comment: str
    annotation: Annotation


@dataclass(frozen=True)
class Annotations:
    """All revisions, oldest first; none yet: revision 0 and an empty annotation."""

    history: tuple[Revision, ...] = ()

    @property
    def revision(self) -> int:
        return self.history[-1].number if self.history else 0

    @property
    def current(self) -> Annotation:
        return self.history[-1].annotation if self.history else Annotation()


def read_annotations(directory: str | Path) -> Annotations:
    """The annotations of an episode. EpisodeError if the file is broken: what it excluded from
    training must not come back unnoticed.
    """
    path = Path(directory) / FILE_NAME
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Annotations()
    except (OSError, ValueError, RecursionError) as error:
        raise EpisodeError(f"{path}: cannot be read ({error}); restore it or delete it") from None
    entries = values.get("revisions") if isinstance(values, dict) else None
    if not isinstance(entries, list) or values.get("format") != FORMAT:
        raise EpisodeError(f"{path}: no annotations of format {FORMAT}; update dexpie_ros?")
    history = tuple(
        _revision(entry, f"{path}: revision {i + 1}") for i, entry in enumerate(entries)
    )
    if [r.number for r in history] != list(range(1, len(history) + 1)):
        raise EpisodeError(f"{path}: revisions are missing; restore the file or delete it")
    return Annotations(history)


def annotate(
    directory: str | Path,
    *,
    author: str = "",
    comment: str = "",
    expected_revision: int | None = None,
    **changes: Any,
) -> Annotations:
    """Change the named fields of the annotation and save it as the next revision.

    ``expected_revision``: the one these changes were made against; AnnotationConflict if there is a
    newer one. None: apply them to whatever is there. A field set to None is as recorded again.
    EpisodeError for unknown fields, impossible values or a directory that is no episode.
    """
    folder = Path(directory)
    if not any(folder.glob("*.mcap")) and not (folder / "episode.json").is_file():
        raise EpisodeError(f"{folder}: not an episode; see `dexpie episodes list`")
    with _locked(folder):
        before = read_annotations(folder)
        if expected_revision is not None and expected_revision != before.revision:
            last = before.history[-1] if before.history else None
            who = (
                f"{last.author} saved revision {last.number} at {last.time}"
                if last
                else "it is new"
            )
            raise AnnotationConflict(
                f"{folder / FILE_NAME}: changed since revision {expected_revision} ({who}); look "
                "at it again before saving"
            )
        values = config.to_dict(before.current) | changes
        try:
            annotation = config.from_dict(Annotation, values, str(folder / FILE_NAME))
        except config.ConfigError as error:
            raise EpisodeError(str(error)) from None
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = Revision(before.revision + 1, now, author or _user(), comment, annotation)
        after = Annotations((*before.history, entry))
        _write(folder, after)
    return after


def revert(
    directory: str | Path, revision: int, *, author: str = "", expected_revision: int | None = None
) -> Annotations:
    """Save an earlier revision (0: as recorded) as the newest one; nothing is deleted."""
    before = read_annotations(directory)
    if not 0 <= revision <= before.revision:
        raise EpisodeError(f"{directory}: no revision {revision}; the newest is {before.revision}")
    wanted = before.history[revision - 1].annotation if revision else Annotation()
    return annotate(
        directory,
        author=author,
        comment=f"back to revision {revision}",
        expected_revision=expected_revision,
        **config.to_dict(wanted),
    )


def apply(info: EpisodeInfo, annotation: Annotation) -> EpisodeInfo:
    """The description as annotated."""
    fields = ("outcome", "cause", "stage", "use_for_critic", "use_for_actor")
    changed = {name: value for name in fields if (value := getattr(annotation, name)) is not None}
    if annotation.note is not None:
        changed["note"] = info.note | {"annotation": annotation.note}
    return dataclasses.replace(info, **changed) if changed else info


def intervention_rows(annotation: Annotation, time_ns: NDArray[np.int64]) -> Bool | None:
    """(T,) human steps by the corrected segments; None without correction."""
    if annotation.interventions is None:
        return None
    rows = np.zeros(len(time_ns), bool)
    for start, end in annotation.interventions:
        rows |= (time_ns >= start) & (time_ns < end)
    return rows


def _revision(entry: Any, where: str) -> Revision:
    if not isinstance(entry, dict) or not isinstance(entry.get("annotation"), dict):
        raise EpisodeError(f"{where}: not an annotation")
    try:
        annotation = config.from_dict(Annotation, entry["annotation"], where)
    except config.ConfigError as error:
        raise EpisodeError(str(error)) from None
    texts = [entry.get(key) for key in ("time", "author", "comment")]
    number = entry.get("revision")
    if type(number) is not int or not all(isinstance(text, str) for text in texts):
        raise EpisodeError(f"{where}: revision, time, author or comment is missing")
    return Revision(number, str(texts[0]), str(texts[1]), str(texts[2]), annotation)


def _write(folder: Path, annotations: Annotations) -> None:
    revisions = [
        {
            "revision": r.number,
            "time": r.time,
            "author": r.author,
            "comment": r.comment,
            "annotation": {
                key: value
                for key, value in config.to_dict(r.annotation).items()
                if value is not None
            },
        }
        for r in annotations.history
    ]
    config.write_json(folder / FILE_NAME, {"format": FORMAT, "revisions": revisions})


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time, also across processes. The directory itself is the lock: no file stays."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
