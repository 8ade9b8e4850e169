"""Optimality: advantages mapped to [0, 1] (docs/critic.md#from-value-to-i).

I_t = sigmoid(alpha (A_t - q_low) / (q_high - q_low)): 0.5 at q_low, 0.9933 at q_high with alpha 5.
Binary (RECAP): 1 where A_t > q_low. Demonstrations and human segments may be set to 1 instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.returns import Array


@config
class ScoringConfig:
    """From advantage to the number that the actor is conditioned on."""

    kind: Literal["continuous", "binary"] = "continuous"
    alpha: Annotated[float, Field(gt=0.0)] = 5.0
    low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.6
    """Quantile of all advantages that gets 0.5 (and the threshold of ``binary``)."""
    high: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    demo_optimality: Literal["one", "scored"] = "scored"
    """``one`` (paper) also calls a demonstration's pauses and misses optimal."""
    human_optimality: Literal["one", "one_if_success", "scored"] = "one_if_success"
    """``one`` (paper) also imitates corrections that failed."""


@dataclass(frozen=True)
class Thresholds:
    """The two quantiles of the training set's advantages."""

    low: float
    high: float


def thresholds(advantages: ArrayLike, settings: ScoringConfig) -> Thresholds:
    """Quantiles over all advantages of the training set.

    Raises:
        CriticError: they are equal (or not ordered), so that no scale exists.
    """
    values = np.asarray(advantages, np.float64)
    if values.size == 0:
        raise CriticError("no advantages to take quantiles of; are there any episodes?")
    if not np.all(np.isfinite(values)):
        raise CriticError("an advantage is not finite; was the critic trained on finite features?")
    low, high = (float(q) for q in np.quantile(values, [settings.low, settings.high]))
    if not low < high:
        raise CriticError(
            f"q_high == q_low: the {settings.high:g} and the {settings.low:g} quantile of the "
            f"advantages are {high:g} and {low:g}; the critic tells nothing apart. Set high above "
            "low, or train the critic on more varied episodes"
        )
    return Thresholds(low, high)


def score(advantages: ArrayLike, at: Thresholds, settings: ScoringConfig) -> Array:
    """Optimality (T,) of advantages (T,), before demonstrations and people are considered."""
    values = np.asarray(advantages, np.float64)
    if settings.kind == "binary":
        return (values > at.low).astype(np.float64)
    # Beyond +-50 the sigmoid is 0 or 1 in float64; unclipped, exp would overflow.
    exponent = np.clip(settings.alpha * (values - at.low) / (at.high - at.low), -50.0, 50.0)
    return np.asarray(1.0 / (1.0 + np.exp(-exponent)))


def optimality(
    scored: ArrayLike,
    human: NDArray[np.bool_],
    success: bool,
    demonstration: bool,
    settings: ScoringConfig,
) -> Array:
    """``scored`` (T,) with demonstrations and human steps (T,) treated as the settings say."""
    out = np.array(scored, np.float64)
    if demonstration:
        return np.ones_like(out) if settings.demo_optimality == "one" else out
    trusted = settings.human_optimality == "one" or (
        settings.human_optimality == "one_if_success" and success
    )
    return np.where(human, 1.0, out) if trusted else out
