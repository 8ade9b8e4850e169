"""`dexpie episodes repair`: one episode, or all below a root that need it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dexpie_ros.episodes.collection import Collection, Entry
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.filtering import DEFAULT_ROOT
from dexpie_ros.episodes.repair import looks_whole, repair

_ENDED = ("finished", "aborted", "repaired")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, help=f"episodes or roots ({DEFAULT_ROOT})")


def run(options: argparse.Namespace) -> int:
    """1 where something could not be repaired; the others are repaired all the same."""
    failed = 0
    for root in options.paths or [Path(DEFAULT_ROOT)]:
        try:
            entries = [entry for entry in Collection(root) if _needs_a_look(entry, root)]
        except EpisodeError as error:
            failed += _told(error)
            continue
        for entry in entries:
            try:
                print(f"{entry.path}: {repair(entry.path).message}", flush=True)
            except EpisodeError as error:
                failed += _told(error)
    return 1 if failed else 0


def _needs_a_look(entry: Entry, root: Path) -> bool:
    """What was named always; below a root what was cut off, or lost its metadata or its index."""
    return entry.path == root or entry.status not in _ENDED or not looks_whole(entry.path)


def _told(error: EpisodeError) -> int:
    print(f"not repaired: {error}", file=sys.stderr)
    return 1
