"""`dexpie episodes ...`: list, show, report, annotate, repair, export, import, replay.

:func:`add_parser` hangs them into an argument parser; every command is a function from parsed
options to an exit status. Mistakes are EpisodeErrors, which the caller prints as one line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config
from dexpie_ros.episodes import filtering
from dexpie_ros.episodes.annotations import annotate, revert
from dexpie_ros.episodes.collection import Collection, Entry
from dexpie_ros.episodes.episode import KINDS, EpisodeError
from dexpie_ros.episodes.repair import repair

if TYPE_CHECKING:
    from dexpie_ros.episodes.replay import Recorded, Replay

Command = Callable[[argparse.Namespace], int]
DEFAULT_ROOT = "outputs/episodes"


def add_parser(groups: Any, play: Command | None = None) -> None:
    """Add the group ``episodes``. ``play`` carries out ``replay`` (the ROS graph does); without it
    the recorded messages are named on the terminal in their time.
    """
    parser = groups.add_parser("episodes", help="list, look at, annotate, repair, export episodes")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, add, run, text in (
        ("list", _add_list, _list, "episodes, one a line"),
        ("show", _add_show, _show, "everything about one episode"),
        ("report", _add_report, _report, "counts, lengths, success and intervention shares"),
        ("annotate", _add_annotate, _annotate, "outcome, cause, stages, segments, exclusions"),
        ("repair", _add_repair, _repair, "make recordings whole that were cut off"),
        ("export", _add_export, _export, "to LeRobotDataset v3 or robomimic HDF5"),
        ("import", _add_import, _import, "from LeRobotDataset v3 or the paper's authors"),
        ("replay", _add_replay, play or echo, "play an episode back in time"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add(action)
        action.set_defaults(run=run)


# -- list, show, report ----------------------------------------------------------------------------
def _add_list(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser, DEFAULT_ROOT)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _list(options: argparse.Namespace) -> int:
    collection = filtering.choose(options)
    for entry in collection:
        print(json.dumps(_as_json(entry)) if options.json else _line(entry))
    if not options.json:
        print(f"{len(collection)} episodes below {options.root}")
    return 0


def _line(entry: Entry) -> str:
    if entry.content is None:
        return f"{entry.id:32} broken: {entry.error}"
    info, content = entry.content.info, entry.content
    excluded = [n for n in ("critic", "actor") if not getattr(info, f"use_for_{n}")]
    human = 100 * content.human_steps / content.steps if content.steps else 0
    words = [
        f"{entry.id:32} {info.kind:13} {info.stage or '-':10} {info.outcome or '?':8}",
        f"{content.steps / 25:7.1f} s {human:4.0f} % human",
        info.cause,
        f"[{content.status}]" if content.status != "finished" else "",
        f"pair {info.pair_id}" if info.pair_id else "",
        f"not for {' and '.join(excluded)}" if excluded else "",
    ]
    return "  ".join(word for word in words if word)


def _as_json(entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = {"path": str(entry.path), "status": entry.status}
    if entry.content is None:
        return {**values, "error": entry.error}
    content = entry.content
    values |= {"steps": content.steps, "human_steps": content.human_steps}
    return {**values, **config.to_dict(content.info)}


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episode", help="id, beginning of an id, or directory")
    _root(parser)
    parser.add_argument("--label", default="", metavar="TAG", help="labels to show; default: all")
    parser.add_argument("--width", type=int, default=0, help="columns; default: the terminal's")


def _show(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.show import lines

    for line in lines(find(options), options.label, options.width):
        print(line)
    return 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser, DEFAULT_ROOT)
    parser.add_argument("--picture", type=Path, help="also as .png, .svg or .pdf")


def _report(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.report import picture, report

    figures = report(filtering.choose(options))
    print(figures.text())
    if options.picture:
        picture(figures, options.picture)
        print(f"picture: {options.picture}")
    return 0


# -- annotate, repair ------------------------------------------------------------------------------
def _add_annotate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episode", help="id, beginning of an id, or directory")
    _root(parser)
    parser.add_argument("--outcome", choices=("success", "failure", "aborted"))
    parser.add_argument("--cause")
    parser.add_argument("--stage")
    parser.add_argument("--note", help="free text")
    parser.add_argument("--exclude", action="append", default=[], choices=("critic", "actor"))
    parser.add_argument("--include", action="append", default=[], choices=("critic", "actor"))
    parser.add_argument(
        "--stage-from", action="append", default=[], metavar="SECONDS=NAME",
        help="a stage begins; seconds from the first control step",
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


def _annotate(options: argparse.Namespace) -> int:
    entry = find(options)
    common = {"author": options.author, "expected_revision": options.revision}
    if options.revert is not None:
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
        start = _first_step(entry)
        if options.stage_from:
            parts = [item.partition("=") for item in options.stage_from]
            pairs = [(start + _ns(s, "--stage-from"), name) for s, _, name in parts]
            changes["stages"] = sorted(pairs)
        if options.intervention:
            items = [] if options.intervention == ["none"] else options.intervention
            segments = [item.partition(":") for item in items]
            changes["interventions"] = sorted(
                (start + _ns(a, "--intervention"), start + _ns(b, "--intervention"))
                for a, _, b in segments
            )
    return changes


def _ns(seconds: str, option: str) -> int:
    try:
        return round(float(seconds) * 1e9)
    except (ValueError, OverflowError):
        raise EpisodeError(f"{option}: {seconds!r} is no number of seconds") from None


def _first_step(entry: Entry) -> int:
    from dexpie_ros.episodes.reader import read_episode

    return int(read_episode(entry.path).time_ns[0])


def _add_repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", type=Path, help=f"episodes or roots ({DEFAULT_ROOT})")


def _repair(options: argparse.Namespace) -> int:
    failed = 0
    for root in options.paths or [Path(DEFAULT_ROOT)]:
        for entry in Collection(root):
            if entry.status in ("finished", "aborted", "repaired"):
                continue
            try:
                done = repair(entry.path)
                print(f"{entry.path}: {done.message}")
            except EpisodeError as error:
                failed += 1
                print(f"not repaired: {error}", file=sys.stderr)
    return 1 if failed else 0


# -- export, import, replay ------------------------------------------------------------------------
def _add_export(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser, DEFAULT_ROOT)
    parser.add_argument("--format", required=True, choices=("lerobot", "robomimic"))
    parser.add_argument("--output", required=True, type=Path, help="new directory or .hdf5 file")
    parser.add_argument(
        "--whole", action="store_true", help="leave out episodes with steps that were lost"
    )


def _export(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.formats.lerobot_out import export_lerobot
    from dexpie_ros.episodes.formats.robomimic import export_robomimic

    episodes = filtering.choose(options).read()
    if options.whole:
        episodes = [e for e in episodes if not e.partial and not e.flags.any()]
    if options.format == "lerobot":
        path = export_lerobot(episodes, options.output)
    else:
        path = export_robomimic(episodes, options.output)
    print(f"{path}: {len(episodes)} episodes")
    return 0


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path)
    parser.add_argument("--format", required=True, choices=("lerobot", "authors"))
    parser.add_argument("--output", type=Path, default=Path(DEFAULT_ROOT))
    parser.add_argument("--kind", choices=KINDS, default="demonstration", help="authors only")
    parser.add_argument("--task", default="", help="authors only")
    parser.add_argument(
        "--rate", type=float, default=30.0, help="authors' data without times, in Hz"
    )
    parser.add_argument(
        "--driver",
        choices=("human", "policy"),
        default="",
        help="where no intervention is recorded",
    )
    parser.add_argument("--bgr", action="store_true", help="the authors' pictures are BGR")


def _import(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.formats.authors import import_authors
    from dexpie_ros.episodes.formats.lerobot_in import import_lerobot

    if options.format == "lerobot":
        paths = import_lerobot(options.source, options.output)
    else:
        paths = import_authors(
            options.source, options.output, kind=options.kind, task=options.task,
            rate_hz=options.rate, driver=options.driver, bgr=options.bgr,
        )  # fmt: skip
    print(f"{len(paths)} episodes imported below {options.output}")
    return 0


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episode", help="id, beginning of an id, or directory")
    _root(parser)
    parser.add_argument("--rate", type=float, default=1.0, help="2: twice as fast")
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--topic", action="append", default=[], help="only these")
    parser.add_argument(
        "--print", action="store_true", dest="echo", help="name the messages here, publish nothing"
    )
    parser.add_argument("--prefix", default="", help="before the topics' names, e.g. /replay")
    parser.add_argument("--clock", action="store_true", help="also /clock, with the recorded time")
    parser.add_argument("--paused", action="store_true", help="stand still at first (space: go on)")
    parser.add_argument(
        "--execute", action="store_true",
        help="send the recorded commands to the robot, through the arbiter and its limits",
    )  # fmt: skip
    parser.add_argument(
        "--outcome", choices=("success", "failure", "aborted"), default="",
        help="with --execute: of the new episode; without it somebody judges it as always",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="with --execute: do not ask first")


def player_of(options: argparse.Namespace) -> Replay:
    """The player that the options of ``replay`` ask for."""
    from dexpie_ros.episodes.replay import Replay

    return Replay(
        find(options).path, topics=options.topic, rate=options.rate, loop=options.loop,
        start_s=options.start,
    )  # fmt: skip


def echo(options: argparse.Namespace) -> int:
    """``replay`` without ROS: the recorded messages are named in their time."""
    if options.execute:
        raise EpisodeError("--execute needs the ROS graph; start one with `dexpie launch`")
    player = player_of(options)

    def name(message: Recorded) -> None:
        at = (message.log_time_ns - player.start_ns) / 1e9
        print(
            f"{at:10.3f} s  {message.topic}  {message.type}  {len(message.cdr)} bytes", flush=True
        )

    player.run(name)
    return 0


def _root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="where episodes lie")


def find(options: argparse.Namespace) -> Entry:
    """By directory, or by id below ``--root``."""
    path = Path(options.episode)
    if path.is_dir():
        return Collection(path).find(str(path)) if len(Collection(path)) else _no_episode(path)
    return Collection(options.root).find(options.episode)


def _no_episode(path: Path) -> Entry:
    raise EpisodeError(f"{path}: not an episode; see `dexpie episodes list {path.parent}`")
