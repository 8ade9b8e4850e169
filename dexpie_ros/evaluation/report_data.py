"""What a report shows: plain frozen values, filled by whoever ran the experiment.

Everything is optional but the title: a section without data does not appear. Nothing here computes;
figures and tables are derived from these values by `report`, so that no number in a report can
differ from the data that it was written from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.critic.report import CriticReport
from dexpie_ros.evaluation.gate import Decision
from dexpie_ros.evaluation.panel import PanelResult
from dexpie_ros.evaluation.statistics import Trial

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class PolicyResult:
    """One policy on the held-out starts."""

    name: str
    trials: tuple[Trial, ...]
    note: str = ""
    """For instance the recipe, the preset and the number of episodes that it learned from."""


@dataclass(frozen=True)
class LiveCheck:
    """The same starts over the live graph and in lockstep: do both worlds agree?"""

    policy: str
    live: tuple[Trial, ...]
    lockstep: tuple[Trial, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera strip: uint8 (height, width, 3) RGB at a time of the episode."""

    time_s: float
    image: NDArray[np.uint8]
    driver: str = ""
    """Who drove: ``policy``, ``human`` or empty."""


@dataclass(frozen=True, eq=False)
class EpisodeView:
    """One episode to look at: its value curve (T,) and some pictures."""

    title: str
    time_s: Floats
    value: Floats | None = None
    human: Bools | None = None
    blend: Bools | None = None
    optimality: Floats | None = None
    outcome: str = ""
    note: str = ""
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class DataSource:
    """One kind of recorded data, for instance demonstrations."""

    name: str
    live: int
    """Bags recorded over the live graph."""
    lockstep: int
    """Bags recorded by the lockstep runner."""
    steps: int = 0
    successes: int = 0
    human_steps: int = 0


@dataclass(frozen=True, eq=False)
class Timing:
    """A measured duration, for instance the control period: values (n,) in ms."""

    name: str
    values_ms: Floats
    target_ms: float | None = None
    """What it should be, or must stay below; drawn as a line."""
    note: str = ""


@dataclass(frozen=True)
class Reproduction:
    """How to get a figure again."""

    what: str
    command: str
    seeds: str = ""


@dataclass(frozen=True, eq=False)
class ReportData:
    """All of a report."""

    title: str
    task: str = ""
    description: str = ""
    """A few sentences: what was compared and how."""
    limit_s: float = 10.0
    """Success counts within this time; also the value of a failure in the restricted mean time."""
    policies: tuple[PolicyResult, ...] = ()
    baseline: str = ""
    """The policy that all others are compared with; empty: the first."""
    live_checks: tuple[LiveCheck, ...] = ()
    panel: PanelResult | None = None
    """The fixed panel before the improvement phase."""
    panel_after: PanelResult | None = None
    gate: Decision | None = None
    episodes: tuple[EpisodeView, ...] = ()
    critic: CriticReport | None = None
    data: tuple[DataSource, ...] = ()
    timing: tuple[Timing, ...] = ()
    counters: Mapping[str, str] = field(default_factory=dict)
    """Single figures that belong to timing: stalls, dropped messages, missed deadlines."""
    reproductions: tuple[Reproduction, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Commit, versions, machine, date, preset, hashes of inputs."""
    remarks: tuple[str, ...] = ()
    """What a reader must know to judge the figures: exceptions, interruptions, limits."""
