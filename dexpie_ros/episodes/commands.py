"""`dexpie episodes ...`: list, show, report, annotate, repair, export, import, replay.

:func:`add_parser` hangs them into an argument parser; every command is a function from parsed
options to an exit status. Mistakes are EpisodeErrors, which the caller prints as one line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dexpie_ros import config
from dexpie_ros.episodes import annotate_command, filtering, repair_command, replay_command
from dexpie_ros.episodes.collection import Entry
from dexpie_ros.episodes.episode import KINDS, EpisodeError
from dexpie_ros.episodes.filtering import DEFAULT_ROOT

Command = Callable[[argparse.Namespace], int]


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
        (
            "annotate",
            annotate_command.add_arguments,
            annotate_command.run,
            "outcome, cause, stages, segments, exclusions",
        ),
        (
            "repair",
            repair_command.add_arguments,
            repair_command.run,
            "make recordings whole that were cut off",
        ),
        ("export", _add_export, _export, "to LeRobotDataset v3 or robomimic HDF5"),
        ("import", _add_import, _import, "from LeRobotDataset v3 or the paper's authors"),
        (
            "replay",
            replay_command.add_arguments,
            play or replay_command.echo,
            "play an episode back in time",
        ),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add(action)
        action.set_defaults(run=run)


# -- list, show, report ----------------------------------------------------------------------------
def _add_list(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser)
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
    filtering.add_root(parser)
    filtering.add_align(parser)
    parser.add_argument(
        "--labels", "--label", default="", metavar="TAG", help="labels to show; default: all"
    )
    parser.add_argument("--width", type=int, default=0, help="columns; default: the terminal's")


def _show(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.show import lines

    align = filtering.alignment(options)
    for line in lines(filtering.find(options), options.labels, options.width, align):
        print(line)
    return 0


def _add_report(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser)
    parser.add_argument("--picture", type=Path, help="also as .png, .svg or .pdf")


def _report(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.report import picture, report

    figures = report(filtering.choose(options))
    print(figures.text())
    if options.picture:
        picture(figures, options.picture)
        print(f"picture: {options.picture}")
    return 0


# -- export, import ------------------------------------------------------------------------------
def _add_export(parser: argparse.ArgumentParser) -> None:
    filtering.add_arguments(parser)
    parser.add_argument("--format", required=True, choices=("lerobot", "robomimic"))
    parser.add_argument("--output", required=True, type=Path, help="new directory or .hdf5 file")
    filtering.add_align(parser)
    parser.add_argument(
        "--whole", action="store_true", help="leave out episodes with steps that were lost"
    )


def _export(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.formats.lerobot_out import export_lerobot
    from dexpie_ros.episodes.formats.robomimic import export_robomimic

    episodes = filtering.choose(options).read(filtering.alignment(options))
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
    parser.add_argument("--kind", choices=KINDS, help="authors only (demonstration)")
    parser.add_argument("--task", help="authors only")
    parser.add_argument("--rate", type=float, help="of the authors' data without times, in Hz (30)")
    parser.add_argument(
        "--driver",
        choices=("human", "policy"),
        help="who drove, where no intervention is recorded",
    )
    parser.add_argument("--bgr", action="store_true", help="the authors' pictures are BGR")


def _import(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.formats.authors import import_authors
    from dexpie_ros.episodes.formats.lerobot_in import import_lerobot

    if options.format == "lerobot":
        for name in ("kind", "task", "rate", "bgr"):
            if getattr(options, name):
                raise EpisodeError(
                    f"--{name} goes with --format authors only; a LeRobotDataset says it"
                )
        paths = import_lerobot(options.source, options.output, options.driver or "")
    else:
        paths = import_authors(
            options.source, options.output, kind=options.kind or "demonstration",
            task=options.task or "", rate_hz=30.0 if options.rate is None else options.rate,
            driver=options.driver or "", bgr=options.bgr,
        )  # fmt: skip
    print(f"{len(paths)} episodes imported below {options.output}")
    return 0
