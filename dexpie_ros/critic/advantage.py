"""Advantages from values: how much better the next steps went than expected (algorithm section 4).

N-step: A_t = sum_{l=t}^{t+N-1} r_l + V(o_{t+N}) - V(o_t), rewards in the critic's units. Where the
stream ends inside the window the sum holds the terminal reward and nothing is bootstrapped.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
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
    inside = reach <= rewards.end
    stop = np.where(inside, reach, rewards.end)
    steps = (stop - now).astype(np.float64)
    gained = -steps * returns.step_cost
    tail = np.where(inside, v[stop], _ending(v, rewards, steps, settings, returns))
    return np.asarray(gained + tail - v)


def _ending(
    v: Array, rewards: Stream, ahead: Array, settings: AdvantageConfig, returns: ReturnConfig
) -> Array:
    """What follows the last step before the end, seen from ``ahead`` steps before it (T,)."""
    if not settings.terminal_reward:
        return v[rewards.end]
    return np.where(rewards.failed, -returns.penalty * returns.discount**ahead, 0.0)


def _gae(v: Array, rewards: Stream, settings: AdvantageConfig, returns: ReturnConfig) -> Array:
    """sum_{l<N} lambda^l delta_{t+l} within the stream; the last delta holds the terminal reward."""
    now = np.arange(len(v))
    total = np.zeros(len(v))
    for step in range(settings.window):
        at = now + step
        live = at <= rewards.end
        here = np.minimum(at, len(v) - 1)
        last = at >= rewards.end
        following = np.minimum(here + 1, len(v) - 1)
        tail = _ending(v, rewards, np.minimum(step, rewards.end - now), settings, returns)
        delta = np.where(last, tail - v[here], v[following] - returns.step_cost - v[here])
        total += np.where(live, settings.gae_lambda**step * delta, 0.0)
    return total
