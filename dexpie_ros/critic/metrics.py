"""Held-out quality of values: numpy only, every figure with an episode bootstrap.

Frames of one episode are nearly copies of each other, so episodes are what is resampled, never
frames: an interval over frames would be several times too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.critic.errors import CriticError

Array = NDArray[np.float64]
Metric = Callable[[Array, Array], float]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined (one class only, one value)."""

    value: float
    low: float
    high: float


def average_ranks(values: ArrayLike) -> Array:
    """Ranks 1..n (n,), ties share their mean rank."""
    x = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse])


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Correlation; NaN where either is constant."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0.0 else float("nan")


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Correlation of ranks."""
    return pearson(average_ranks(a), average_ranks(b))


def rmse(predicted: ArrayLike, truth: ArrayLike) -> float:
    """Root mean squared error, in the units of its inputs."""
    difference = np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)
    return float(np.sqrt(np.mean(difference**2)))


def explained_variance(predicted: ArrayLike, truth: ArrayLike) -> float:
    """1 - mean squared error / variance of the truth: 0 is no better than the mean, which a
    biased prediction can fall below. (Errors are not centred, so this is the R^2 of forecasting.)
    """
    variance = float(np.var(np.asarray(truth, np.float64)))
    return 1.0 - rmse(predicted, truth) ** 2 / variance if variance > 0.0 else float("nan")


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """Probability that a positive scores above a negative (ties half); NaN with one class only."""
    y = np.asarray(positive).astype(bool)
    ones, zeros = int(y.sum()), int((~y).sum())
    if ones == 0 or zeros == 0:
        return float("nan")
    rank_sum = float(average_ranks(scores)[y].sum())
    return (rank_sum - ones * (ones + 1) / 2.0) / (ones * zeros)


@dataclass(frozen=True)
class CalibrationBin:
    """Of ``count`` steps with a predicted value near ``predicted``, the mean return."""

    predicted: float
    observed: float
    count: int


def calibration(
    predicted: ArrayLike, truth: ArrayLike, bins: int = 10
) -> tuple[CalibrationBin, ...]:
    """Reliability curve over equally filled bins of the prediction."""
    p, r = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return tuple(
        CalibrationBin(float(p[i].mean()), float(r[i].mean()), len(i)) for i in parts if len(i)
    )


def calibration_error(curve: Sequence[CalibrationBin]) -> float:
    """Mean |predicted - observed| over steps."""
    total = sum(b.count for b in curve)
    return sum(b.count * abs(b.predicted - b.observed) for b in curve) / total


def episode_bootstrap(
    metric: Metric,
    predicted: Sequence[Array],
    truth: Sequence[Array],
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """``metric`` on all steps with the percentile interval over resampled episodes.

    Resamples in which the metric is not defined (one class only) are left out.
    """
    value = metric(np.concatenate(list(predicted)), np.concatenate(list(truth)))
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        chosen = generator.integers(len(predicted), size=len(predicted))
        drawn.append(
            metric(
                np.concatenate([predicted[i] for i in chosen]),
                np.concatenate([truth[i] for i in chosen]),
            )
        )
    finite = np.array([d for d in drawn if np.isfinite(d)])
    if len(finite) < 2:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class ValueMetrics:
    """How well values predict returns on a set of episodes."""

    episodes: int
    steps: int
    return_sd: float
    rmse: Estimate
    explained_variance: Estimate
    spearman: Estimate
    success_auroc: Estimate
    """Value as a prediction of the outcome, over steps."""
    calibration_error: float
    calibration: tuple[CalibrationBin, ...]


def value_metrics(
    values: Sequence[Array],
    returns: Sequence[Array],
    success: Sequence[bool],
    resamples: int = 200,
    seed: int = 0,
) -> ValueMetrics:
    """All metrics of values against returns, one array (T_i,) per episode."""
    if not values:
        raise CriticError("no episodes to measure the critic on")
    outcome = [np.full(len(v), float(s)) for v, s in zip(values, success, strict=True)]
    curve = calibration(np.concatenate(list(values)), np.concatenate(list(returns)))

    def estimate(metric: Metric, truth: Sequence[Array]) -> Estimate:
        return episode_bootstrap(metric, values, truth, resamples, seed)

    return ValueMetrics(
        episodes=len(values),
        steps=sum(len(v) for v in values),
        return_sd=float(np.concatenate(list(returns)).std()),
        rmse=estimate(rmse, returns),
        explained_variance=estimate(explained_variance, returns),
        spearman=estimate(spearman, returns),
        success_auroc=estimate(auroc, outcome),
        calibration_error=calibration_error(curve),
        calibration=curve,
    )
