"""What the operator sees while working: the same lines in the terminal and on the web page.

Pure text from plain values; colours, cursor and screen are the business of whoever shows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.session import StageProgress
from dexpie_ros.control.staleness import StreamStatus
from dexpie_ros.control.types import HAND_JOINTS, Mode

BAR = 10
"""characters of a bar"""


@dataclass(frozen=True)
class PanelState:
    """Everything that the panel shows; what is None is not known."""

    mode: Mode | None = None
    reason: str = ""
    interventions: int = 0
    phase: str = "idle"
    prompt: str = ""
    episode_id: str = ""
    elapsed_s: float = 0.0
    alignment: Alignment | None = None
    progress: Sequence[StageProgress] = ()
    streams: Sequence[StreamStatus] = ()
    message: str = ""
    """the answer to the last key"""


def panel_lines(state: PanelState, width: int = 80) -> list[str]:
    """The panel, one string per line, none longer than ``width``."""
    mode = "arbiter silent" if state.mode is None else state.mode.name
    lines = [f"[{mode}] {state.reason}".rstrip()]
    episode = f" {state.episode_id}  {clock(state.elapsed_s)}" if state.episode_id else ""
    taken = f"  interventions {state.interventions}" if state.episode_id else ""
    lines.append(f"session: {state.phase}{episode}{taken}")
    if state.prompt:
        lines.append(f"> {state.prompt}")
    lines += alignment_lines(state.alignment)
    lines += [progress_line(stage) for stage in state.progress]
    bad = [stream.describe() for stream in state.streams if not stream.usable]
    if state.streams:
        lines.append("streams: " + ("; ".join(bad) if bad else f"all {len(state.streams)} fresh"))
    if state.message:
        lines.append(state.message)
    return [line if len(line) <= width else line[: max(width - 1, 0)] + "…" for line in lines]


def alignment_lines(alignment: Alignment | None) -> list[str]:
    """Whether the operator may take over, and what is in the way."""
    if alignment is None:
        return ["alignment: unknown"]
    verdict = "GO" if alignment.aligned else "no go"
    angle = "?" if math.isnan(alignment.angle) else f"{math.degrees(alignment.angle):.0f}"
    lines = [
        f"alignment: {verdict}  wrist {angle} deg of {math.degrees(alignment.angle_limit):.0f}"
    ]
    fingers = []
    for name, difference in zip(HAND_JOINTS, alignment.hand_difference, strict=True):
        out = "!" if not abs(difference) <= alignment.hand_limit else ""
        text = "?" if math.isnan(difference) else f"{difference:+.2f}"
        fingers.append(f"{name} {text}{out}")
    lines.append("  " + "  ".join(fingers))
    return lines


def progress_line(stage: StageProgress) -> str:
    """One stage: a bar and its quotas."""
    full = round(BAR * stage.share)
    parts = [f"{name} {stage.have[name]}/{n}" for name, n in stage.wanted.items() if n > 0]
    done = "done" if stage.complete else ""
    return f"{stage.name or 'all'}: [{'#' * full}{'.' * (BAR - full)}] {'  '.join(parts)}  {done}".rstrip()


def read_progress(text: str) -> tuple[str, tuple[StageProgress, ...]]:
    """Prompt and progress from what /session/plan says; nothing of it where that cannot be read."""
    try:
        said = json.loads(text)
        stages = tuple(
            StageProgress(str(s["name"]), dict(s["have"]), dict(s["wanted"]))
            for s in said["progress"]
        )
        return str(said["prompt"]), stages
    except (ValueError, KeyError, TypeError):
        return "", ()


def clock(seconds: float) -> str:
    """``m:ss.s``"""
    minutes, rest = divmod(max(seconds, 0.0), 60.0)
    return f"{int(minutes)}:{rest:04.1f}"
