"""What is measured of a critic when it is trained: `metrics.json`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.critic import metrics, returns
from dexpie_ros.critic.critic import Critic
from dexpie_ros.episodes.episode import Episode

Values = Mapping[int, NDArray[np.float64]]
"""Values (T,) by index of the episode."""


def episode_returns(episode: Episode, settings: returns.ReturnConfig) -> NDArray[np.float64]:
    """What the critic learns for one episode (T,)."""
    rewards = returns.stream(len(episode), episode.success, episode.human, settings)
    return returns.targets(rewards, settings)


def measure(critic: Critic, episodes: Sequence[Episode], unseen: Values) -> dict[str, Any]:
    """Held out beside in sample, by stage too. ``unseen`` are values of networks that did not see
    the episode, where there are such.
    """
    settings = critic.settings.returns
    streams = [returns.stream(len(e), e.success, e.human, settings) for e in episodes]
    truth = [returns.targets(rewards, settings) for rewards in streams]
    seen = {i: critic.values_in_sample(e) for i, e in enumerate(episodes)}
    unclipped = [returns.monte_carlo(rewards, settings) for rewards in streams]
    ahead = np.concatenate([rewards.end - np.arange(len(rewards)) for rewards in streams])
    out: dict[str, Any] = {
        "clipped_share": float(np.mean(np.concatenate(unclipped) < -1.0 - 1e-9)),
        "beyond_share": float(np.mean(ahead > settings.max_steps)),
        "in_sample": _measure(list(seen), seen, truth, episodes),
        "held_out": _measure(list(unseen), unseen, truth, episodes) if unseen else None,
        "by_stage": {},
    }
    for stage in sorted({e.info.stage for e in episodes}):
        index = [i for i in unseen if episodes[i].info.stage == stage]
        if index:
            out["by_stage"][stage or "whole task"] = _measure(index, unseen, truth, episodes)
    return out


def _measure(
    index: Sequence[int],
    values: Values,
    truth: Sequence[NDArray[np.float64]],
    episodes: Sequence[Episode],
) -> dict[str, Any]:
    measured = metrics.value_metrics(
        [values[i] for i in index], [truth[i] for i in index], [episodes[i].success for i in index]
    )
    plain: dict[str, Any] = without_nan(dataclasses.asdict(measured))
    return plain


def without_nan(value: Any) -> Any:
    """JSON has no NaN: what is not defined becomes null."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
