"""The figures that have a target, and results.json: what docs/protocol.md promises, by its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dexpie_ros.critic.measure import without_nan
from dexpie_ros.evaluation.experiments.results import (
    ANY,
    CLAIMS,
    DIFFERENCE,
    ArmResult,
    difference,
    differences,
    over_seeds,
    select,
)
from dexpie_ros.evaluation.experiments.settings import EVALUATIONS, ExperimentConfig
from dexpie_ros.evaluation.statistics import Interval


@dataclass(frozen=True)
class Gain:
    """One method against another over several tasks."""

    success: Interval
    """Difference of success shares: over the cells of a task, over tasks, then over seeds."""
    restricted_mean_s: Interval
    """The same of restricted mean times; negative is faster."""
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    """Those that all cells have."""

    @property
    def covers(self) -> str:
        """In words, for instance ``A-retry, B-retry; seeds 0, 1``."""
        return f"{', '.join(self.cells)}; seeds {', '.join(str(s) for s in self.seeds)}"


def mean_gain(first: Mapping[str, ArmResult], second: Mapping[str, ArmResult]) -> Gain | None:
    """Differences averaged over the cells of each task first, so that a task with two regimes
    weighs no more than one with one; then over tasks, then over the seeds that all cells have.
    """
    cells = [c for c in first if c in second and set(first[c].seeds) & set(second[c].seeds)]
    if not cells:
        return None
    each = {c: difference(first[c], second[c]) for c in cells}
    seeds = sorted(set.intersection(*(set(d.seeds) for d in each.values())))
    if not seeds:
        return None
    tasks: dict[str, list[str]] = {}
    for cell in cells:
        tasks.setdefault(cell.partition("-")[0], []).append(cell)

    def averaged(
        values: Mapping[str, Sequence[float]], possible: tuple[float, float] = ANY
    ) -> Interval:
        at = {c: [values[c][each[c].seeds.index(s)] for s in seeds] for c in cells}
        of_task = [np.mean([at[c] for c in own], axis=0) for own in tasks.values()]
        return over_seeds(np.mean(of_task, axis=0).tolist(), possible)

    return Gain(
        averaged({c: d.success_by_seed for c, d in each.items()}, DIFFERENCE),
        averaged({c: d.restricted_mean_by_seed_s for c, d in each.items()}),
        tuple(cells),
        tuple(seeds),
    )


Find = Callable[[Sequence[ArmResult]], "Gain | None"]


def _between(first: str, second: str) -> Find:
    return lambda r: mean_gain(select(r, first), select(r, second))


def _of_task(task: str, first: str, second: str) -> Find:
    """DexPIE on two variants' data, on one task: that is what the name of the figure says."""

    def find(results: Sequence[ArmResult]) -> Gain | None:
        own = [r for r in results if r.cell.partition("-")[0] == task]
        return mean_gain(select(own, "dexpie", first), select(own, "dexpie", second))

    return find


GAINS: dict[str, tuple[tuple[str, Find], ...]] = {
    "ladder": (
        *((f"gain_{a}_{b}", _between(a, b)) for a, b in CLAIMS),
        ("gain_dexpie_paper_bc", _between("dexpie_paper", "bc")),
    ),
    "async": (("async_gain_B", _of_task("B", "async", "sync")),),
    "staged": (
        ("staged_gain_C", _of_task("C", "staged", "standard")),
        ("staged_gain_C_driven", _of_task("C", "staged", "standard_driven")),
    ),
}
"""Figures with a target or a claim, by experiment, in shares of success (0.37 are 37 points)."""


def gains(settings: ExperimentConfig, results: Sequence[ArmResult]) -> dict[str, Gain]:
    """Those that can be computed from what is there."""
    mixed = settings.name == "ladder" and len(settings.variants) > 1  # whose DexPIE, whose BC?
    figures = () if mixed else GAINS.get(settings.name, ())
    found = {name: find(results) for name, find in figures}
    for k in range(2, settings.rounds + 1) if len(settings.variants) == 1 else ():
        now = select(results, settings.improver, round=k)
        found[f"round_{k}_gain_{settings.improver}_bc"] = mean_gain(now, select(results, "bc"))
        before = select(results, settings.improver, round=k - 1)
        found[f"round_{k}_gain_{settings.improver}_round_{k - 1}"] = mean_gain(now, before)
    return {name: gain for name, gain in found.items() if gain is not None}


def is_claim(settings: ExperimentConfig, gain: str) -> bool:
    """Whether the protocol has a claim about this figure: of the ladder, on the starts that count."""
    counted = settings.name == "ladder" and settings.first_start == EVALUATIONS
    return counted and gain in {f"gain_{a}_{b}" for a, b in CLAIMS}


def to_plain(settings: ExperimentConfig, results: Sequence[ArmResult]) -> dict[str, Any]:
    """Plain values for results.json, keyed ``ladder.<cell>.<arm>``."""
    single = len(settings.variants) == 1
    out: dict[str, Any] = {}
    for r in results:
        pooled, success, mean = r.pooled(), r.success(), r.restricted_mean_s()
        out[r.key if single else f"{settings.name}.{r.cell}.{r.variant}.{r.tail}"] = {
            "success": success.value,
            "n": pooled.trials,
            "seeds": len(r.seeds),
            "interval": [success.low, success.high],
            "by_seed": [s.success.value for s in r.by_seed()],
            "wilson_by_seed": [[s.success.low, s.success.high] for s in r.by_seed()],
            "median_s": pooled.median_s,
            "restricted_mean_s": mean.value,
            "restricted_mean_interval_s": [mean.low, mean.high],
            "limit_s": r.limit_s,
            "contact_entry": r.contact_entry(),
            "failures": r.failures(),
        }
    for name, gain in gains(settings, results).items():
        out[name] = {
            **_plain("value", "interval", gain.success),
            **_plain("restricted_mean_s", "restricted_mean_interval_s", gain.restricted_mean_s),
            "claim": is_claim(settings, name),
            "cells": list(gain.cells),
            "seeds": list(gain.seeds),
        }
    out["differences"] = [
        {
            "cell": d.cell,
            "first": d.first,
            "second": d.second,
            "seeds": list(d.seeds),
            **_plain("success", "interval", d.success),
            **_plain("restricted_mean_s", "restricted_mean_interval_s", d.restricted_mean_s),
            "seeds_ahead": list(d.seeds_ahead),
            "sign_test_p": d.sign_p,
            "mcnemar": [{"better": m.better, "worse": m.worse, "p": m.p} for m in d.within],
        }
        for d in differences(settings, results)
    ]
    plain: dict[str, Any] = without_nan(out)
    return plain


def _plain(value: str, interval: str, of: Interval) -> dict[str, Any]:
    return {value: of.value, interval: [of.low, of.high]}
