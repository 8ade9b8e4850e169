"""Annotations as the page speaks of them: in control steps, with undo and a revision to state.

Times stay what they are on disk, ns of ROS time. A boundary that lies between two steps, set by
somebody on the command line, is shown at the next step and is not moved unless it is edited.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.annotations import (
    Annotation,
    Annotations,
    annotate,
    read_annotations,
    revert,
)
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.web.library import Library
from dexpie_ros.web.rows import quality

PLAIN = ("outcome", "cause", "stage", "use_for_critic", "use_for_actor", "note")
_BACK = re.compile(r"back to revision (\d+)")
_LONGEST_TEXT = 10_000


def describe(library: Library, name: str) -> dict[str, Any]:
    """All that is known of an episode besides its rows, as recorded and as annotated."""
    entry = library.entry(name)
    values: dict[str, Any] = {
        "name": name,
        "id": entry.id,
        "path": str(entry.path),
        "status": entry.status,
        "error": entry.error,
        "info": None,
        "streams": {},
        "quality": [],
    }
    if entry.content is not None:
        streams = entry.content.statistics.get("streams", {})
        values["info"] = config.to_dict(entry.content.info)
        values["streams"] = streams if isinstance(streams, dict) else {}
        values["quality"] = quality(entry.content)
    try:
        values["annotations"] = plain(read_annotations(entry.path), None)
    except EpisodeError as error:
        values["annotations"] = None
        values["error"] = values["error"] or str(error)
    return values


def plain(annotations: Annotations, time_ns: NDArray[np.int64] | None) -> dict[str, Any]:
    """For the page; stages and segments in steps where ``time_ns`` (T,) is known."""
    current = config.to_dict(annotations.current)
    values = {key: current[key] for key in PLAIN}
    values["stages"] = values["interventions"] = None
    if time_ns is not None:
        values |= _in_steps(annotations.current, time_ns)
    return {
        "revision": annotations.revision,
        "undo": undo_target(annotations),
        "current": values,
        "history": [
            {
                "number": revision.number,
                "time": revision.time,
                "author": revision.author,
                "comment": revision.comment,
                "changed": _changed(annotations, index),
            }
            for index, revision in enumerate(annotations.history)
        ],
    }


def undo_target(annotations: Annotations) -> int | None:
    """The revision whose state preceded the present one; None if nothing is left to undo.

    Undoing saves a new revision that says which one it went back to; undoing twice must go back
    two changes, not forth again.
    """
    stands_for = [0]
    for revision in annotations.history:
        back = _BACK.fullmatch(revision.comment)
        earlier = int(back[1]) if back else revision.number
        stands_for.append(stands_for[earlier] if earlier < revision.number else revision.number)
    return stands_for[stands_for[-1] - 1] if stands_for[-1] else None


def change(
    library: Library,
    name: str,
    request: dict[str, Any],
    time_ns: NDArray[np.int64] | None,
) -> Annotations:
    """Save ``request``: ``revision`` it was made against, ``changes`` or ``undo`` or ``revert``.

    AnnotationConflict if somebody else saved meanwhile; EpisodeError for what makes no sense.
    """
    directory = library.directory(name)
    revision = request.get("revision")
    author = request.get("author", "")
    if type(revision) is not int or not isinstance(author, str) or len(author) > 200:
        raise EpisodeError("a change needs the number `revision` and a short text `author`")
    common: dict[str, Any] = {"author": author.strip(), "expected_revision": revision}
    if request.get("undo") is True:
        before = read_annotations(directory)
        target = undo_target(before)
        if before.revision == revision and target is None:
            raise EpisodeError("nothing to undo: the episode is as recorded")
        return revert(directory, target or 0, **common)
    if "revert" in request:
        if type(request["revert"]) is not int:
            raise EpisodeError("`revert` must be the number of a revision")
        return revert(directory, request["revert"], **common)
    changes = request.get("changes")
    if not isinstance(changes, dict) or not changes:
        raise EpisodeError("nothing to save: `changes` is empty")
    return annotate(directory, **common, **_checked(changes, time_ns))


def _checked(changes: dict[str, Any], time_ns: NDArray[np.int64] | None) -> dict[str, Any]:
    unknown = sorted(set(changes) - {*PLAIN, "stages", "interventions"})
    if unknown:
        raise EpisodeError(f"unknown fields {', '.join(unknown)}")
    result = dict(changes)
    for key, value in changes.items():
        if isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise EpisodeError(f"{key}: longer than {_LONGEST_TEXT} characters")
    for key in ("stages", "interventions"):
        if changes.get(key) is None:
            continue
        if time_ns is None:
            raise EpisodeError(f"{key}: the bag cannot be read, so its steps are not known")
        if not isinstance(changes[key], list):
            raise EpisodeError(f"{key}: expected a list")
    if changes.get("stages") is not None and time_ns is not None:
        pairs = [_pair(item, "stages") for item in changes["stages"]]
        result["stages"] = [(_time(step, time_ns), str(label)) for step, label in pairs]
    if changes.get("interventions") is not None and time_ns is not None:
        pairs = [_pair(item, "interventions") for item in changes["interventions"]]
        result["interventions"] = [(_time(a, time_ns), _time(b, time_ns)) for a, b in pairs]
    return result


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    if not isinstance(item, list) or len(item) != 2:
        raise EpisodeError(f"{where}: expected pairs")
    return item[0], item[1]


def _time(step: Any, time_ns: NDArray[np.int64]) -> int:
    """The time of a step; one behind the last is where the episode ends."""
    if type(step) is not int or not 0 <= step <= len(time_ns):
        raise EpisodeError(f"step {step!r} of {len(time_ns)}")
    return int(time_ns[-1]) + STEP_NS if step == len(time_ns) else int(time_ns[step])


def _in_steps(annotation: Annotation, time_ns: NDArray[np.int64]) -> dict[str, Any]:
    def step(time: int) -> int:
        return int(np.searchsorted(time_ns, time))

    stages, segments = annotation.stages, annotation.interventions
    return {
        "stages": None if stages is None else [[step(time), name] for time, name in stages],
        "interventions": None
        if segments is None
        else [[step(start), step(end)] for start, end in segments],
    }


def _changed(annotations: Annotations, index: int) -> dict[str, Any]:
    """The fields that a revision changed, with their new values."""
    now = config.to_dict(annotations.history[index].annotation)
    before = config.to_dict(annotations.history[index - 1].annotation) if index else {}
    return {key: value for key, value in now.items() if value != before.get(key)}
