"""`dexpie experiment ladder|async|staged|collision|vision`.

:func:`add_experiment` hangs them into an argument parser. What takes long to import is imported by
the command that needs it.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config as configs
from dexpie_ros.command_line import add_set
from dexpie_ros.evaluation.commands import progress_line
from dexpie_ros.graph import task_letter

if TYPE_CHECKING:
    from dexpie_ros.critic.settings import CriticConfig
    from dexpie_ros.evaluation.experiments.jobs import Status
    from dexpie_ros.evaluation.experiments.settings import ExperimentConfig
    from dexpie_ros.evaluation.experiments.vision import VisionConfig

GOES_ON = "the same command goes on from here"
EXPERIMENTS = {
    "ladder": ("every recipe on every task", "A,B,C", "retry,terminal"),
    "async": ("data collected with asynchronous against synchronous inference", "B", "retry"),
    "staged": ("staged against standard DAgger", "C", "retry"),
}
"""Name -> what it is, its tasks, its regimes."""
COST = (
    "On two cores the ladder takes about an hour for each seed of three tasks in one regime at 100 "
    "trials, so that without options, 12 seeds of both regimes at 200, it takes more than a day; "
    "async takes ten minutes a seed, staged twenty (docs/results.md). Ctrl-C keeps all jobs that "
    "are finished; the same command, or one with more seeds, trials or tasks, goes on from there."
)


def add_experiment(groups: Any) -> None:
    """Add the group ``experiment``."""
    parser = groups.add_parser("experiment", help="put the paper's claims to the test")
    actions = parser.add_subparsers(dest="action", required=True, metavar="EXPERIMENT")
    for name, (text, tasks, regimes) in EXPERIMENTS.items():
        action = actions.add_parser(
            name, help=text, description=f"{text[:1].upper()}{text[1:]}. {COST}"
        )
        action.add_argument(
            "--tasks", default="", help=f"with commas, A or bottle ...; default: {tasks}"
        )
        action.add_argument(
            "--regimes", default="",
            help=f"what a mistake does: retry (costs time), terminal (ends the episode); default: {regimes}",
        )  # fmt: skip
        action.add_argument("--seeds", type=int, default=None, help="training seeds; default: 12")
        action.add_argument(
            "--trials", type=int, default=None, help="held-out starts per policy; default: 200"
        )
        action.add_argument("--rounds", type=int, default=None, help="of collection; default: 1")
        action.add_argument(
            "--encoder", choices=("state",), default="state",
            help="what policies see: state (the simulator's object poses), the only one there; "
            "images: `dexpie experiment vision`",
        )  # fmt: skip
        action.add_argument("--workers", type=int, default=0, help="default: one per core")
        action.add_argument("--output", type=Path, default=None, help="default: outputs/<name>")
        action.add_argument("--config", type=Path, default=None, help="YAML with settings")
        action.add_argument(
            "--report-only", action="store_true", help="write the report from what is there"
        )
        action.add_argument(
            "--add", type=Path, action="append", default=[], metavar="FILE",
            help="trials.json of more seeds, for the report",
        )  # fmt: skip
        add_set(action, partial(_experiment_settings, name), after="--config")
        action.set_defaults(run=_experiment, interrupted=GOES_ON)
    collision = actions.add_parser("collision", help="a failure that the images cannot explain")
    collision.add_argument("--episodes", type=int, default=80, help="to record")
    collision.add_argument("--plate", type=float, default=0.35, help="share of episodes with one")
    collision.add_argument(
        "--output", type=Path, default=Path("outputs/collision"), help="episodes and report"
    )
    add_set(collision, _collision_settings, "a setting of the critics")
    collision.set_defaults(
        run=_collision,
        interrupted="episodes are kept; the same command trains the three critics anew",
    )
    vision = actions.add_parser("vision", help="a policy that sees images, beside two that do not")
    vision.add_argument(
        "--output", type=Path, default=Path("outputs/vision"), help="episodes, policies, figures"
    )
    add_set(vision, _vision_settings)
    vision.set_defaults(run=_vision, interrupted=GOES_ON)


def _experiment_settings(name: str, options: argparse.Namespace) -> ExperimentConfig:
    """With ``--config``, before the other options."""
    from dexpie_ros.evaluation.experiments import settings

    make: dict[str, Callable[..., ExperimentConfig]] = {
        "ladder": settings.ladder,
        "async": settings.async_against_sync,
        "staged": settings.staged_against_standard,
    }
    return configs.overridden(make[name](), (), f"experiment {name}", options.config)


def _collision_settings(_options: argparse.Namespace) -> CriticConfig:
    from dexpie_ros.evaluation.experiments.collision import critic_settings

    return critic_settings()


def _vision_settings(_options: argparse.Namespace) -> VisionConfig:
    from dexpie_ros.evaluation.experiments.vision import VisionConfig

    return VisionConfig()


def _experiment(options: argparse.Namespace) -> int:
    from dexpie_ros.evaluation.experiments.folder import check
    from dexpie_ros.evaluation.experiments.jobs import run_experiment
    from dexpie_ros.evaluation.experiments.page import write_page
    from dexpie_ros.evaluation.experiments.trials_file import read_trials

    if options.tasks:
        letters = [task_letter(name.strip(), "--tasks ") for name in options.tasks.split(",")]
        options.tasks = ",".join(letters)
    words = [f"{n}=[{getattr(options, n)}]" for n in ("tasks", "regimes") if getattr(options, n)]
    for name in ("seeds", "trials", "rounds"):
        if getattr(options, name) is not None:
            words.append(f"{name}={getattr(options, name)}")
    where = f"experiment {options.action}"
    config = configs.overridden(
        _experiment_settings(options.action, options), [*words, *options.set], where
    )
    folder = options.output or Path("outputs") / options.action
    added = read_trials(config, options.add)  # an error now, not after hours of work
    if options.report_only:
        check(config, folder)
    else:
        print(_announcement(options.action, config, folder), file=sys.stderr)
    command = _command(options)
    failed: tuple[str, ...] = ()
    refused = False
    # a batch system ends jobs by TERM: the workers must not go on without the one who leads them
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not options.report_only:
            with progress_line() as say:
                failed = run_experiment(
                    config, folder, options.workers, lambda status: say(_status(status))
                )
    except configs.ConfigError:
        refused = True  # the folder is another experiment's: its page stays what it is
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if not refused:
            date = datetime.now(timezone.utc).isoformat(timespec="minutes")
            print(write_page(config, folder, command, date, failed, added))
    for name in failed:
        print(f"failed: {name}; see its log.txt and the messages above", file=sys.stderr)
    return 1 if failed else 0


def _collision(options: argparse.Namespace) -> int:
    import torch

    from dexpie_ros.evaluation.experiments.collision import run_collision, write_page

    torch.set_num_threads(1)
    config = configs.overridden(_collision_settings(options), options.set, "critic preset best")
    result = run_collision(options.output, options.episodes, options.plate, config)
    command = f"dexpie experiment collision --episodes {options.episodes} --plate {options.plate:g}"
    date = datetime.now(timezone.utc).isoformat(timespec="minutes")
    print(write_page(options.output, result, command, date))
    return 0


def _vision(options: argparse.Namespace) -> int:
    import json

    import torch

    from dexpie_ros.evaluation.experiments.vision import run_vision

    torch.set_num_threads(1)
    config = configs.overridden(_vision_settings(options), options.set, "experiment vision")
    with progress_line() as say:
        content = run_vision(config, options.output, say)
    for name, figures in content["policies"].items():
        low, high = figures["interval"]
        print(
            f"{name:8} {figures['successes']}/{figures['n']} within {config.limit_s:g} s "
            f"({100 * low:.1f} .. {100 * high:.1f} %), trained in {figures['train_s']:.0f} s"
        )
    print(json.dumps({"experiment": "vision", "figures": content["policies"]}))
    return 0


def _command(options: argparse.Namespace) -> str:
    words = ["dexpie", "experiment", options.action]
    for name in ("config", "tasks", "regimes", "seeds", "trials", "rounds"):
        if getattr(options, name) not in (None, ""):
            words += [f"--{name}", str(getattr(options, name))]
    for override in options.set:
        words += ["--set", override]
    for path in options.add:
        words += ["--add", str(path)]
    return shlex.join(words)


def _announcement(name: str, config: ExperimentConfig, folder: Path) -> str:
    """How much was asked for: the bare command is a day of work."""
    from dexpie_ros.evaluation.experiments.jobs import all_jobs

    first = EXPERIMENTS[name][1][0]
    return (
        f"experiment {name}: {len(config.units())} units ({config.seeds} seeds of "
        f"{', '.join(dict.fromkeys(unit.cell for unit in config.units()))}), "
        f"{len(all_jobs(config))} jobs, {config.trials} trials a policy; results in {folder}. "
        "Ctrl-C keeps what is finished, the same command goes on from there. A smaller one: "
        f"dexpie experiment {name} --tasks {first} --regimes retry --seeds 1 --trials 100"
    )


def _status(status: Status) -> str:
    left = status.remaining_s
    when = "" if left != left else f", {left / 60:.0f} min left"
    running = ", ".join(status.running)
    bad = f", {len(status.failed)} failed" if status.failed else ""
    return f"{status.done}/{status.total} jobs{when}{bad}: {running}"
