"""Rewards and Monte-Carlo returns (docs/critic.md#returns).

Reward: -1 per step, 0 at success, -C_fail at failure, discount 1. With T steps, the last of them
terminal, step t of a successful episode has the return -(T-1-t), of a failed one
-(T-1-t) - C_fail. Everything is divided so that returns fit the value bins, [-1, 0]:

* ``clip`` (paper): divided by L and clipped. With C_fail = L every state of every failed episode
  has the target -1: failures carry no progress.
* ``margin``: divided by L + C_fail. Success lies in [-1/(1+c), 0], failure below, c = C_fail / L.
* ``decay``: as clip, but the penalty counts gamma_f^(T-1-t), so that the good beginning of a failed
  episode is not blamed in full (the authors' later code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.critic.errors import CriticError

Array = NDArray[np.float64]


@config
class ReturnConfig:
    """How an episode becomes numbers in [-1, 0]."""

    scaling: Literal["clip", "margin", "decay"] = "margin"
    max_steps: Annotated[int, Field(ge=1)] = 400
    """L, the task's longest episode in control steps."""
    failure_cost: Annotated[float, Field(ge=0.0)] = 1.0
    """c = C_fail / L."""
    failure_discount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.99
    """gamma_f per step before the end; used by ``decay`` only."""
    hitl_aware: bool = False
    """Score the autonomous part before a takeover as failed at the takeover."""
    failures: Literal["learn", "leave_out"] = "learn"
    """``leave_out``: the critic learns, and thresholds count, episodes that succeeded only. Failed
    ones are labelled all the same."""

    @property
    def step_cost(self) -> float:
        """What one step costs, in the critic's units."""
        span = 1.0 + self.failure_cost if self.scaling == "margin" else 1.0
        return 1.0 / (self.max_steps * span)

    @property
    def penalty(self) -> float:
        """What a failure costs at the step at which it happens, in the critic's units."""
        return self.failure_cost * self.max_steps * self.step_cost

    @property
    def discount(self) -> float:
        """Factor of the penalty per step before the failure."""
        return self.failure_discount if self.scaling == "decay" else 1.0


@dataclass(frozen=True, eq=False)
class Stream:
    """Where each step's own reward stream ends, and how. Both arrays are (T,)."""

    end: NDArray[np.int64]
    """Index of the terminal step that step t leads to; never before t."""
    failed: NDArray[np.bool_]
    """Whether that end is a failure."""

    def __len__(self) -> int:
        return len(self.end)


def stream(length: int, success: bool, human: ArrayLike, settings: ReturnConfig) -> Stream:
    """The reward stream of an episode of ``length`` steps.

    ``human`` (T,) says at which steps a person drove; it is used with ``hitl_aware`` only: an
    autonomous step that a takeover follows then ends, failed, at the first human step after it.

    Raises:
        CriticError: no steps, or ``human`` of another length.
    """
    taken = np.asarray(human, bool)
    if length < 1:
        raise CriticError("an episode without steps has no return; exclude it from the data")
    if taken.shape != (length,):
        raise CriticError(
            f"intervention flags of shape {taken.shape} for {length} steps; without one flag per "
            "step nobody knows who drove: record the episode again or exclude it"
        )
    end = np.full(length, length - 1, np.int64)
    failed = np.full(length, not success)
    if settings.hitl_aware:
        takeover = length
        for t in range(length - 1, -1, -1):
            if taken[t]:
                takeover = t
            elif takeover < length:
                end[t], failed[t] = takeover, True
    return Stream(end, failed)


def monte_carlo(rewards: Stream, settings: ReturnConfig) -> Array:
    """Returns (T,), scaled but not yet clipped."""
    ahead = (rewards.end - np.arange(len(rewards))).astype(np.float64)
    penalty = settings.penalty * settings.discount**ahead
    return np.asarray(-ahead * settings.step_cost - np.where(rewards.failed, penalty, 0.0))


def targets(rewards: Stream, settings: ReturnConfig) -> Array:
    """What the critic learns: returns (T,) within the value bins, [-1, 0]."""
    return np.clip(monte_carlo(rewards, settings), -1.0, 0.0)


def lambda_returns(
    values: ArrayLike, rewards: Stream, settings: ReturnConfig, trace: float
) -> Array:
    """TD(lambda) targets (T,): G_t = r_t + (1 - trace) V_{t+1} + trace G_{t+1}, clipped.

    ``trace`` 1 is the Monte-Carlo return. Below 1, what lies far ahead (other people's pauses, a
    failure that nobody could see coming) is taken from the value ``values`` (T,) of the states on
    the way, that is from all episodes that passed there, instead of from this episode's luck.

    Raises:
        CriticError: ``decay`` scaling: its penalty depends on when it will come, which a value of
            the state alone cannot hold.
    """
    if settings.discount != 1.0:
        raise CriticError(
            "target_lambda below 1 does not go with return scaling `decay`; use margin or clip"
        )
    v = np.asarray(values, np.float64).tolist()
    out = monte_carlo(rewards, settings)
    for t in range(len(v) - 2, -1, -1):
        here, there = (
            (rewards.end[t], rewards.failed[t]),
            (rewards.end[t + 1], rewards.failed[t + 1]),
        )
        # At a takeover, and at a terminal step, the successor belongs to another stream: there the
        # Monte-Carlo return stands.
        if here == there and here[0] > t:
            out[t] = (1.0 - trace) * v[t + 1] + trace * out[t + 1] - settings.step_cost
    return np.clip(out, -1.0, 0.0)
