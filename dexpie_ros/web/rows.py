"""An episode as one row of the table: what its description tells, and what to look at twice."""

from __future__ import annotations

from typing import Any

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.episodes.collection import Entry
from dexpie_ros.episodes.episode_file import EpisodeFile

LATE_MS = 200.0
"""A stream with a rate that was silent for longer is called late (:mod:`.control.staleness`)."""
_ABOUT_THE_GRAPH = ("/diagnostics",)
"""Says how the nodes are, with wall-clock stamps even in simulation; not part of the experience."""


def row(name: str, entry: Entry) -> dict[str, Any]:
    """Plain values; ``error`` is empty unless the episode cannot be described."""
    values: dict[str, Any] = {
        "name": name,
        "id": entry.id,
        "status": entry.status,
        "error": entry.error,
    }
    content = entry.content
    if content is None:
        return values | {
            "kind": "", "task": "", "stage": "", "outcome": "", "cause": "", "policy": "",
            "pair": "", "seed": -1, "created": "", "seconds": 0.0, "human": 0.0, "critic": True,
            "actor": True, "flags": [["broken", entry.error]],
        }  # fmt: skip
    info = content.info
    return values | {
        "kind": info.kind,
        "task": info.task,
        "stage": info.stage,
        "outcome": info.outcome,
        "cause": info.cause,
        "policy": info.policy_id,
        "pair": info.pair_id,
        "seed": info.seed,
        "created": info.created,
        "seconds": round(content.steps * STEP_NS / 1e9, 2),
        "human": round(content.human_steps / content.steps, 4) if content.steps else 0.0,
        "critic": info.use_for_critic,
        "actor": info.use_for_actor,
        "flags": quality(content),
    }


def quality(content: EpisodeFile) -> list[list[str]]:
    """What is wrong with a recording: [one word, the whole story] each."""
    flags: list[list[str]] = []
    if content.status == "recording":
        flags.append(["unfinished", "being recorded, or cut off: `dexpie episodes repair`"])
    if content.status == "repaired":
        lost = content.repair.get("lost_bytes", "?")
        flags.append(["repaired", f"cut off and repaired since; {lost} bytes of its end are lost"])
    streams = content.statistics.get("streams", {})
    figures = {
        name: values
        for name, values in (streams.items() if isinstance(streams, dict) else ())
        if isinstance(values, dict) and name not in _ABOUT_THE_GRAPH
    }
    early = content.statistics.get("ended_early", "")
    if isinstance(early, str) and early:
        flags.append(["cut short", f"the recording ended early: {early}"])
    dropped = {name: n for name, v in figures.items() if (n := _number(v, "dropped")) > 0}
    if (waited := _number(content.statistics, "queue_dropped")) > 0:
        dropped["before the disk"] = waited
    if dropped:
        text = ", ".join(f"{name} {n:g}" for name, n in dropped.items())
        flags.append(["dropped", f"messages lost while recording: {text}"])
    # Topics that speak on change have no rate, and may be silent for as long as they like.
    late = {
        name: gap
        for name, v in figures.items()
        if _number(v, "rate_hz") > 5 and (gap := _number(v, "max_gap_ms")) > LATE_MS
    }
    if late:
        text = ", ".join(f"{name} {gap:.0f} ms" for name, gap in late.items())
        flags.append(["late", f"longest silence: {text}"])
    listed = content.statistics.get("silent", [])
    silent = (
        [str(name) for name in listed if name not in _ABOUT_THE_GRAPH]
        if isinstance(listed, list)
        else []
    )
    if silent:
        flags.append(["silent", f"nothing came on {', '.join(silent)}"])
    if content.status == "finished" and not content.info.outcome:
        flags.append(["not judged", "no outcome was given"])
    return flags


def _number(values: dict[str, Any], key: str) -> float:
    value = values.get(key, 0)
    return float(value) if isinstance(value, (int, float)) else 0.0
