"""`dexpie episodes replay`: its options, and the player that names messages on the terminal."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.filtering import add_root, find

if TYPE_CHECKING:
    from dexpie_ros.episodes.replay import Recorded, Replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("episode", help="id, beginning of an id, or directory")
    add_root(parser)
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


_USUAL = {
    "execute": False, "outcome": "", "yes": False, "prefix": "", "clock": False, "paused": False,
    "rate": 1.0, "loop": False, "start": 0.0, "topic": [],
}  # fmt: skip


def refuse_idle(options: argparse.Namespace) -> None:
    """EpisodeError for an option that would do nothing beside the others."""
    names: tuple[str, ...]
    if options.echo:
        names = ("execute", "outcome", "yes", "prefix", "clock", "paused")
        why = "does not go with --print: nothing is published"
    elif options.execute:
        names = ("rate", "loop", "start", "topic", "prefix", "clock", "paused")
        why = "does not go with --execute: commands go as recorded"
    else:
        names, why = ("outcome", "yes"), "goes with --execute only"
    for name in names:
        if getattr(options, name) != _USUAL[name]:
            raise EpisodeError(f"--{name} {why}")


def player_of(options: argparse.Namespace) -> Replay:
    """The player that the options of ``replay`` ask for."""
    from dexpie_ros.episodes.replay import Replay

    return Replay(
        find(options).path, topics=options.topic, rate=options.rate, loop=options.loop,
        start_s=options.start,
    )  # fmt: skip


def echo(options: argparse.Namespace) -> int:
    """``replay`` without ROS: the recorded messages are named in their time."""
    refuse_idle(options)
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
