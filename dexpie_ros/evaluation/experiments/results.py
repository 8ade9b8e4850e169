"""From raw rollouts to figures: within a seed Wilson and McNemar, across seeds the bootstrap.

The unit of inference is the training seed: another seed means other demonstrations, another
deployment and other networks. Everything here follows docs/protocol.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.control.types import STEP_NS
from dexpie_ros.critic.measure import without_nan
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig
from dexpie_ros.evaluation.experiments.unit import load_rollouts
from dexpie_ros.evaluation.statistics import (
    Interval,
    McNemar,
    Summary,
    Trial,
    bootstrap_mean,
    compare,
    sign_test,
    summarise,
)
from dexpie_ros.simulation.lockstep import Rollout

STEP_S = STEP_NS * 1e-9


def trials_of(rollouts: Sequence[Rollout]) -> tuple[Trial, ...]:
    """What statistics count: time to success, or how long the failure took."""
    return tuple(
        Trial(
            start=str(r.seed),
            success=r.outcome == "success",
            time_s=(r.steps if r.success_step is None else r.success_step) * STEP_S,
            cause=r.cause,
            contact=r.contact,
        )
        for r in rollouts
    )


@dataclass(frozen=True)
class ArmResult:
    """One arm of one cell (task and regime) and variant, over the seeds that are there."""

    cell: str
    variant: str
    arm: str
    seeds: tuple[int, ...]
    trials: tuple[tuple[Trial, ...], ...]
    """By seed."""
    limit_s: float

    @property
    def key(self) -> str:
        return f"ladder.{self.cell}.{self.arm}"

    def by_seed(self) -> list[Summary]:
        return [summarise(trials, self.limit_s) for trials in self.trials]

    def pooled(self) -> Summary:
        """All trials together; its intervals ignore that seeds differ."""
        return summarise([t for trials in self.trials for t in trials], self.limit_s)

    def success(self) -> Interval:
        """Mean over seeds, bootstrap over seeds."""
        return over_seeds([s.success.value for s in self.by_seed()])

    def restricted_mean_s(self) -> Interval:
        return over_seeds([s.restricted_mean_s.value for s in self.by_seed()])


@dataclass(frozen=True)
class Difference:
    """One arm against another, paired by training seed (and by start within it)."""

    cell: str
    first: str
    second: str
    seeds: tuple[int, ...]
    success: Interval
    """Mean difference over seeds, bootstrap over seeds; positive favours the first."""
    success_by_seed: tuple[float, ...]
    restricted_mean_s: Interval
    """Negative where the first is faster."""
    seeds_ahead: tuple[int, int]
    """Seeds with more and with fewer successes."""
    sign_p: float
    """Exact two-sided sign test over seeds."""
    within: tuple[McNemar, ...]
    """Per seed: for these two policies, not for the methods."""


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean and percentile bootstrap over seeds; no interval (NaN) from fewer than three."""
    x = np.asarray(values, np.float64)
    if len(x) < 3:
        return Interval(float(x.mean()) if len(x) else math.nan, math.nan, math.nan)
    return bootstrap_mean(x)


def load_results(settings: ExperimentConfig, root: str | Path) -> list[ArmResult]:
    """Every arm with at least one evaluated seed; starts are cut to what the config asks for."""
    folder = Path(root)
    found: dict[tuple[str, str, str], list[tuple[int, tuple[Trial, ...]]]] = {}
    limits: dict[str, float] = {}
    for unit in settings.units():
        limits[unit.cell] = settings.setup(unit).limit_s
        for arm in settings.variant(unit.variant).arms:
            path = folder / unit.folder / "evaluation" / f"{arm}.json"
            if path.is_file():
                trials = trials_of(load_rollouts(path)["rollouts"][: settings.trials])
                found.setdefault((unit.cell, unit.variant, arm), []).append((unit.seed, trials))
    return [
        ArmResult(
            cell, variant, arm, tuple(s for s, _ in rows), tuple(t for _, t in rows), limits[cell]
        )
        for (cell, variant, arm), rows in found.items()
    ]


