"""``episode.json``: the description of an episode beside its bag, small enough to list thousands.

Written when the recording starts (status ``recording``) and when it ends; always whole or not at
all. The same description also lies in the bag as metadata, so that a bag on its own is complete.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexpie_ros import config
from dexpie_ros.episodes.episode import EpisodeError, EpisodeInfo

FILE_NAME = "episode.json"
FORMAT = 1
RECORD_NAME = "dexpie_episode"
"""Name of the MCAP metadata record."""
STATUSES = ("recording", "finished", "aborted", "repaired")


@dataclass(frozen=True)
class EpisodeFile:
    """Content of ``episode.json``."""

    info: EpisodeInfo
    status: str
    """``recording`` (or cut off), ``finished``, ``aborted`` (closed cleanly, without a result) or
    ``repaired``."""
    duration_ns: int = 0
    steps: int = 0
    """Messages on /control/step."""
    human_steps: int = 0
    messages: int = 0
    start_ns: int = 0
    """ROS time at which the episode begins; control steps before it are pre-roll. 0: all belong to it."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """``streams``: per topic received, expected, dropped, rate, jitter; ``silent``: topics with a rate
    on which nothing came; plus what the session adds."""
    repair: dict[str, Any] = field(default_factory=dict)
    """What a repair found and lost; empty if there was none."""


def write_episode_file(directory: str | Path, content: EpisodeFile) -> None:
    """Write ``<directory>/episode.json`` atomically."""
    config.write_json(Path(directory) / FILE_NAME, _plain(content))


def read_episode_file(directory: str | Path) -> EpisodeFile | None:
    """Read ``<directory>/episode.json``; None if there is none, EpisodeError if it is broken."""
    path = Path(directory) / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse(data, str(path))


def parse(data: bytes, where: str) -> EpisodeFile:
    """JSON text -> EpisodeFile; EpisodeError names ``where`` and what is wrong."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EpisodeError(
            f"{where}: no JSON ({error}); `dexpie episodes repair` renews it"
        ) from None
    if not isinstance(values, dict) or not isinstance(values.get("info"), dict):
        raise EpisodeError(f"{where}: not the description of an episode (no `info`)")
    version = values.get("format")
    if version != FORMAT:
        raise EpisodeError(
            f"{where}: format {version!r}, this version reads {FORMAT}; update dexpie_ros"
        )
    status = values.get("status")
    if status not in STATUSES:
        raise EpisodeError(f"{where}: status {status!r}, expected one of {', '.join(STATUSES)}")
    numbers = {}
    for key in ("duration_ns", "steps", "human_steps", "messages", "start_ns"):
        numbers[key] = values.get(key, 0)
        if type(numbers[key]) is not int or numbers[key] < 0:
            raise EpisodeError(f"{where}: {key} = {numbers[key]!r}, expected a count")
    groups = {}
    for key in ("statistics", "repair"):
        groups[key] = values.get(key, {})
        if not isinstance(groups[key], dict):
            raise EpisodeError(f"{where}: {key} is no group of values")
    return EpisodeFile(info=read_info(values["info"], where), status=status, **numbers, **groups)


def read_info(values: dict[str, Any], where: str) -> EpisodeInfo:
    """Plain values -> EpisodeInfo; EpisodeError names ``where`` and the key."""
    try:
        return config.from_dict(EpisodeInfo, values, where)
    except config.ConfigError as error:
        raise EpisodeError(str(error)) from None


def to_record(content: EpisodeFile) -> dict[str, str]:
    """As MCAP metadata: text with its own checksum, for the format does not protect metadata."""
    text = json.dumps(_plain(content), allow_nan=False)
    return {"json": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}


def from_record(record: dict[str, str], where: str) -> EpisodeFile:
    """Inverse of :func:`to_record`; EpisodeError if the text was damaged."""
    text = record.get("json", "").encode()
    if f"{zlib.crc32(text):08x}" != record.get("crc32"):
        raise EpisodeError(f"{where}: the episode's description in the bag is damaged")
    return parse(text, where)


def recorded_start(
    metadata: Iterable[tuple[str, dict[str, str]]], directory: str | Path
) -> int | None:
    """``start_ns`` by the metadata records of a bag, else by ``episode.json`` beside it; None where
    no sound description tells it.
    """
    for name, record in metadata:
        if name == RECORD_NAME:
            with contextlib.suppress(EpisodeError):
                return from_record(record, "").start_ns
    with contextlib.suppress(EpisodeError):
        content = read_episode_file(directory)
        return None if content is None else content.start_ns
    return None


def _plain(content: EpisodeFile) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "status": content.status,
        "info": config.to_dict(content.info),
        "duration_ns": content.duration_ns,
        "steps": content.steps,
        "human_steps": content.human_steps,
        "messages": content.messages,
        "start_ns": content.start_ns,
        "statistics": content.statistics,
        **({"repair": content.repair} if content.repair else {}),
    }
