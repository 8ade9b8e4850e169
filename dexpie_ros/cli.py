"""`dexpie ...`: one command for everything that is not a ROS node.

Each group of commands lives with its room; here they are only put together. A user's mistake
(a bad option, a missing file, a config with an unknown key) is one line on stderr and status 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import __version__, bench, security
from dexpie_ros.command_line import Parser, add_set
from dexpie_ros.config import ConfigError, overridden, provenance
from dexpie_ros.devices import commands as devices_commands
from dexpie_ros.emulators.commands import add_parser as _add_emulate
from dexpie_ros.episodes import commands as episodes_commands
from dexpie_ros.evaluation.commands import add_critic, add_critic_training, add_label
from dexpie_ros.evaluation.experiment_commands import add_experiment
from dexpie_ros.graph import task_letter
from dexpie_ros.nodes import replay_commands
from dexpie_ros.nodes.glove_listener import glove_of
from dexpie_ros.nodes.jog import add_parser as _add_jog
from dexpie_ros.nodes.monitor import add_parser as _add_monitor
from dexpie_ros.nodes.trial_commands import add_parser as _add_trials
from dexpie_ros.training.commands import add_actor
from dexpie_ros.training.retarget_commands import add_retarget
from dexpie_ros.web import commands as web_commands

if TYPE_CHECKING:
    from dexpie_ros.demo.settings import DemoConfig

Command = Callable[[argparse.Namespace], int]

_LONG = ("bench", "demo", "experiment", "train")

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = Parser(prog="dexpie", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"dexpie_ros {__version__}")
    groups = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _GROUPS:
        add(groups)
    options = argparse.Namespace()
    try:
        options = parser.parse_args(arguments)
        command: Command = options.run
        if options.command in _LONG:
            provenance()  # of the code as it is now, not when the run ends
        return command(options)
    except KeyboardInterrupt:
        print(f"interrupted{_then(options)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough; nor shall Python complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (ValueError, FileNotFoundError, FileExistsError, PermissionError) as error:
        # ConfigError, EpisodeError, PolicyError and their like are ValueErrors that say what to do.
        if not isinstance(error, ConfigError) and not _is_ours(error):
            raise
        print(f"dexpie: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except RuntimeError as error:
        if not _is_ours(error):
            raise
        print(f"dexpie: error: {error}", file=sys.stderr)
        return EXIT_FAILED


def _then(options: argparse.Namespace) -> str:
    """What to do after Ctrl-C, where a command's ``interrupted`` says something."""
    said: str = getattr(options, "interrupted", "")
    if said and getattr(options, "fresh", False):
        said = said.replace("the same command", "the same command without --fresh")
    return f"; {said}" if said else ""


def _is_ours(error: Exception) -> bool:
    """Errors that were written for the person at the keyboard, not Python's own."""
    return isinstance(error, OSError) or type(error).__module__.startswith("dexpie_ros")


