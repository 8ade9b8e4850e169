"""`dexpie episodes annotate`: what a person says of an episode, from the command line."""

from __future__ import annotations

import argparse
from typing import Any

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.annotations import annotate, revert
from dexpie_ros.episodes.collection import Entry
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.filtering import add_root, find


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episode", help="id, beginning of an id, or directory")
    add_root(parser)
    parser.add_argument("--outcome", choices=("success", "failure", "aborted"))
    parser.add_argument("--cause")
    parser.add_argument("--stage")
    parser.add_argument("--note", help="free text")
    parser.add_argument("--exclude", action="append", default=[], choices=("critic", "actor"))
    parser.add_argument("--include", action="append", default=[], choices=("critic", "actor"))
    parser.add_argument(
        "--stage-from", action="append", default=[], metavar="SECONDS=NAME",
        help="a stage begins; seconds from the first control step; none: no stages",
    )  # fmt: skip
    parser.add_argument(
        "--intervention", action="append", default=[], metavar="FROM:TO",
        help="corrected human segments in seconds from the first control step; none: no segments",
    )  # fmt: skip
    parser.add_argument("--author", default="")
    parser.add_argument("--comment", default="")
    parser.add_argument("--revision", type=int, help="only if this is still the newest revision")
    parser.add_argument(
        "--revert", type=int, metavar="N", help="back to revision N (0: as recorded)"
    )


def run(options: argparse.Namespace) -> int:
    entry = find(options)
    common = {"author": options.author, "expected_revision": options.revision}
    if options.revert is not None:
        if options.comment or _changes(options, entry):
            raise EpisodeError("--revert goes back as a whole; annotate anything else afterwards")
        after = revert(entry.path, options.revert, **common)
    else:
        changes = _changes(options, entry)
        if not changes:
            raise EpisodeError("nothing to annotate; see `dexpie episodes annotate --help`")
        after = annotate(entry.path, comment=options.comment, **common, **changes)
    print(f"{entry.id}: revision {after.revision}")
    return 0


def _changes(options: argparse.Namespace, entry: Entry) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: value
        for name in ("outcome", "cause", "stage", "note")
        if (value := getattr(options, name)) is not None
    }
    both = set(options.exclude) & set(options.include)
    if both:
        raise EpisodeError(f"--exclude and --include {', '.join(sorted(both))}: decide for one")
    changes |= {f"use_for_{name}": False for name in options.exclude}
    changes |= {f"use_for_{name}": True for name in options.include}
    if options.stage_from or options.intervention:
        times = _Times(entry)
        if options.stage_from:
            changes["stages"] = sorted(map(times.boundary, _items(options.stage_from)))
        if options.intervention:
            changes["interventions"] = sorted(map(times.segment, _items(options.intervention)))
    return changes


def _items(values: list[str]) -> list[str]:
    return [] if values == ["none"] else values


class _Times:
    """Seconds from the first control step -> ROS time, within the episode."""

    def __init__(self, entry: Entry) -> None:
        from dexpie_ros.episodes.reader import read_episode

        times = read_episode(entry.path).time_ns
        self._id, self._start, self._end = entry.id, int(times[0]), int(times[-1]) + STEP_NS

    def boundary(self, text: str) -> tuple[int, str]:
        seconds, _, name = text.partition("=")
        if not name.strip():
            raise EpisodeError(
                f"--stage-from {text}: expected SECONDS=NAME, for instance 3.2=place; none: no stages"
            )
        start = self._ns(seconds, "--stage-from")
        if start >= self._end:
            raise self._outside("--stage-from", text)
        return start, name

    def segment(self, text: str) -> tuple[int, int]:
        start, _, end = text.partition(":")
        return self._ns(start, "--intervention"), self._ns(end, "--intervention")

    def _ns(self, text: str, option: str) -> int:
        try:
            time_ns = self._start + round(float(text) * 1e9)
        except (ValueError, OverflowError):
            raise EpisodeError(f"{option}: {text!r} is no number of seconds") from None
        if not self._start <= time_ns <= self._end:
            raise self._outside(option, text)
        return time_ns

    def _outside(self, option: str, text: str) -> EpisodeError:
        length = (self._end - self._start) / 1e9
        return EpisodeError(f"{option} {text}: {self._id} goes from 0 to {length:.2f} s")
