"""Small synthetic episodes with smooth reaching motion, for tests of learning rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.control.types import STEP_NS, Mode, Source
from dexpie_ros.episodes.episode import Episode, EpisodeInfo


def reach(
    number: int,
    steps: int = 60,
    kind: str = "demonstration",
    outcome: str = "success",
    human: slice | None = None,
) -> Episode:
    """The hand moves from a random start to one object and closes; deterministic by number."""
    rng = np.random.default_rng(number)
    start = np.array([0.4, 0.0, 0.3]) + rng.uniform(-0.1, 0.1, 3)
    goal = np.array([0.5, 0.1, 0.1]) + rng.uniform(-0.05, 0.05, 3)
    turn = geometry.rotation_exp(rng.normal(0, 0.3, 3))
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip(np.arange(steps + 2) / (0.8 * steps), 0, 1))
    away, home = geometry.make_pose(turn, start), geometry.make_pose(np.eye(3), goal)
    path = np.stack([geometry.interpolate(away, home, np.array(s)) for s in share])
    opening = np.clip(1.0 - 2.0 * np.maximum(share - 0.5, 0.0), 0, 1)
    hand = np.repeat(opening[:, None], 6, axis=1)
    source = np.full(steps, Source.HUMAN if kind == "demonstration" else Source.POLICY, np.uint8)
    mode = np.full(steps, Mode.HUMAN if kind == "demonstration" else Mode.POLICY, np.uint8)
    if human is not None:
        source[human], mode[human] = Source.HUMAN, Mode.HUMAN
    objects = np.tile(np.concatenate([goal, [0, 0, 0, 1.0]]), (steps, 1, 1))
    return Episode(
        info=EpisodeInfo(f"episode-{number}", kind=kind, outcome=outcome),  # type: ignore[arg-type]
        path=Path(f"episode-{number}"),
        time_ns=np.arange(steps, dtype=np.int64) * STEP_NS,
        tcp=path[:steps],
        joints=np.zeros((steps, 6)),
        hand=hand[:steps],
        hand_force=np.zeros((steps, 6)),
        command_tcp=path[2:],
        command_hand=hand[2:],
        source=source,
        mode=mode,
        proposal_tcp=np.full((steps, 4, 4), np.nan),
        proposal_hand=np.full((steps, 6), np.nan),
        human_tcp=np.full((steps, 4, 4), np.nan),
        human_hand=np.full((steps, 6), np.nan),
        object_names=("bottle",),
        objects=objects,
    )
