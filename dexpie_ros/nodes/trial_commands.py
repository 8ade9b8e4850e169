"""`dexpie trials`: which of several policies is better on this robot."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from dexpie_ros.evaluation.errors import EvaluationError

OUTPUT = Path("outputs/evaluation")


def add_parser(groups: Any) -> None:
    """Add the command ``trials``."""
    parser = groups.add_parser("trials", help="policies in turns on the same starts of a robot")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser(
        "run",
        help="try them, on a running `dexpie launch deploy`",
        description="Tries every policy on every start, in turns; says which start to set up, not "
        "which policy drives. Judge each trial with s or f of dexpie-keyboard (z: it does not "
        "count). The same command goes on where it stopped.",
    )
    run.add_argument("policies", type=Path, nargs="+", metavar="POLICY", help="their directories")
    run.add_argument("--starts", type=int, default=20, help="how many (default: %(default)s)")
    run.add_argument(
        "--first-start", type=int, default=0,
        help="number of the first: of a mark on the table, or a seed of the simulation (default: 0)",
    )  # fmt: skip
    run.add_argument(
        "--limit", type=float, default=60.0,
        help="s after which a trial has failed (default: %(default)g)",
    )  # fmt: skip
    run.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    run.add_argument("--home", action="store_true", help="the robot travels home before each trial")
    run.add_argument("--yes", action="store_true", help="do not ask whether a start is set up")
    run.set_defaults(
        run=_run, interrupted="the trial is aborted; the same command goes on from here"
    )
    report = actions.add_parser("report", help="what came out, with intervals and a paired test")
    report.add_argument("root", type=Path, nargs="?", default=OUTPUT, help="default: %(default)s")
    report.add_argument("--limit", type=float, default=None, help="s; default: that of the trials")
    report.set_defaults(run=_report)


def _run(options: argparse.Namespace) -> int:
    from rclpy.signals import uninstall_signal_handlers

    from dexpie_ros.evaluation.recorded import read_trials
    from dexpie_ros.nodes.session_client import SessionClient
    from dexpie_ros.nodes.trials import Trials, Turns, policies_of

    if options.starts < 1 or options.first_start < 0 or not options.limit > 0:
        raise EvaluationError("--starts and --limit must be positive, --first-start not negative")
    if not options.yes and not sys.stdin.isatty():
        raise EvaluationError(
            "nobody could say that a start is set up; start it from a terminal, or --yes"
        )
    turns = Turns(policies_of(options.policies), options.starts, options.first_start)
    output = options.output.absolute()
    done: set[tuple[int, str]] = set()
    if output.is_dir():
        recorded = read_trials(output)
        if recorded.limits - {options.limit}:
            raise EvaluationError(
                f"{output}: holds trials with a limit of {sorted(recorded.limits)} s; give the same "
                "--limit, or another --output"
            )
        done = {(int(t.start), p) for p, trials in recorded.trials.items() for t in trials}
    with SessionClient("trials") as client:
        uninstall_signal_handlers()  # Ctrl-C must leave the means to end the episode
        client.wait_ready(nodes=["policy_server"])
        trials = Trials(client, output, options.limit, _ready(options.yes), _say, options.home)
        made = trials.run(turns, done)
    left = len(turns.left(done)) - made
    print(f"{made} trials made, {left} left; dexpie trials report {options.output}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _ready(always: bool) -> Any:
    def ask(start: int) -> bool:
        if always:
            return True
        answer = input(f"  objects on start {start}, hand free? enter: go, q: stop here ")
        return answer.strip().lower() != "q"

    return ask


def _report(options: argparse.Namespace) -> int:
    from dexpie_ros.evaluation.recorded import read_trials, report_lines

    recorded = read_trials(options.root)
    if not recorded.trials:
        raise EvaluationError(
            f"{options.root}: no evaluation episode that ended in success or failure; `dexpie trials "
            "run` records some"
        )
    print("\n".join(report_lines(recorded, recorded.limit(options.limit))))
    return 0
