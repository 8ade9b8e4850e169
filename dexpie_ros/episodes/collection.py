"""Many episodes under one directory: found, listed and filtered without opening a bag."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.annotations import apply, read_annotations
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import Episode, EpisodeError, EpisodeInfo
from dexpie_ros.episodes.episode_file import FILE_NAME, EpisodeFile, read_episode_file
from dexpie_ros.episodes.reader import describe, read_episode


@dataclass(frozen=True)
class Entry:
    """One episode of a collection, as far as its description tells."""

    path: Path
    content: EpisodeFile | None
    """Its ``info`` and ``human_steps`` are as annotated, not as recorded."""
    error: str = ""
    """Why there is no content."""

    @property
    def info(self) -> EpisodeInfo:
        if self.content is None:
            raise EpisodeError(self.error)
        return self.content.info

    @property
    def id(self) -> str:
        return self.path.name if self.content is None else self.content.info.episode_id

    @property
    def status(self) -> str:
        return "broken" if self.content is None else self.content.status

    @property
    def usable(self) -> bool:
        """Whole, or repaired and judged by a person since."""
        if self.content is None or self.status == "recording":
            return False
        return self.status != "repaired" or bool(self.content.info.outcome)


class Collection:
    """The episodes below ``root`` (at any depth), sorted by creation time.

    A directory with a broken description is listed too, with ``error`` set: nothing is hidden.
    """

    def __init__(self, root: str | Path, entries: Sequence[Entry] | None = None) -> None:
        self.root = Path(root)
        if entries is None:
            if not self.root.is_dir():
                raise EpisodeError(
                    f"{self.root}: no such directory; episodes are recorded below one"
                )
            found = (read_entry(path) for path in episode_directories(self.root))
            entries = sorted(found, key=creation_order)
        self.entries: tuple[Entry, ...] = tuple(entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def filter(
        self,
        *,
        kind: str | Sequence[str] = (),
        task: str = "",
        stage: str = "",
        outcome: str | Sequence[str] = (),
        policy_id: str = "",
        pair_id: str = "",
        status: str | Sequence[str] = (),
        use_for: str = "",
        where: Callable[[Entry], bool] | None = None,
    ) -> Collection:
        """Those that match everything given; ``use_for`` is ``critic`` or ``actor``."""

        def among(value: str, wanted: str | Sequence[str]) -> bool:
            return not wanted or value in ((wanted,) if isinstance(wanted, str) else wanted)

        def matches(entry: Entry) -> bool:
            if not among(entry.status, status):
                return False
            info = entry.content.info if entry.content else None
            if info is None:
                constrained = kind or task or stage or outcome or policy_id or pair_id or use_for
                return not constrained and (where is None or where(entry))
            return (
                among(info.kind, kind)
                and among(info.task, task)
                and among(info.stage, stage)
                and among(info.outcome, outcome)
                and among(info.policy_id, policy_id)
                and among(info.pair_id, pair_id)
                and (use_for != "critic" or info.use_for_critic)
                and (use_for != "actor" or info.use_for_actor)
                and (where is None or where(entry))
            )

        return Collection(self.root, [entry for entry in self.entries if matches(entry)])

    def find(self, name: str) -> Entry:
        """By id, by a unique beginning of it, or by directory; EpisodeError otherwise."""
        exact = [e for e in self.entries if e.id == name or e.path == Path(name)]
        found = exact or [e for e in self.entries if e.id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(sorted(e.id for e in found)[:5])
            raise EpisodeError(f"{self.root}: {len(found)} episodes are called {name}: {some}")
        raise EpisodeError(
            f"{self.root}: no episode {name} among {len(self)}; see `dexpie episodes list`"
        )

    def read(self, settings: AlignConfig | None = None, partial: bool = False) -> list[Episode]:
        """All usable episodes, aligned; with ``partial`` also those that were cut off."""
        return [
            read_episode(entry.path, settings)
            for entry in self.entries
            if entry.content is not None and (partial or entry.usable)
        ]

    def for_training(self, use_for: str) -> Collection:
        """Usable episodes that ended in success or failure and are not excluded for ``critic`` or
        ``actor`` (empty: excluded or not). Never those of an evaluation: its starts are held out.
        """
        judged = self.filter(
            outcome=("success", "failure"),
            use_for=use_for,
            where=lambda entry: entry.info.kind != "evaluation",
        )
        return Collection(self.root, [entry for entry in judged if entry.usable])


def episode_directories(root: Path) -> Iterator[Path]:
    """Directories that hold a bag or a description; nothing below them is looked at."""
    names = {entry.name: entry for entry in os.scandir(root)}
    if FILE_NAME in names or any(name.endswith(".mcap") for name in names):
        yield root
        return
    for name in sorted(names):
        if not name.startswith(".") and names[name].is_dir(follow_symlinks=False):
            yield from episode_directories(Path(names[name].path))


def read_entry(path: Path) -> Entry:
    """One episode directory; what is wrong with its description becomes ``error``."""
    try:
        content = read_episode_file(path) or describe(path)[0]
        annotation = read_annotations(path).current
        human = content.human_steps
        if annotation.interventions is not None:
            human = _steps_within(annotation.interventions, path, content)
        content = dataclasses.replace(
            content,
            info=apply(content.info, annotation),
            human_steps=min(human, content.steps),
        )
    except EpisodeError as error:
        return Entry(path, None, str(error))
    return Entry(path, content)


def _steps_within(segments: list[tuple[int, int]], path: Path, content: EpisodeFile) -> int:
    """Control steps in corrected segments, without what lies outside the recording."""
    index = BagReader(find_bag(path)).index
    begin, end = content.start_ns, np.iinfo(np.int64).max
    if index is not None:
        begin = begin or index.statistics.start_ns
        end = index.statistics.end_ns + STEP_NS
    return sum(max(0, round((min(b, end) - max(a, begin)) / STEP_NS)) for a, b in segments)


def creation_order(entry: Entry) -> tuple[str, str]:
    """Sorts entries by creation time."""
    return (entry.content.info.created if entry.content else "", entry.id)
