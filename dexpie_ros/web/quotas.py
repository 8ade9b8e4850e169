"""What a session wanted of every stage, and what of it lies below the root."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dexpie_ros import config
from dexpie_ros.control.session import SessionConfig, SessionPlan
from dexpie_ros.episodes.collection import Entry
from dexpie_ros.episodes.session_history import session_history


def read_plan(path: str | Path) -> SessionConfig:
    """A session's plan as `dexpie launch ... plan:=` takes it; ConfigError says what is wrong."""
    return config.load(SessionConfig, path)


def quotas(plan: SessionConfig, entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """By task and stage, in the plan's order: ``have`` and ``wanted`` by quota, ``share`` 0 .. 1.

    Counted as the session counts, which works on one task: every task with episodes at the plan's
    stages has quotas of its own.
    """
    entries = list(entries)
    stages = {stage.name for stage in plan.stages}
    tasks = {
        entry.info.task
        for entry in entries
        if entry.content is not None and entry.info.stage in stages
    }
    return [
        {
            "task": task,
            "stage": stage.name,
            "have": {name: stage.have[name] for name, wanted in stage.wanted.items() if wanted},
            "wanted": {name: wanted for name, wanted in stage.wanted.items() if wanted},
            "share": round(stage.share, 4),
            "complete": stage.complete,
        }
        for task in sorted(tasks - {""}) or [""]
        for stage in SessionPlan(plan, session_history(plan, entries, task)).progress()
    ]
