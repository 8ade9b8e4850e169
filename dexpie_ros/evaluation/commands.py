"""`dexpie critic ...`, `dexpie label` and `dexpie experiment ...`.

:func:`add_critic`, :func:`add_label` and :func:`add_experiment` hang them into an argument parser.
What takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config as configs
from dexpie_ros.episodes.filtering import add_align, alignment

if TYPE_CHECKING:
    from dexpie_ros.critic.settings import FeatureConfig
    from dexpie_ros.episodes.align import AlignConfig
    from dexpie_ros.episodes.episode import Episode
    from dexpie_ros.evaluation.experiments.jobs import Status

PRESETS = ("best", "paper", "authors")
EXPERIMENTS = {
    "ladder": "every recipe on every task",
    "async": "data collected with asynchronous against synchronous inference (task B)",
    "staged": "staged against standard DAgger (task C)",
}


def add_critic(groups: Any) -> None:
    """Add the group ``critic``."""
    parser = groups.add_parser("critic", help="train a value critic, judge it, show what it sees")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_critic_training(actions, "train")
    report = actions.add_parser("report", help="do its labels carry anything?")
    report.add_argument("critic", type=Path)
    report.add_argument("episodes", type=Path, nargs="+")
    report.add_argument("--tag", default="best", help="of the labels to judge")
    report.set_defaults(run=_report)
    video = actions.add_parser("video", help="MP4 of an episode with the critic's judgement")
    video.add_argument("episode", type=Path, help="directory of an episode with labels")
    video.add_argument("--tag", default="best")
    video.add_argument("--output", type=Path, default=None, help="default: <episode>/value.mp4")
    video.set_defaults(run=_video)


def add_critic_training(actions: Any, name: str) -> None:
    """Add the training of a critic: `dexpie critic train` and `dexpie train critic` are one."""
    train = actions.add_parser(name, help="train and measure a critic on episodes")
    train.add_argument("episodes", type=Path, nargs="+", help="directories with episodes")
    train.add_argument("--output", type=Path, required=True, help="directory of the critic")
    train.add_argument("--max-steps", type=int, required=True, help="L: longest episode, steps")
    train.add_argument("--preset", choices=PRESETS, default="best")
    train.add_argument("--config", type=Path, default=None, help="YAML on top of the preset")
    add_align(train)
    _add_set(train)
    train.set_defaults(run=_train)


def add_label(groups: Any) -> None:
    """Add the command ``label``."""
    parser = groups.add_parser("label", help="value, advantage and optimality beside every bag")
    parser.add_argument("critic", type=Path, help="directory of a critic")
    parser.add_argument("episodes", type=Path, nargs="+")
    parser.add_argument("--tag", default="best", help="name of these labels")
    parser.add_argument(
        "--preset", choices=PRESETS, default=None, help="default: the critic's own, else best"
    )
    parser.add_argument(
        "--from-tag", default="", help="start from the stored values of these labels: no network"
    )
    _add_set(parser)
    parser.set_defaults(run=_label)


def add_experiment(groups: Any) -> None:
    """Add the group ``experiment``."""
    parser = groups.add_parser("experiment", help="put the paper's claims to the test")
    actions = parser.add_subparsers(dest="action", required=True, metavar="EXPERIMENT")
    for name, text in EXPERIMENTS.items():
        action = actions.add_parser(name, help=text)
        action.add_argument("--tasks", default="", help="for instance A,B,C")
        action.add_argument("--seeds", type=int, default=None, help="training seeds")
        action.add_argument("--trials", type=int, default=None, help="held-out starts per policy")
        action.add_argument("--rounds", type=int, default=None, help="of collection, default 1")
        action.add_argument("--encoder", choices=("state",), default="state")
        action.add_argument("--workers", type=int, default=0, help="default: one per core")
        action.add_argument("--output", type=Path, default=None, help="default: outputs/<name>")
        action.add_argument(
            "--report-only", action="store_true", help="write the report from what is there"
        )
        _add_set(action)
        action.set_defaults(run=_experiment)
    collision = actions.add_parser("collision", help="a failure that the images cannot explain")
    collision.add_argument("--episodes", type=int, default=80)
    collision.add_argument("--plate", type=float, default=0.35, help="share of episodes with one")
    collision.add_argument("--output", type=Path, default=Path("outputs/collision"))
    _add_set(collision)
    collision.set_defaults(run=_collision)
    vision = actions.add_parser("vision", help="a policy that sees images, beside two that do not")
    vision.add_argument("--output", type=Path, default=Path("outputs/vision"))
    _add_set(vision)
    vision.set_defaults(run=_vision)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")


def _read(
    roots: list[Path],
    align: AlignConfig,
    features: FeatureConfig | None = None,
    use_for: str = "critic",
) -> list[Episode]:
    """Episodes to judge; their pictures, where ``features`` want any, from the cache beside them."""
    from dexpie_ros.episodes.cache import Cache, CacheConfig
    from dexpie_ros.episodes.collection import Collection

    found: list[Episode] = []
    for root in roots:
        collection = Collection(root).for_training(use_for)
        if features is None or not features.images:
            found += collection.read(align)
            continue
        settings = CacheConfig(
            align=align, cameras=features.images, image_size=features.encoder.image_size
        )
        found += Cache(root.absolute().parent / "cache", settings).episodes(collection)
    if not found:
        where = ", ".join(str(root) for root in roots)
        raise configs.ConfigError(
            f"{where}: no episodes that ended in success or failure and may be used"
        )
    return found


# -- critic ----------------------------------------------------------------------------------------
def _train(options: argparse.Namespace) -> int:
    import torch

    from dexpie_ros.critic import settings
    from dexpie_ros.critic.train import train_critic

    torch.set_num_threads(1)
    preset = settings.PRESETS[options.preset](options.max_steps)
    if options.align is not None:
        preset = dataclasses.replace(preset, align=alignment(options))
    name = f"critic preset {options.preset}"
    config = configs.overridden(preset, options.set, name, options.config)
    episodes = _read(options.episodes, config.align, config.features)
    with _line() as say:
        critic = train_critic(
            config,
            episodes,
            options.output,
            lambda done, total, text: say(f"{text} {done}/{total}"),
            options.preset,
        )
    held_out = critic.metrics["held_out"]
    print(f"critic {critic.hash} from {len(critic.inputs)} episodes in {options.output}")
    if held_out is not None:
        print(
            f"held-out error {held_out['rmse']['value']:.3f}, "
            f"spread of returns {held_out['return_sd']:.3f}"
        )
    return 0


def _report(options: argparse.Namespace) -> int:
    from dexpie_ros.critic.critic import Critic
    from dexpie_ros.critic.report import critic_report
    from dexpie_ros.episodes.labels import read_labels

    critic = Critic.load(options.critic)
    episodes = _read(options.episodes, critic.settings.align)
    labels = [read_labels(e.path, options.tag, critic.hash, len(e)) for e in episodes]
    print(critic_report(critic, episodes, labels).text())
    return 0


def _label(options: argparse.Namespace) -> int:
    import torch

    from dexpie_ros.critic import label as labelling
    from dexpie_ros.critic.critic import Critic
    from dexpie_ros.episodes.labels import read_labels, write_labels

    torch.set_num_threads(1)
    critic = Critic.load(options.critic)
    name = options.preset or critic.preset or "best"
    preset = labelling.PRESETS[name]()
    config = configs.overridden(preset, options.set, f"label preset {name}")
    features = None if options.from_tag else critic.settings.features
    # Also those that the critic must not learn from: the actor may, and wants a label of each.
    episodes = _read(options.episodes, critic.settings.align, features, use_for="")
    if options.from_tag:
        stored = [read_labels(e.path, options.from_tag, critic.hash, len(e)) for e in episodes]
        labels = labelling.relabel(episodes, stored, config)
    else:
        labels = labelling.label(critic, episodes, config)
    for episode, item in zip(episodes, labels, strict=True):
        write_labels(episode.path, options.tag, item)
    at = labels[0].meta
    print(
        f"{len(labels)} episodes labelled as {options.tag} (preset {name}): "
        f"q_low {at['q_low']:+.4f}, q_high {at['q_high']:+.4f}"
    )
    return 0


def _video(options: argparse.Namespace) -> int:
    from dexpie_ros.episodes.labels import read_labels
    from dexpie_ros.episodes.reader import read_episode
    from dexpie_ros.evaluation.overlay import write_overlay

    episode = read_episode(options.episode)
    labels = read_labels(episode.path, options.tag, steps=len(episode))
    print(write_overlay(options.output or options.episode / "value.mp4", episode, labels))
    return 0


# -- experiments -----------------------------------------------------------------------------------
def _experiment(options: argparse.Namespace) -> int:
    from dexpie_ros.evaluation.experiments import settings
    from dexpie_ros.evaluation.experiments.jobs import run_experiment
    from dexpie_ros.evaluation.experiments.page import write_page

    make: dict[str, Callable[..., Any]] = {
        "ladder": settings.ladder,
        "async": settings.async_against_sync,
        "staged": settings.staged_against_standard,
    }
    changes: dict[str, Any] = {}
    if options.tasks:
        changes["tasks"] = options.tasks.split(",")
    for name in ("seeds", "trials", "rounds"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    config = configs.overridden(make[options.action](**changes), options.set, "experiment")
    folder = options.output or Path("outputs") / options.action
    command = _command(options)
    failed: tuple[str, ...] = ()
    refused = False
    # a batch system ends jobs by TERM: the workers must not go on without the one who leads them
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if not options.report_only:
            with _line() as say:
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
            print(write_page(config, folder, command, date, failed))
    for name in failed:
        print(f"failed: {name}; see its log.txt and the messages above", file=sys.stderr)
    return 1 if failed else 0


def _collision(options: argparse.Namespace) -> int:
    import torch

    from dexpie_ros.critic.settings import best
    from dexpie_ros.evaluation.experiments.collision import run_collision, write_page

    torch.set_num_threads(1)
    config = configs.overridden(best(400), options.set, "critic preset best")
    result = run_collision(options.output, options.episodes, options.plate, config)
    command = f"dexpie experiment collision --episodes {options.episodes} --plate {options.plate:g}"
    date = datetime.now(timezone.utc).isoformat(timespec="minutes")
    print(write_page(options.output, result, command, date))
    return 0


def _vision(options: argparse.Namespace) -> int:
    import json

    import torch

    from dexpie_ros.evaluation.experiments.vision import VisionConfig, run_vision

    torch.set_num_threads(1)
    config = configs.overridden(VisionConfig(), options.set, "experiment vision")
    with _line() as say:
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
    for name in ("tasks", "seeds", "trials", "rounds"):
        if getattr(options, name) not in (None, ""):
            words += [f"--{name}", str(getattr(options, name))]
    for override in options.set:
        words += ["--set", override]
    return shlex.join(words)


def _status(status: Status) -> str:
    left = status.remaining_s
    when = "" if left != left else f", {left / 60:.0f} min left"
    running = ", ".join(status.running)
    bad = f", {len(status.failed)} failed" if status.failed else ""
    return f"{status.done}/{status.total} jobs{when}{bad}: {running}"


@contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """Progress on one line of a terminal, or on a line every ten seconds elsewhere."""
    terminal = sys.stderr.isatty()
    last = 0.0

    def say(text: str) -> None:
        nonlocal last
        if terminal:
            print(f"\r\x1b[2K{text[:160]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - last > 10.0:
            last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    try:
        yield say
    finally:
        if terminal:
            print(file=sys.stderr)
