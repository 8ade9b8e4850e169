"""One episode in the terminal: what it is, what happened in it, how well it was recorded.

Time runs to the right, all rows over the same control steps; a column is several steps wide where
the episode is longer than the terminal.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config, geometry
from dexpie_ros.control.types import STEP_NS, Mode, Source
from dexpie_ros.episodes import health
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.episodes.annotations import read_annotations
from dexpie_ros.episodes.collection import Entry
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels, label_tags, read_labels
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.geometry import Array

BARS = "▁▂▃▄▅▆▇█"
SOURCES = {Source.HOLD: "·", Source.POLICY: "p", Source.HUMAN: "H", Source.BLEND: "b"}
NAME_WIDTH, LEGEND_WIDTH = 11, 30


def columns(steps: int, width: int) -> list[slice]:
    """The steps of each column: at most ``width`` columns, every step in exactly one."""
    edges = np.linspace(0, steps, min(steps, max(1, width)) + 1).round().astype(int)
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:])]


def sparkline(values: Array, width: int, low: float, high: float) -> str:
    """Mean of each column as a bar between ``low`` and ``high``; a blank where there is no value."""
    line = []
    for part in columns(len(values), width):
        there = values[part][np.isfinite(values[part])]
        if not len(there):
            line.append(" ")
            continue
        share = (float(there.mean()) - low) / (high - low) if high > low else 0.0
        line.append(BARS[min(len(BARS) - 1, max(0, int(share * len(BARS))))])
    return "".join(line)


def band(codes: Sequence[str], width: int) -> str:
    """The letter that most steps of a column have."""
    names, numbers = np.unique(np.array(list(codes)), return_inverse=True)
    return "".join(
        str(names[np.bincount(numbers[part]).argmax()]) for part in columns(len(codes), width)
    )


def marks(there: NDArray[np.bool_], width: int, mark: str = "x") -> str:
    """A mark where any step of a column has it."""
    return "".join(mark if there[part].any() else " " for part in columns(len(there), width))


def lines(
    entry: Entry, tag: str = "", width: int = 0, settings: AlignConfig | None = None
) -> Iterator[str]:
    """What `dexpie episodes show` prints. ``tag``: labels to show; empty: all that are there."""
    width = width or shutil.get_terminal_size((110, 24)).columns
    if entry.content is not None:
        yield health.summary(entry.content)
        yield ", ".join(_facts(entry))
    episode = read_episode(entry.path, settings)
    yield ""
    tags = (tag,) if tag else label_tags(entry.path)
    labels = [(name, read_labels(entry.path, name, steps=len(episode))) for name in tags]
    columns_wide = max(10, width - NAME_WIDTH - LEGEND_WIDTH)
    for name, line, legend in _rows(episode, labels, columns_wide):
        yield f"{name:{NAME_WIDTH}}{line} {legend}".rstrip()
    yield ""
    if entry.content is not None:
        yield from health.table(entry.content)
        warnings = entry.content.statistics.get("warnings", ())
        yield from (f"warning: {text}" for text in warnings if isinstance(warnings, list))
    for time_ns, text in episode.events:
        yield f"{_seconds(episode, time_ns):8.2f} s  {text}"
    for revision in read_annotations(entry.path).history:
        changed = {k: v for k, v in config.to_dict(revision.annotation).items() if v is not None}
        yield f"annotation {revision.number} {revision.time} {revision.author}: {changed}"
    yield (
        f"{len(episode)} control steps, {episode.human.sum()} by the operator, "
        f"{episode.flags.sum()} out of tolerance; cameras: {', '.join(episode.cameras) or 'none'}"
    )
    yield from (f"problem: {problem}" for problem in episode.problems)


def _facts(entry: Entry) -> Iterator[str]:
    assert entry.content is not None
    info = entry.content.info
    yield f"{info.kind} of {info.task or 'no task'}{f' / {info.stage}' if info.stage else ''}"
    for name in ("cause", "policy_id", "pair_id"):
        if getattr(info, name):
            yield f"{name.removesuffix('_id')} {getattr(info, name)}"
    if info.seed >= 0:
        yield f"seed {info.seed}"
    yield f"recorded {info.created}{' in simulation' if info.simulated else ''}"
    for name, value in info.note.items():
        yield f"{name} {value}"
    for name in ("critic", "actor"):
        if not getattr(info, f"use_for_{name}"):
            yield f"not for the {name}"
    if entry.content.status != "finished":
        yield f"[{entry.content.status}]"


def _rows(
    episode: Episode, labels: Sequence[tuple[str, Labels]], width: int
) -> Iterator[tuple[str, str, str]]:
    """Name, picture and legend of every row."""
    used = [s for s in SOURCES if (episode.source == s).any()]
    legend = " ".join(f"{SOURCES[s]} {s.name.lower()}" for s in used)
    codes = [SOURCES[Source(s)] for s in episode.source]
    yield "who drives", band(["F" if m == Mode.FAULT else c for m, c in zip(episode.mode, codes)], width), legend  # fmt: skip
    if episode.intervention is not None:
        yield "corrected", marks(episode.intervention, width, "H"), "as annotated"
    if episode.stages:
        names = list(dict.fromkeys(episode.stage_names))
        letters = {name: chr(ord("a") + k % 26) for k, name in enumerate(names)}
        legend = " ".join(f"{letters[name]} {name or 'start'}" for name in names)
        yield "stage", band([letters[name] for name in episode.stage_names], width), legend
    moved = np.linalg.norm(np.diff(episode.command_tcp[:, :3, 3], axis=0, prepend=np.nan), axis=1)
    yield _graph("step", 1e3 * moved, width, "mm per step")
    turned = np.full(len(episode), np.nan)
    turned[1:] = geometry.rotation_angle(
        episode.command_tcp[:-1, :3, :3], episode.command_tcp[1:, :3, :3]
    )
    yield _graph("turn", np.degrees(turned), width, "deg per step")
    yield _graph("hand", episode.command_hand.mean(axis=1), width, "open, commanded", 1.0)
    yield _graph("measured", episode.hand.mean(axis=1), width, "open, measured", 1.0)
    yield _graph("force", episode.hand_force.max(axis=1), width, "N, strongest finger")
    if episode.contact.any():
        yield "contact", marks(episode.contact, width, "#"), ""
    for tag, label in labels:
        value = label.value.astype(np.float64)
        low, high = float(value.min()), float(value.max())
        yield f"value {tag}"[: NAME_WIDTH - 1], sparkline(value, width, low, high), f"{low:.2f} .. {high:.2f}"  # fmt: skip
        good = ["+" if i > 0.5 else "-" for i in label.optimality]
        share = 100 * float((label.optimality > 0.5).mean())
        yield "optimality", band(good, width), f"+ optimal: {share:.0f} %"
    stalled = np.diff(episode.stalls, prepend=episode.stalls[:1]) > 0
    if stalled.any():
        yield "stalls", marks(stalled, width), f"{stalled.sum()} steps"
    if episode.flags.any():
        yield "late", marks(episode.flags, width), f"{episode.flags.sum()} steps out of tolerance"
    cells = len(columns(len(episode), width))
    end = f"{len(episode) * STEP_NS * 1e-9:.1f} s"
    yield "", f"0{end:>{max(0, cells - 1)}}", ""


def _graph(
    name: str, values: Array, width: int, unit: str, high: float = 0.0
) -> tuple[str, str, str]:
    """A row from 0 to ``high``, or to the largest value."""
    known = values[np.isfinite(values)]
    top = float(known.max()) if len(known) else 0.0
    return name, sparkline(values, width, 0.0, high or top), f"0 .. {high or top:.3g} {unit}"


def _seconds(episode: Episode, time_ns: int) -> float:
    return (time_ns - int(episode.time_ns[0])) * 1e-9
