"""Small made-up episodes for the critic's and the evaluation's tests: a hand reaches an object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dexpie_ros.control.types import STEP_NS, Mode, Source
from dexpie_ros.episodes.episode import Episode, EpisodeInfo, Kind


def reach(
    number: int,
    *,
    success: bool = True,
    kind: Kind = "deployment",
    pair_id: str = "",
    pause: tuple[int, int] | None = None,
    human: slice | None = None,
    labelled: bool = False,
    stage: str = "",
    speed: float = 0.004,
) -> Episode:
    """The TCP closes in on a cup from 0.2-0.4 m at ``speed`` m per step, idling during ``pause``.

    A failure drifts past at 5 cm and stays there. Deterministic for ``number``.
    """
    generator = np.random.default_rng(number)
    distance = generator.uniform(0.2, 0.4)
    goal = np.array([0.5, generator.uniform(-0.2, 0.2), 0.1])
    rows, idle = [], []

    def note(name: str) -> str:
        return json.dumps({"time_ns": 0, "note": f"in control, reach; label {name}"})

    left = distance
    while left > (0.0 if success else 0.05) and len(rows) < 200:
        paused = pause is not None and pause[0] <= len(rows) < pause[1]
        rows.append(left)
        idle.append(paused)
        left -= 0.0 if paused else speed
    if not success:
        rows += [0.05] * 20
        idle += [False] * 20
    steps = len(rows)
    time_ns = 1_000_000_000 + np.arange(steps, dtype=np.int64) * STEP_NS
    tcp = np.tile(np.eye(4), (steps, 1, 1))
    tcp[:, :3, 3] = goal - np.array(rows)[:, None] * [1.0, 0.0, 0.0]
    tcp[:, :3, 3] += generator.normal(0.0, 0.0005, (steps, 3))
    if not success:
        tcp[:, 1, 3] += 0.03
    cup = np.tile(np.concatenate([goal, [0.0, 0.0, 0.0, 1.0]]), (steps, 1))
    demonstration = kind == "demonstration"
    source = np.full(steps, Source.HUMAN if demonstration else Source.POLICY, np.uint8)
    if human is not None:
        source[human] = Source.HUMAN
    events: list[tuple[int, str]] = []
    if labelled:
        events.append((int(time_ns[0]), note("ok")))
        if pause is not None:
            events.append((int(time_ns[pause[0]]), note("pause")))
            events.append((int(time_ns[pause[1]]), note("ok")))
    openings = np.clip(np.array(rows)[:, None] / 0.2, 0.0, 1.0) * np.ones(6)
    absent_tcp, absent_hand = np.full((steps, 4, 4), np.nan), np.full((steps, 6), np.nan)
    return Episode(
        info=EpisodeInfo(
            episode_id=f"episode-{number:04d}",
            kind=kind,
            task="bottle",
            stage=stage,
            seed=number,
            pair_id=pair_id,
            outcome="success" if success else "failure",
            cause="" if success else "timeout",
        ),
        path=Path(f"episodes/episode-{number:04d}"),
        time_ns=time_ns,
        tcp=tcp,
        joints=np.zeros((steps, 6)),
        hand=openings,
        hand_force=np.zeros((steps, 6)),
        command_tcp=tcp.copy(),
        command_hand=openings.copy(),
        source=source,
        mode=np.full(steps, Mode.HUMAN if demonstration else Mode.POLICY, np.uint8),
        proposal_tcp=absent_tcp,
        proposal_hand=absent_hand,
        human_tcp=absent_tcp.copy(),
        human_hand=absent_hand.copy(),
        object_names=("cup",),
        objects=cup[:, None, :],
        events=tuple(events),
    )


def mixture(count: int = 24) -> list[Episode]:
    """Demonstrations with pauses, successes, failures and their corrections."""
    out: list[Episode] = []
    for n in range(count):
        if n % 4 == 0:
            out.append(reach(n, kind="demonstration", pause=(10, 34), labelled=True))
        elif n % 4 == 1:
            out.append(reach(n))
        elif n % 4 == 2:
            out.append(reach(n, success=False, pair_id=f"pair-{n}"))
        else:
            out.append(reach(n, kind="correction", human=slice(30, None), pair_id=f"pair-{n - 1}"))
    return out
