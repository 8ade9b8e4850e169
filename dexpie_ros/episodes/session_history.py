"""What of the episodes on disk counts for a session's plan: one rule for all who count."""

from __future__ import annotations

from collections.abc import Iterable

from dexpie_ros.control.session import Finished, SessionConfig
from dexpie_ros.episodes.collection import Entry


def session_history(plan: SessionConfig, entries: Iterable[Entry], task: str) -> list[Finished]:
    """Whole and judged episodes of ``task`` (or of none) at the plan's stages, in their order.

    Evaluations are not a session's; aborted ones are in, and count for nothing.
    """
    stages = {stage.name for stage in plan.stages}
    return [
        Finished(i.episode_id, i.kind, i.stage, i.seed, i.pair_id, i.outcome, i.cause)
        for entry in entries
        if entry.usable
        and (i := entry.info).task in ("", task)
        and i.stage in stages
        and i.kind != "evaluation"
        and i.outcome
    ]
