"""From raw rollouts to figures: within a seed Wilson and McNemar, across seeds Student's interval.

The unit of inference is the training seed: another seed means other demonstrations, another
deployment and other networks. Everything here follows docs/protocol.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dexpie_ros.config import ConfigError
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig
from dexpie_ros.evaluation.experiments.unit import judged
from dexpie_ros.evaluation.statistics import (
    Interval,
    McNemar,
    Summary,
    Trial,
    compare,
    sign_test,
    student_mean,
    successes_within,
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
    round: int = 1

    @property
    def key(self) -> str:
        return f"ladder.{self.cell}.{self.tail}"

    @property
    def tail(self) -> str:
        """The arm, with its round where that is not the first."""
        return f"round-{self.round}.{self.arm}" if self.round > 1 else self.arm

    @property
    def name(self) -> str:
        """The same for people."""
        return f"{self.arm}, round {self.round}" if self.round > 1 else self.arm

    def by_seed(self) -> list[Summary]:
        return [summarise(trials, self.limit_s) for trials in self.trials]

    def pooled(self) -> Summary:
        """All trials together; its intervals ignore that seeds differ."""
        return summarise([t for trials in self.trials for t in trials], self.limit_s)

    def success(self) -> Interval:
        """Mean over seeds, Student's interval over seeds."""
        return over_seeds([s.success.value for s in self.by_seed()], SHARE)

    def restricted_mean_s(self) -> Interval:
        return over_seeds([s.restricted_mean_s.value for s in self.by_seed()], (0.0, self.limit_s))

    def contact_entry(self) -> float:
        """Share of trials in which the hand ever touched the object."""
        return float(np.mean([t.contact for trials in self.trials for t in trials]))

    def failures(self) -> dict[str, int]:
        """Why trials do not count as successes, most frequent first; they add up to the misses.

        ``too late``: a success after the limit.
        """
        counts: dict[str, int] = {}
        for trials in self.trials:
            for t, good in zip(trials, successes_within(trials, self.limit_s), strict=True):
                if not good:
                    cause = "too late" if t.success else t.cause or "unknown"
                    counts[cause] = counts.get(cause, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Difference:
    """One arm against another, paired by training seed (and by start within it)."""

    cell: str
    first: str
    second: str
    seeds: tuple[int, ...]
    success: Interval
    """Mean difference over seeds, Student's interval over seeds; positive favours the first."""
    success_by_seed: tuple[float, ...]
    restricted_mean_s: Interval
    """Negative where the first is faster."""
    restricted_mean_by_seed_s: tuple[float, ...]
    seeds_ahead: tuple[int, int]
    """Seeds with more and with fewer successes."""
    sign_p: float
    """Exact two-sided sign test over seeds."""
    within: tuple[McNemar, ...]
    """Per seed: for these two policies, not for the methods."""


SHARE, DIFFERENCE, ANY = (0.0, 1.0), (-1.0, 1.0), (-math.inf, math.inf)
"""What a share of successes, and the difference of two, can be."""


def over_seeds(values: Sequence[float], possible: tuple[float, float] = ANY) -> Interval:
    """Mean and Student's interval over seeds, cut to what is ``possible``; no interval (NaN) from
    fewer than three.
    """
    x = np.asarray(values, np.float64)
    if len(x) < 3:
        return Interval(float(x.mean()) if len(x) else math.nan, math.nan, math.nan)
    mean = student_mean(x)
    return Interval(mean.value, max(mean.low, possible[0]), min(mean.high, possible[1]))


@dataclass(frozen=True)
class Found:
    """What lies below an experiment's folder."""

    results: tuple[ArmResult, ...]
    missing: tuple[str, ...]
    """Evaluations that are not there, or not with all starts; they count for nothing yet."""


def load_found(
    settings: ExperimentConfig,
    root: str | Path,
    added: Mapping[tuple[str, str], tuple[Trial, ...]] = MappingProxyType({}),
) -> Found:
    """Every arm with at least one seed that was tried on all of the config's starts.

    An evaluation with fewer starts (``--trials`` was raised since) is left out and named: arms
    are compared on the same starts or not at all. ``added`` (`trials_file.read_trials`): trials
    that ran elsewhere, by unit folder and arm.

    Raises:
        ConfigError: an evaluation is there and in ``added``, and they differ.
    """
    folder = Path(root)
    wanted = settings.starts
    found: dict[tuple[str, str, str, int], list[tuple[int, tuple[Trial, ...]]]] = {}
    limits: dict[str, float] = {}
    missing = []
    for unit in settings.units():
        limits[unit.cell] = settings.setup(unit).limit_s
        for arm in settings.arms_of(unit):
            by_seed = {r.seed: r for r in judged(folder / unit.folder, arm)}
            trials = trials_of([by_seed[seed] for seed in wanted if seed in by_seed])
            more = added.get((unit.folder, arm), ())[: len(wanted)]
            if trials[: len(more)] != more[: len(trials)]:
                raise ConfigError(
                    f"{folder / unit.folder}: the evaluation of {arm} is another than the one that "
                    "was added; leave one of them out"
                )
            trials = max(trials, more, key=len)
            if len(trials) < len(wanted):
                there = f" ({len(trials)} starts)" * bool(trials)
                missing.append(f"{unit.folder} {arm}{there}")
                continue
            key = (unit.cell, unit.variant, arm, unit.round)
            found.setdefault(key, []).append((unit.seed, trials))
    results = tuple(
        ArmResult(
            cell,
            variant,
            arm,
            tuple(s for s, _ in rows),
            tuple(t for _, t in rows),
            limits[cell],
            round,
        )
        for (cell, variant, arm, round), rows in found.items()
    )
    return Found(results, tuple(missing))


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
    slower = [p.restricted_mean_s.value for p in pairs]
    ahead, behind = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    names = (first.name, second.name)
    if names[0] == names[1]:
        names = (f"{first.name}, {first.variant}", f"{second.name}, {second.variant}")
    return Difference(
        first.cell,
        names[0],
        names[1],
        tuple(common),
        over_seeds(gains, DIFFERENCE),
        tuple(gains),
        over_seeds(slower),
        tuple(slower),
        (ahead, behind),
        sign_test(ahead, behind),
        tuple(p.test for p in pairs),
    )


def select(
    results: Sequence[ArmResult], arm: str, variant: str = "", round: int = 1
) -> dict[str, ArmResult]:
    """Results of one arm and round by cell."""
    return {
        r.cell: r
        for r in results
        if r.arm == arm and r.round == round and (not variant or r.variant == variant)
    }


CLAIMS = (("dexpie", "bc"), ("dexpie", "hg_dagger"), ("dexpie", "recap"), ("dexpie", "hg_fast"))
"""Comparisons whose gain over tasks is a claim (docs/protocol.md); all others are exploratory."""
REFERENCES = ("bc", "hg_dagger", "hg_fast", "recap", "dexhil")
"""Arms that every other arm is compared with."""


def differences(settings: ExperimentConfig, results: Sequence[ArmResult]) -> list[Difference]:
    """Every arm against the references, and against itself on other variants' or rounds' data.

    Pairs without a training seed in common are left out: an unfinished run has some.
    """
    variants = [v.name for v in settings.variants]
    pairs = [(r, b) for r in results for b in results if _is_reference(b, r, variants)]
    return [difference(r, b) for r, b in pairs if set(r.seeds) & set(b.seeds)]


def _is_reference(b: ArmResult, r: ArmResult, variants: Sequence[str]) -> bool:
    """Whether ``r`` is compared with ``b``."""
    if b.cell != r.cell:
        return False
    if b.variant != r.variant:  # the same arm on other data
        same = (b.arm, b.round) == (r.arm, r.round)
        return same and variants.index(r.variant) < variants.index(b.variant)
    if b.arm == r.arm:
        return b.round == r.round - 1
    if b.arm not in REFERENCES or (b.round != r.round and b.arm != "bc"):
        return False
    turn = REFERENCES.index(r.arm) if r.arm in REFERENCES else len(REFERENCES)
    return REFERENCES.index(b.arm) < turn
