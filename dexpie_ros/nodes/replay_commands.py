"""`dexpie episodes replay`: on the terminal, on the graph, or through the arbiter to the robot."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.filtering import find
from dexpie_ros.episodes.replay import Replay
from dexpie_ros.episodes.replay_command import echo, player_of, refuse_idle
from dexpie_ros.security import enclave_environment

if TYPE_CHECKING:
    from dexpie_ros.nodes.replay import GraphReplay
    from dexpie_ros.nodes.replay_execute import GraphExecution

SEEK_S = 5.0
KEYS = "space pause   , . 5 s back, on   - + slower, faster   0 from the start   q quit"


def play(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 where a recording that drove was stopped before its end."""
    if options.echo:
        return echo(options)
    refuse_idle(options)
    try:
        import rclpy  # noqa: F401
    except ImportError:
        raise EpisodeError(
            "replay needs ROS 2 (source it, or `make setup`); --print names the messages without it"
        ) from None
    for name, value in enclave_environment("replay").items():
        os.environ.setdefault(name, value)  # with SROS 2 on: what a replay may do
    return _execute(options) if options.execute else _publish(options)


# -- topics on the graph ---------------------------------------------------------------------------
def press(player: Replay, key: str) -> None:
    """What a key does to a player."""
    if key == " ":
        player.pause(not player.paused)
    elif key in ",.":
        player.seek(player.position_s + (SEEK_S if key == "." else -SEEK_S))
    elif key in "+-":
        player.rate = min(100.0, max(0.1, player.rate * (2.0 if key == "+" else 0.5)))
    elif key == "0":
        player.seek(0.0)
    elif key in "q\x03\x1b":
        player.stop()


def status(player: Replay, width: int = 40) -> str:
    """Where a player is, as a bar."""
    position = min(player.position_s, player.duration_s)
    share = position / player.duration_s if player.duration_s else 1.0
    bar = "=" * round(share * width)
    state = "paused" if player.paused else f"{player.rate:g} x"
    return f"[{bar:{width}}] {position:7.2f} of {player.duration_s:.2f} s  {state}"


def _publish(options: argparse.Namespace) -> int:
    from dexpie_ros.nodes.replay import GraphReplay

    keys = sys.stdin.isatty() and sys.stdout.isatty()
    if options.paused and not keys:
        raise EpisodeError("--paused: nobody could let it go on, this is no terminal")
    player = player_of(options)
    player.pause(options.paused)
    with GraphReplay(player, prefix=options.prefix, clock=options.clock) as replay:
        for topic, kind in replay.left_out.items():
            print(f"left out: {topic}, its type {kind} is not installed here", file=sys.stderr)
        count = _with_keys(replay) if keys else replay.run()
    print(f"{count} messages")
    return 0


def _with_keys(replay: GraphReplay) -> int:
    from dexpie_ros.control.terminal_keys import KeyParser
    from dexpie_ros.nodes.terminal import Terminal

    terminal, keys = Terminal(), KeyParser()
    drawn = 0.0

    def tend() -> None:
        nonlocal drawn
        typed, now = terminal.read(), time.monotonic()
        parsed = keys.feed(typed, time.monotonic_ns()) if typed else keys.idle(time.monotonic_ns())
        for key in parsed:
            press(replay.player, key)
        if now - drawn > 0.1 or parsed:
            drawn = now
            terminal.draw([status(replay.player), "", KEYS])

    try:
        return replay.run(tend)
    finally:
        terminal.close()


# -- through the arbiter ---------------------------------------------------------------------------
def _execute(options: argparse.Namespace) -> int:
    from rclpy.signals import uninstall_signal_handlers

    from dexpie_ros.episodes.reader import read_episode
    from dexpie_ros.nodes.replay_execute import GraphExecution
    from dexpie_ros.nodes.session_client import SessionClient

    entry = find(options)
    episode = read_episode(entry.path)
    if episode.partial:
        raise EpisodeError(f"{entry.path}: is partial; only a whole recording is executed")
    with SessionClient("replay") as client:
        uninstall_signal_handlers()  # Ctrl-C must leave the means to end the episode
        run = GraphExecution(client, episode)
        run.require_graph()
        length = len(run.execution) / 25
        print(
            f"{episode.id}: {length:.1f} s of recorded commands, after a slow approach", flush=True
        )
        if not run.simulated and not options.yes and not _confirmed():
            print("not executed")
            return 1
        name = run.start()
        told = _Teller()
        try:
            done = run.run(options.outcome, told.tell)
        except KeyboardInterrupt:
            run.abort("replay interrupted")
            print(f"interrupted: {name} ended as aborted", file=sys.stderr)
            return 130
    words = f"{done.steps} of {done.of} commands executed, at most {done.deviation} off"
    if done.stopped:
        words += f"; ended because {done.stopped}"
    if done.outcome:
        words += f"; outcome {done.outcome} (recorded: {episode.outcome or 'not judged'})"
    print(f"{words}; {done.directory or 'nothing was recorded'}")
    whole = done.steps == done.of or done.outcome == episode.outcome != ""
    return 0 if whole and not done.stopped else 1


def _confirmed() -> bool:
    """A real arm moves only after somebody said so."""
    if not sys.stdin.isatty():
        raise EpisodeError("this moves the arm: say --yes, or start it from a terminal")
    answer = input("The ARM WILL MOVE to where the recording begins. Is its way free? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


class _Teller:
    """Says once that the motion is over, or that it was stopped, and that a verdict is due."""

    def __init__(self) -> None:
        self._told = False

    def tell(self, run: GraphExecution) -> None:
        if self._told or not (run.execution.done or run.stopped):
            return
        self._told = True
        why = run.stopped or "every command was executed; the robot holds"
        print(
            f"{why}. The episode ends when it is judged (keyboard, page), Ctrl-C aborts it",
            flush=True,
        )
