"""The fixed evaluation panel of a task: the same conditions for every checkpoint, for ever.

A panel is a list of conditions (nominal, held-out objects, slip, drop, pose error), each with its
own starts. It is data: whoever runs it (lockstep, live graph, a real robot with a person writing
results down) hands back one `PanelTrial` per condition and start, and everything else follows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dexpie_ros import config as configs
from dexpie_ros.config import config
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.statistics import Interval, McNemar, mcnemar, paired_difference, wilson


@config
class Condition:
    """One row of the panel."""

    name: str
    description: str = ""
    trials: Annotated[int, Field(ge=1)] = 20
    first_seed: Annotated[int, Field(ge=0)] = 7000
    """Starts are the seeds first_seed .. first_seed + trials - 1; no collection may use them."""
    overrides: tuple[str, ...] = ()
    """``key=value`` on the simulated cell's config, for instance ``disturbances.slip=1.0``."""
    disturbed: bool = False
    """Whether something goes wrong in every trial: getting there then counts as recovery."""

    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.trials)


@config
class Panel:
    """A task's conditions."""

    task: str
    limit_s: Annotated[float, Field(gt=0.0)]
    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.conditions]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"conditions: names must be there and differ, got {names}")

    @property
    def key(self) -> str:
        """Content hash: results are comparable where it is the same."""
        text = json.dumps(configs.to_dict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


DISTURBANCES = ("slip", "drop", "pose_error")


def simulated_panel(
    task: str,
    limit_s: float,
    held_out_objects: Mapping[str, Sequence[str]],
    trials: int = 20,
    first_seed: int = 7000,
) -> Panel:
    """The standard panel in simulation: nominal, each held-out object, each disturbance.

    ``held_out_objects`` maps a name to overrides of the cell's config.
    """
    rows = [Condition("nominal", "objects and starts as in training", trials, first_seed)]
    for name, overrides in held_out_objects.items():
        rows.append(
            Condition(name, "an object not seen in training", trials, first_seed, tuple(overrides))
        )
    texts = {
        "slip": "the object slips in the hand",
        "drop": "the object is knocked out of the hand",
        "pose_error": "the object is pushed away before the grasp",
    }
    rows += [
        Condition(
            name, texts[name], trials, first_seed, (f"disturbances.{name}=1.0",), disturbed=True
        )
        for name in DISTURBANCES
    ]
    return Panel(task, limit_s, tuple(rows))


@dataclass(frozen=True)
class PanelTrial:
    """What came of one start under one condition."""

    condition: str
    seed: int
    success: bool
    contact: bool
    """The hand touched the object at least once."""
    disturbed: bool
    """The disturbance really happened (the episode may have ended before it could)."""
    time_s: float
    late: bool
    """No success, but the goal was reached after the limit, before the episode was given up."""


@dataclass(frozen=True)
class PanelRow:
    """One condition, summed up; all intervals are Wilson's."""

    condition: str
    trials: int
    success: Interval
    contact_entry: Interval
    recovery: Interval | None
    """Share of the trials in which something did go wrong that reached the goal all the same, also
    after the limit, which is made for trials without; None where nothing is meant to go wrong."""


@dataclass(frozen=True)
class PanelResult:
    """One checkpoint on one panel."""

    checkpoint: str
    panel: str
    """The panel's key."""
    rows: tuple[PanelRow, ...]
    trials: tuple[PanelTrial, ...]

    def row(self, condition: str) -> PanelRow:
        return next(r for r in self.rows if r.condition == condition)


def evaluate_panel(panel: Panel, checkpoint: str, trials: Sequence[PanelTrial]) -> PanelResult:
    """Sum up trials.

    Raises:
        EvaluationError: a start of the panel is missing, unknown or there twice.
    """
    wanted = {(c.name, seed) for c in panel.conditions for seed in c.seeds()}
    got = [(t.condition, t.seed) for t in trials]
    if len(got) != len(set(got)) or set(got) != wanted:
        missing, extra = sorted(wanted - set(got)), sorted(set(got) - wanted)
        raise EvaluationError(
            f"checkpoint {checkpoint}: the panel {panel.key} wants {len(wanted)} trials, got "
            f"{len(got)} (missing {missing[:3]}, unknown {extra[:3]}); run every start once"
        )
    rows = []
    for condition in panel.conditions:
        of = [t for t in trials if t.condition == condition.name]
        hit = [t for t in of if t.disturbed]
        reached = sum(t.success or t.late for t in hit)
        recovery = wilson(reached, len(hit)) if condition.disturbed else None
        rows.append(
            PanelRow(
                condition.name,
                len(of),
                wilson(sum(t.success for t in of), len(of)),
                wilson(sum(t.contact for t in of), len(of)),
                recovery,
            )
        )
    ordered = tuple(sorted(trials, key=lambda t: (t.condition, t.seed)))
    return PanelResult(checkpoint, panel.key, tuple(rows), ordered)


@dataclass(frozen=True)
class PanelChange:
    """One condition before and after the improvement phase, on the same starts."""

    condition: str
    before: PanelRow
    after: PanelRow
    success: Interval
    """Difference of success, bootstrapped over starts."""
    test: McNemar


def compare_panels(before: PanelResult, after: PanelResult) -> tuple[PanelChange, ...]:
    """Change per condition. Raises EvaluationError for results of different panels."""
    if before.panel != after.panel:
        raise EvaluationError(
            f"{before.checkpoint} was tried on panel {before.panel}, {after.checkpoint} on "
            f"{after.panel}; run both on one panel to compare them"
        )
    out = []
    for row in before.rows:
        one = np.array([t.success for t in before.trials if t.condition == row.condition])
        two = np.array([t.success for t in after.trials if t.condition == row.condition])
        out.append(
            PanelChange(
                row.condition,
                row,
                after.row(row.condition),
                paired_difference(two, one),
                mcnemar(two, one),
            )
        )
    return tuple(out)


def save_result(path: str | Path, result: PanelResult) -> None:
    """Write the raw trials as JSON: whatever is derived can be derived again."""
    configs.write_json(
        path,
        {
            "checkpoint": result.checkpoint,
            "panel": result.panel,
            "trials": [vars(t) for t in result.trials],
            **configs.provenance(),
        },
    )


def load_result(path: str | Path, panel: Panel) -> PanelResult:
    """Read what `save_result` wrote; ConfigError where it is damaged or of another panel."""
    file = Path(path)
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        trials = [PanelTrial(**t) for t in content["trials"]]
        if content["panel"] != panel.key:
            raise ValueError(f"results of panel {content['panel']}, wanted {panel.key}")
        return evaluate_panel(panel, str(content["checkpoint"]), trials)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise configs.ConfigError(
            f"{file}: no results of this panel ({error}); run the panel again"
        ) from None
