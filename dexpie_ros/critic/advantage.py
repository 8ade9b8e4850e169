"""Advantages from values: how much better the next steps went than expected (docs/critic.md).

N-step: A_t = sum_{l=t}^{t+N-1} r_l + V(o_{t+N}) - V(o_t), rewards in the critic's units. Where the
stream ends inside the window the sum holds the terminal reward and nothing is bootstrapped.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.returns import Array, ReturnConfig, Stream


@config
class AdvantageConfig:
    """Which advantage."""

    kind: Literal["n_step", "gae"] = "n_step"
    window: Annotated[int, Field(ge=1)] = 24
    """N in control steps. The authors' code: 27."""
    gae_lambda: Annotated[float, Field(ge=0.0, le=1.0)] = 0.97
    terminal_reward: bool = True
    """Whether a window that reaches the end holds the terminal reward. The authors' code bootstraps
    the value of the last observation instead (false)."""


def advantages(
    values: ArrayLike, rewards: Stream, settings: AdvantageConfig, returns: ReturnConfig
) -> Array:
    """Advantages (T,) from values (T,). Raises CriticError where lengths differ."""
    v = np.asarray(values, np.float64)
    if v.shape != (len(rewards),):
        raise CriticError(f"{v.shape[0] if v.ndim else 0} values for {len(rewards)} steps")
    if settings.kind == "gae":
        return _gae(v, rewards, settings, returns)
    now = np.arange(len(v))
    reach = now + settings.window
    inside = reach <= _last(rewards)
    stop = np.where(inside, reach, rewards.end)
    steps = (stop - now).astype(np.float64)
    gained = -steps * returns.step_cost
    tail = np.where(inside, v[stop], _ending(v, rewards, steps, settings, returns))
    return np.asarray(gained + tail - v)


def _last(rewards: Stream) -> NDArray[np.int64]:
    """Index of the last step of each step's own stream (T,).

    A stream that ends before the episode does was taken over: its end is another's step.
    """
    taken_over = rewards.end < len(rewards) - 1
    return rewards.end - taken_over


def _ending(
    v: Array, rewards: Stream, ahead: Array, settings: AdvantageConfig, returns: ReturnConfig
) -> Array:
    """What follows the last step before the end, seen from ``ahead`` steps before it (T,).

    The value at a takeover is of what the person will do, and so never the stream's own.
    """
    terminal = np.where(rewards.failed, -returns.penalty * returns.discount**ahead, 0.0)
    if settings.terminal_reward:
        return terminal
    return np.where(_last(rewards) < rewards.end, terminal, v[rewards.end])


def _gae(v: Array, rewards: Stream, settings: AdvantageConfig, returns: ReturnConfig) -> Array:
    """sum_{l<N} lambda^l delta_{t+l} within the stream; the last delta holds the terminal reward."""
    now = np.arange(len(v))
    own = _last(rewards)
    tail = _ending(v, rewards, (rewards.end - now).astype(np.float64), settings, returns)
    ending = tail - (rewards.end - own) * returns.step_cost  # one more step before a takeover
    total = np.zeros(len(v))
    for step in range(settings.window):
        at = now + step
        here = np.minimum(at, len(v) - 1)
        following = np.minimum(here + 1, len(v) - 1)
        reached = np.where(at >= own, ending, v[following] - returns.step_cost)
        total += np.where(at <= own, settings.gae_lambda**step * (reached - v[here]), 0.0)
    return total
