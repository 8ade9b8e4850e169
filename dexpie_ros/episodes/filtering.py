"""Which episodes are meant: the filters of `dexpie episodes list`, `report` and `export`, or one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from dexpie_ros import config
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.collection import Collection, Entry
from dexpie_ros.episodes.episode import KINDS, EpisodeError, Outcome

DEFAULT_ROOT = "outputs/episodes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Root and filters; values may be given several times where that makes sense."""
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(DEFAULT_ROOT), help="where episodes lie"
    )
    parser.add_argument("--kind", action="append", default=[], choices=KINDS)
    outcomes = [outcome or "none" for outcome in get_args(Outcome)]
    parser.add_argument("--outcome", action="append", default=[], choices=outcomes)
    parser.add_argument("--task", default="")
    parser.add_argument("--stage", default="")
    parser.add_argument("--policy", default="", help="policy id")
    parser.add_argument("--pair", default="", help="pair id")
    parser.add_argument(
        "--status", action="append", default=[],
        choices=("recording", "finished", "aborted", "repaired", "broken"),
    )  # fmt: skip
    parser.add_argument("--use-for", default="", choices=("critic", "actor"))
    parser.add_argument("--cause", default="")


def add_align(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--align", type=Path, metavar="FILE",
        help="YAML: tolerance_ms, lost_ms and, by topic, latency_ms",
    )  # fmt: skip


def alignment(options: argparse.Namespace) -> AlignConfig:
    """ConfigError for a file that holds anything else."""
    return config.load(AlignConfig, options.align)


def choose(options: argparse.Namespace) -> Collection:
    """The collection that the options describe."""
    outcomes = ["" if name == "none" else name for name in options.outcome]
    return Collection(options.root).filter(
        kind=options.kind,
        outcome=outcomes,
        task=options.task,
        stage=options.stage,
        policy_id=options.policy,
        pair_id=options.pair,
        status=options.status,
        use_for=options.use_for,
        where=None if not options.cause else lambda entry: (
            entry.content is not None and entry.content.info.cause == options.cause
        ),
    )  # fmt: skip


def add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="where episodes lie")


def find(options: argparse.Namespace) -> Entry:
    """By directory, or by id below ``--root``."""
    path = Path(options.episode)
    if path.is_dir():
        return Collection(path).find(str(path)) if len(Collection(path)) else _no_episode(path)
    return Collection(options.root).find(options.episode)


def _no_episode(path: Path) -> Entry:
    raise EpisodeError(f"{path}: not an episode; see `dexpie episodes list {path.parent}`")