def difference(first: ArmResult, second: ArmResult) -> Difference:
    """Compare on the seeds that both have.

    Raises:
        EvaluationError: none in common, or other starts.
    """
    common = [s for s in first.seeds if s in second.seeds]
    if not common:
        raise EvaluationError(f"{first.key} and {second.key} have no training seed in common")
    pairs = [
        compare(first.trials[first.seeds.index(s)], second.trials[second.seeds.index(s)],
                first.limit_s)
        for s in common
    ]  # fmt: skip
    gains = [p.success.value for p in pairs]
    ahead, behind = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    names = (first.arm, second.arm)
    if names[0] == names[1]:
        names = (f"{first.arm}, {first.variant}", f"{second.arm}, {second.variant}")
    return Difference(
        first.cell,
        names[0],
        names[1],
        tuple(common),
        over_seeds(gains),
        tuple(gains),
        over_seeds([p.restricted_mean_s.value for p in pairs]),
        (ahead, behind),
        sign_test(ahead, behind),
        tuple(p.test for p in pairs),
    )


def select(results: Sequence[ArmResult], arm: str, variant: str = "") -> dict[str, ArmResult]:
    """Results of one arm by cell."""
    return {r.cell: r for r in results if r.arm == arm and (not variant or r.variant == variant)}


def mean_gain(first: Mapping[str, ArmResult], second: Mapping[str, ArmResult]) -> Interval | None:
    """Difference of success averaged over cells, then over the seeds that all cells have."""
    cells = [c for c in first if c in second]
    if not cells:
        return None
    each = [difference(first[c], second[c]) for c in cells]
    seeds = set(each[0].seeds).intersection(*(d.seeds for d in each[1:]))
    per_seed = [
        float(np.mean([d.success_by_seed[d.seeds.index(s)] for d in each])) for s in sorted(seeds)
    ]
    return over_seeds(per_seed) if per_seed else None


Gain = tuple[str, Callable[[Sequence[ArmResult]], "Interval | None"]]
GAINS: dict[str, tuple[Gain, ...]] = {
    "ladder": (
        ("gain_dexpie_bc", lambda r: mean_gain(select(r, "dexpie"), select(r, "bc"))),
        ("gain_dexpie_recap", lambda r: mean_gain(select(r, "dexpie"), select(r, "recap"))),
        ("gain_dexpie_hg_dagger", lambda r: mean_gain(select(r, "dexpie"), select(r, "hg_dagger"))),
        ("gain_dexpie_hg_fast", lambda r: mean_gain(select(r, "dexpie"), select(r, "hg_fast"))),
        ("gain_dexpie_paper_bc", lambda r: mean_gain(select(r, "dexpie_paper"), select(r, "bc"))),
    ),
    "async": (
        (
            "async_gain",
            lambda r: mean_gain(select(r, "dexpie", "async"), select(r, "dexpie", "sync")),
        ),
    ),
    "staged": (
        (
            "staged_gain",
            lambda r: mean_gain(select(r, "dexpie", "staged"), select(r, "dexpie", "standard")),
        ),
    ),
}
"""Figures with a target, by experiment, in shares of success (0.37 are 37 points)."""


def critic_reports(settings: ExperimentConfig, root: str | Path) -> list[dict[str, Any]]:
    """What `dexpie critic report` said of every unit's critics, with ``unit`` and ``labels``."""
    out = []
    for unit in settings.units():
        for path in sorted((Path(root) / unit.folder).glob("critic-*/report.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            labels = path.parent.name.removeprefix("critic-")
            out.append({"unit": unit.folder, "cell": unit.cell, "labels": labels, **content})
    return out


def to_plain(settings: ExperimentConfig, results: Sequence[ArmResult]) -> dict[str, Any]:
    """Plain values for results.json, keyed ``ladder.<cell>.<arm>``."""
    single = len(settings.variants) == 1
    out: dict[str, Any] = {}
    for r in results:
        pooled, success, mean = r.pooled(), r.success(), r.restricted_mean_s()
        out[r.key if single else f"{settings.name}.{r.cell}.{r.variant}.{r.arm}"] = {
            "success": success.value,
            "n": pooled.trials,
            "seeds": len(r.seeds),
            "interval": [success.low, success.high],
            "by_seed": [s.success.value for s in r.by_seed()],
            "median_s": pooled.median_s,
            "restricted_mean_s": mean.value,
            "restricted_mean_interval_s": [mean.low, mean.high],
            "limit_s": r.limit_s,
        }
    for name, gain in GAINS.get(settings.name, ()):
        value = gain(results)
        if value is not None:
            out[name] = {"value": value.value, "interval": [value.low, value.high]}
    plain: dict[str, Any] = without_nan(out)
    return plain