def _add_demo(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser(
        "demo", help="the whole loop in simulation, from nothing to a report"
    )
    parser.add_argument("--quick", action="store_true", help="the same path in about three minutes")
    parser.add_argument(
        "--fresh", action="store_true",
        help="delete the demo run in --output, all of its folder, and start over",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=None, metavar="DIR",
        help="new, empty, or a demo run's to go on with; default: outputs/demo, of --quick "
        "outputs/demo-quick",
    )  # fmt: skip
    add_set(parser, _demo_settings, after="--quick")
    parser.set_defaults(run=_run_demo, interrupted="the same command goes on from here")


def _demo_settings(options: argparse.Namespace) -> DemoConfig:
    from dexpie_ros.demo.settings import DemoConfig, quick

    return quick() if options.quick else DemoConfig()


def _run_demo(options: argparse.Namespace) -> int:
    settings = overridden(_demo_settings(options), options.set, "demo settings")
    from dexpie_ros.demo.run import run_demo

    folder = options.output or Path("outputs") / ("demo-quick" if options.quick else "demo")
    command = " ".join(["dexpie demo", *(["--quick"] if options.quick else []),
                        *(f"--set {s}" for s in options.set)])  # fmt: skip
    run_demo(settings, folder, options.fresh, command)
    return EXIT_OK


def _add_launch(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser(
        "launch", help="start a stack without `ros2 launch`",
        description="Start a stack, in simulation unless sim:=false; Ctrl-C ends it.",
    )  # fmt: skip
    parser.add_argument(
        "stack", metavar="{collect,deploy}",  # the stack's own error says what was meant
        help="collect: robot or simulation, teleoperation and recorder, to record demonstrations; "
        "deploy: the same with a policy that drives and can be taken over from (policy:=DIR)",
    )  # fmt: skip
    parser.add_argument(
        "arguments", nargs="*", metavar="name:=value",
        help="for instance sim:=false task:=bottle; --show-args lists all",
    )  # fmt: skip
    parser.add_argument(
        "--show-args", action="store_true",
        help="list all arguments of the stack with their defaults: dexpie launch collect --show-args",
    )  # fmt: skip
    parser.set_defaults(run=_run_launch)


def _run_launch(options: argparse.Namespace) -> int:
    from dexpie_ros.graph import STACKS, parse_arguments, stack
    from dexpie_ros.graph_robot import uncalibrated
    from dexpie_ros.supervisor import run

    if options.show_args and options.stack in STACKS:
        for name, argument in STACKS[options.stack].items():
            text = str(argument.default)
            default = text.lower() if isinstance(argument.default, bool) else text
            one_of = f" ({'|'.join(argument.choices)})" if argument.choices else ""
            print(f"{name}:={default}\t{argument.help}{one_of}")
        return EXIT_OK
    specs = stack(options.stack, **parse_arguments(options.arguments))
    if warning := uncalibrated(specs):
        print(f"dexpie: warning: {warning}", file=sys.stderr)
    return run(specs)


def _add_calibrate(groups: argparse._SubParsersAction) -> None:
    devices_commands.add_parser(groups, glove_of=glove_of)


def _add_doctor(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser("doctor", help="what is there, what is missing, what mends it")
    parser.add_argument("--hardware", action="store_true", help="look at the configured devices")
    parser.add_argument(
        "--parameters",
        type=Path,
        default=None,
        help="with --hardware: ROS parameter file of their addresses",
    )
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    if options.hardware:
        from dexpie_ros.doctor_hardware import run_hardware

        return run_hardware(options.parameters, glove_of=glove_of)
    if options.parameters is not None:
        raise ConfigError(
            f"--parameters {options.parameters}: belongs to --hardware, which looks at the devices "
            "that the file names; without it nothing would read the file"
        )
    from dexpie_ros import doctor

    return doctor.run()


def _add_evaluate(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser("evaluate", help="a policy on held-out starts, in lockstep")
    parser.add_argument("policy", type=Path, help="directory of a policy; on a panel also: expert")
    parser.add_argument(
        "--demo", type=Path, default=None, help="take laboratory and starts of a demo run"
    )
    parser.add_argument(
        "--trials", type=int, default=None,
        help="held-out starts; default: 150 or as many as the demo run has, of a panel 20",
    )  # fmt: skip
    parser.add_argument(
        "--first-start", "--first-seed", dest="first_seed", type=int, default=None, metavar="SEED",
        help="seed of the first start, the others follow; default: 900000, held out",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--output", type=Path, default=None, help="write the rollouts as JSON")
    parser.add_argument(
        "--panel", action="store_true",
        help="the task's evaluation panel: held-out objects, slip, drop, pose error; phase gate",
    )  # fmt: skip
    parser.add_argument(
        "--task", type=_task, default=None, metavar="{A,B,C}",
        help="or bottle, drawer, box: as the experiments evaluate it; without: A as in the demo, 14 s",
    )  # fmt: skip
    parser.add_argument(
        "--regime", choices=("retry", "terminal"), default=None, help="of --task; default: retry"
    )
    parser.add_argument(
        "--before", type=Path, default=None, help="an earlier policy's result of the same panel"
    )
    add_set(parser, _inference, "of the inference, else as it was saved", "the policy")
    parser.set_defaults(run=_run_evaluate)


def _task(name: str) -> str:
    try:
        return task_letter(name, "")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _inference(options: argparse.Namespace) -> Any:
    from dexpie_ros.policy.policy import Policy
    from dexpie_ros.policy.settings import InferenceSettings

    if options.policy is None:
        return InferenceSettings()
    return Policy.load(options.policy).config.inference


def _run_evaluate(options: argparse.Namespace) -> int:
    if options.panel or options.before:
        if options.set:
            raise ConfigError("--set does not go with --panel, which takes policies as they are")
        return _run_panel(options)
    if (options.task and options.demo) or (options.regime and not options.task):
        raise ConfigError(
            "--regime belongs to --task A|B|C, and neither goes with --demo, whose run says what "
            "is simulated"
        )
    from dexpie_ros.demo.evaluate_policy import evaluate_policy

    cell: Any = (options.task, options.regime or "retry") if options.task else None
    evaluate_policy(
        options.policy, options.demo, options.trials, options.first_seed, options.workers,
        options.output, cell, options.set,
    )  # fmt: skip
    return EXIT_OK


def _run_panel(options: argparse.Namespace) -> int:
    if not options.panel or options.task is None or options.demo or options.first_seed is not None:
        raise ConfigError(
            "--panel, --task A|B|C and --before belong together; the panel has its own laboratory "
            "and starts, so --demo and --first-start do not go with it"
        )
    from rich.console import Console

    from dexpie_ros.evaluation.panel_run import run_panel, show

    trials = 20 if options.trials is None else options.trials
    if trials < 1:
        raise ConfigError(f"--trials {trials}: expected at least 1")
    regime: Any = options.regime or "retry"
    words = ["dexpie evaluate", str(options.policy), "--panel", "--task", options.task]
    words += ["--regime", regime, "--trials", str(trials)]
    words += ["--before", str(options.before)] if options.before is not None else []
    run = run_panel(
        options.policy, options.task, regime, trials, options.workers, options.before,
        options.output, " ".join(words), lambda text: print(text, file=sys.stderr),
    )  # fmt: skip
    show(run, Console())
    return EXIT_OK


def _add_episodes(groups: argparse._SubParsersAction) -> None:
    episodes_commands.add_parser(groups, play=replay_commands.play)


def _add_policy(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser("policy", help="look at trained policies")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what a policy is and was trained on")
    show.add_argument("policy", type=Path)
    show.set_defaults(run=_run_policy_show)


def _run_policy_show(options: argparse.Namespace) -> int:
    from dexpie_ros.policy.policy import Policy

    policy = Policy.load(options.policy)
    print(f"policy {policy.policy_id} in {options.policy}\n")
    print((options.policy / "card.md").read_text(encoding="utf-8"))
    return EXIT_OK


def _add_train(groups: argparse._SubParsersAction) -> None:
    parser = groups.add_parser("train", help="train an actor or a critic from episodes")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_actor(actions)
    add_retarget(actions)
    add_critic_training(actions, "critic")


_GROUPS = (
    _add_demo,
    _add_launch,
    _add_doctor,
    _add_monitor,
    _add_jog,
    security.add_parser,
    _add_calibrate,
    _add_emulate,
    _add_episodes,
    _add_train,
    add_critic,
    add_label,
    _add_evaluate,
    _add_trials,
    add_experiment,
    _add_policy,
    web_commands.add_parser,
    bench.add_parser,
)

if __name__ == "__main__":
    sys.exit(main())
