"""Statistics of evaluations: numpy only, exact where exactness is cheap.

Within one trained policy the unit is the trial, trials are paired by their initial state, and the
intervals are Wilson's and McNemar's. They say nothing about another training seed: for claims about
a *method* give one figure per seed (`student_mean`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.evaluation.errors import EvaluationError

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Trial:
    """One evaluated episode. Trials of two policies with the same ``start`` are a pair."""

    start: str
    """What identifies the initial state and the disturbances, for instance the seed."""
    success: bool
    time_s: float
    """From the start to success, failure or the limit."""
    cause: str = ""
    """Of a failure, for instance ``tipped`` or ``timeout``."""
    contact: bool = False
    """Whether the hand ever touched the object."""


def wilson(successes: int, trials: int, z: float = Z95) -> Interval:
    """Wilson's score interval of a proportion; (nan, 0, 1) without trials."""
    if not 0 <= successes <= trials:
        raise EvaluationError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(float("nan"), 0.0, 1.0)
    p = successes / trials
    span = 1.0 + z * z / trials
    centre = (p + z * z / (2.0 * trials)) / span
    half = z / span * math.sqrt(p * (1.0 - p) / trials + z * z / (4.0 * trials * trials))
    # At 0 and at n successes the bound is exactly 0 or 1; rounding must not move it.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(p, low, high)


@dataclass(frozen=True)
class McNemar:
    """Paired outcomes that differ, and how likely such a split is if neither policy is better."""

    better: int
    """Starts at which only the first policy succeeds."""
    worse: int
    """Starts at which only the second does."""
    p: float
    """Two-sided exact p value."""


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """McNemar's exact test on paired outcomes (n,), (n,)."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1:
        raise EvaluationError(f"outcomes of shapes {a.shape} and {b.shape} are not pairs")
    better, worse = int(np.sum(a & ~b)), int(np.sum(~a & b))
    return McNemar(better, worse, sign_test(better, worse))


def sign_test(plus: int, minus: int) -> float:
    """Two-sided exact p of a split under a fair coin; 1 without any. Integers, so no underflow."""
    n, k = plus + minus, min(plus, minus)
    tail = sum(math.comb(n, i) for i in range(k + 1))
    # The two tails of an even split share the middle term, hence the cap.
    return min(1.0, 2 * tail / 2**n)


def bootstrap_mean(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Mean of independent units (n,), percentile interval over resampled units.

    For a paired comparison give the differences; few units, as seeds are, want `student_mean`.

    Raises:
        EvaluationError: no units.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or len(x) == 0:
        raise EvaluationError(
            f"bootstrap of an array of shape {x.shape}; expected (n,) with n >= 1"
        )
    generator = np.random.default_rng(seed)
    # In blocks, so that many trials do not ask for hundreds of megabytes at once.
    means = np.concatenate(
        [
            x[generator.integers(len(x), size=(block, len(x)))].mean(axis=1)
            for block in _blocks(resamples, max(1, 2_000_000 // len(x)))
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(x.mean()), float(low), float(high))


def student_mean(values: ArrayLike) -> Interval:
    """Mean of independent units (n,), n >= 2, with Student's interval.

    For few units, as training seeds are: the percentile bootstrap of three covers 73 % where it
    says 95 (of normal values; of five 84, of twelve 90).

    Raises:
        EvaluationError: fewer than two units.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise EvaluationError(f"interval of values of shape {x.shape}; expected (n,) with n >= 2")
    freedom = len(x) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else Z95 + 2.4 / freedom
    half = quantile * float(x.std(ddof=1)) / math.sqrt(len(x))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half)


def _blocks(total: int, size: int) -> list[int]:
    full, rest = divmod(total, size)
    return [size] * full + ([rest] if rest else [])


def paired_difference(
    first: ArrayLike, second: ArrayLike, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of ``first - second`` (n,), (n,), bootstrapped over pairs."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape:
        raise EvaluationError(f"figures of shapes {a.shape} and {b.shape} are not pairs")
    return bootstrap_mean(a - b, resamples, seed)


def restricted_times(trials: Sequence[Trial], limit_s: float) -> NDArray[np.float64]:
    """Time to success (n,) in s, the limit where there was none within it.

    Its mean, the restricted mean time, needs no arbitrary cut and counts failures too: a policy
    that is fast on the few starts that it masters does not look fast.
    """
    return np.array([min(t.time_s, limit_s) if t.success else limit_s for t in trials])


def successes_within(trials: Sequence[Trial], limit_s: float) -> NDArray[np.bool_]:
    """Success no later than the limit (n,)."""
    return np.array([t.success and t.time_s <= limit_s + 1e-9 for t in trials], bool)


def success_curve(trials: Sequence[Trial], times_s: ArrayLike) -> NDArray[np.float64]:
    """Share of trials that succeeded by each time (m,): success for every possible limit."""
    done = np.sort([t.time_s for t in trials if t.success])
    found = np.searchsorted(done, np.asarray(times_s, np.float64) + 1e-9, side="right")
    return found / max(1, len(trials))


@dataclass(frozen=True)
class Summary:
    """One policy on one set of starts."""

    trials: int
    successes: int
    success: Interval
    """Wilson."""
    median_s: float
    """Of the successes; NaN without any."""
    restricted_mean_s: Interval
    """Bootstrap over trials; failures count as the limit."""


def summarise(trials: Sequence[Trial], limit_s: float, seed: int = 0) -> Summary:
    """Success within ``limit_s`` and the two times. Raises EvaluationError without trials."""
    if not trials:
        raise EvaluationError("no trials to summarise")
    good = successes_within(trials, limit_s)
    times = np.array([t.time_s for t in trials])[good]
    return Summary(
        trials=len(trials),
        successes=int(good.sum()),
        success=wilson(int(good.sum()), len(trials)),
        median_s=float(np.median(times)) if len(times) else float("nan"),
        restricted_mean_s=bootstrap_mean(restricted_times(trials, limit_s), seed=seed),
    )


@dataclass(frozen=True)
class Comparison:
    """One policy against another on the same starts; positive success is in the first's favour."""

    pairs: int
    success: Interval
    """Difference of success shares, bootstrap over pairs."""
    test: McNemar
    restricted_mean_s: Interval
    """Difference of restricted mean times; negative where the first is faster."""


def compare(
    first: Sequence[Trial], second: Sequence[Trial], limit_s: float, seed: int = 0
) -> Comparison:
    """Pair trials by ``start`` and compare.

    Raises:
        EvaluationError: a start occurs twice, or only on one side: then it is no paired comparison.
    """
    a, b = _by_start(first), _by_start(second)
    alone = sorted(set(a) ^ set(b))
    if alone or not a:
        raise EvaluationError(
            f"the policies were tried on different starts ({len(alone)} without a partner, for "
            f"instance {', '.join(alone[:3]) or 'none'}); evaluate both on the same ones"
        )
    ones, twos = [a[k] for k in a], [b[k] for k in a]
    won, lost = successes_within(ones, limit_s), successes_within(twos, limit_s)
    return Comparison(
        pairs=len(a),
        success=paired_difference(won, lost, seed=seed),
        test=mcnemar(won, lost),
        restricted_mean_s=paired_difference(
            restricted_times(ones, limit_s), restricted_times(twos, limit_s), seed=seed
        ),
    )


def _by_start(trials: Sequence[Trial]) -> dict[str, Trial]:
    found: dict[str, Trial] = {}
    for trial in trials:
        if trial.start in found:
            raise EvaluationError(f"start {trial.start} was tried twice by one policy")
        found[trial.start] = trial
    return found
