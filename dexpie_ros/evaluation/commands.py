"""`dexpie critic ...` and `dexpie label`.

:func:`add_critic` and :func:`add_label` hang them into an argument parser.
What takes long to import is imported by the command that needs it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dexpie_ros import config as configs
from dexpie_ros.command_line import add_set
from dexpie_ros.episodes.filtering import add_align, alignment

if TYPE_CHECKING:
    from dexpie_ros.critic.label import LabelConfig
    from dexpie_ros.critic.settings import CriticConfig, FeatureConfig
    from dexpie_ros.episodes.align import AlignConfig
    from dexpie_ros.episodes.episode import Episode

PRESETS = ("best", "paper", "authors")


def add_critic(groups: Any) -> None:
    """Add the group ``critic``."""
    parser = groups.add_parser("critic", help="train a value critic, judge it, show what it sees")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_critic_training(actions, "train")
    report = actions.add_parser("report", help="do its labels carry anything?")
    report.add_argument("critic", type=Path, help="directory of a critic")
    report.add_argument("episodes", type=Path, nargs="+", help="directories with episodes")
    add_labels(report, "of the labels to judge")
    report.set_defaults(run=_report)
    video = actions.add_parser("video", help="MP4 of an episode with the critic's judgement")
    video.add_argument("episode", type=Path, help="directory of an episode with labels")
    add_labels(video, "of the labels to show")
    video.add_argument("--output", type=Path, default=None, help="default: <episode>/value.mp4")
    video.set_defaults(run=_video)


def add_critic_training(actions: Any, name: str) -> None:
    """Add the training of a critic: `dexpie critic train` and `dexpie train critic` are one."""
    train = actions.add_parser(name, help="train and measure a critic on episodes")
    train.add_argument("episodes", type=Path, nargs="+", help="directories with episodes")
    train.add_argument("--output", type=Path, required=True, help="directory of the critic")
    train.add_argument(
        "--max-steps", type=int, default=None, metavar="L",
        help="at least the longest episode that can occur, corrections included, in steps of 40 ms: "
        "what lies further from an end is cut off; default: the longest of these episodes",
    )  # fmt: skip
    train.add_argument(
        "--preset", choices=PRESETS, default="best",
        help="best by this project's ablations, as the paper says, or as its code does",
    )  # fmt: skip
    train.add_argument("--config", type=Path, default=None, help="YAML on top of the preset")
    add_align(train)
    add_set(train, _critic_settings, after="--preset")
    train.set_defaults(run=_train)


def add_label(groups: Any) -> None:
    """Add the command ``label``."""
    parser = groups.add_parser("label", help="value, advantage and optimality beside every bag")
    parser.add_argument("critic", type=Path, help="directory of a critic")
    parser.add_argument("episodes", type=Path, nargs="+", help="directories with episodes")
    add_labels(parser, "name of these labels")
    parser.add_argument(
        "--preset", choices=PRESETS, default=None, help="default: the critic's own, else best"
    )
    parser.add_argument(
        "--from-labels", "--from-tag", dest="from_tag", default="", metavar="TAG",
        help="start from the stored values of these labels: no network",
    )  # fmt: skip
    add_set(parser, _label_settings, after="--preset")
    parser.set_defaults(run=_label)


def add_labels(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--labels TAG``, called ``--tag`` before."""
    parser.add_argument("--labels", "--tag", dest="tag", default="best", metavar="TAG", help=what)


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
def _critic_settings(options: argparse.Namespace) -> CriticConfig:
    from dexpie_ros.critic import settings

    steps = () if options.max_steps is None else (options.max_steps,)
    return settings.PRESETS[options.preset](*steps)


def _critic_config(options: argparse.Namespace) -> CriticConfig:
    """The preset under ``--align``, ``--config`` and ``--set``."""
    preset = _critic_settings(options)
    if options.align is not None:
        preset = dataclasses.replace(preset, align=alignment(options))
    name = f"critic preset {options.preset}"
    return configs.overridden(preset, options.set, name, options.config)


def _train(options: argparse.Namespace) -> int:
    import torch

    from dexpie_ros.critic.train import train_critic

    torch.set_num_threads(1)
    config = _critic_config(options)
    episodes = _read(options.episodes, config.align, config.features)
    _tell("cut off, so left out of the critic", [e for e in episodes if e.partial])
    if config.returns.failures == "leave_out":
        failed = [e for e in episodes if e.outcome == "failure" and not e.partial]
        _tell("failed, so left out of the critic (returns.failures)", failed)
    if options.max_steps is None:
        options.max_steps = longest = max(map(len, episodes))
        config = _critic_config(options)
        if config.returns.max_steps == longest:  # a file or --set has the last say
            print(
                f"L = {longest} steps, the longest of these {len(episodes)} episodes; where longer "
                "ones can occur, give --max-steps"
            )
    with progress_line() as say:
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


def _tell(what: str, episodes: Sequence[Episode]) -> None:
    """A line on stderr about episodes that are not treated as the others are."""
    if episodes:
        some = ", ".join(e.id for e in episodes[:3]) + (", ..." if len(episodes) > 3 else "")
        print(f"{len(episodes)} episodes {what}: {some}", file=sys.stderr)


def _report(options: argparse.Namespace) -> int:
    from dexpie_ros.critic.critic import Critic
    from dexpie_ros.critic.report import critic_report
    from dexpie_ros.episodes.labels import current_labels

    critic = Critic.load(options.critic)
    episodes = _read(options.episodes, critic.settings.align)
    labels = [current_labels(e, options.tag, critic.hash) for e in episodes]
    print(critic_report(critic, episodes, labels).text())
    return 0


def _label_settings(options: argparse.Namespace) -> LabelConfig:
    from dexpie_ros.critic import label as labelling

    return labelling.PRESETS[options.preset or "best"]()


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
    _tell("annotated anew since the critic learned from them; train it again",
          critic.outdated(episodes))  # fmt: skip
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


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
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
