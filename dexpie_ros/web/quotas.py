"""What a session wanted of every stage, and what of it lies below the root."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dexpie_ros import config
from dexpie_ros.control.session import Finished, SessionConfig, SessionPlan
from dexpie_ros.episodes.collection import Entry


def read_plan(path: str | Path) -> SessionConfig:
    """A session's plan as `dexpie launch ... plan:=` takes it; ConfigError says what is wrong."""
    return config.load(SessionConfig, path)


def quotas(plan: SessionConfig, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """By stage, in the plan's order: ``have`` and ``wanted`` by quota, ``share`` 0 .. 1.

    Counted as the session counts: whole and judged episodes, evaluations and aborted ones aside.
    """
    stages = {stage.name for stage in plan.stages}
    history = [
        Finished(i.episode_id, i.kind, i.stage, i.seed, i.pair_id, i.outcome, i.cause)
        for entry in entries
        if entry.usable
        and (i := entry.info).stage in stages
        and i.kind != "evaluation"
        and i.outcome
    ]
    return [
        {
            "stage": stage.name,
            "have": {name: stage.have[name] for name, wanted in stage.wanted.items() if wanted},
            "wanted": {name: wanted for name, wanted in stage.wanted.items() if wanted},
            "share": round(stage.share, 4),
            "complete": stage.complete,
        }
        for stage in SessionPlan(plan, history).progress()
    ]
