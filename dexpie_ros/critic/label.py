"""Labels: value, advantage and optimality of every control step (docs/critic.md).

`label` asks the critic once; `relabel` starts from the stored values, so other quantiles, alpha,
windows or treatments of human data need no network. Labels are what `episodes.labels` keeps beside
a bag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as configs
from dexpie_ros.critic.advantage import AdvantageConfig, advantages
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.optimality import ScoringConfig, optimality, score, thresholds
from dexpie_ros.critic.returns import ReturnConfig, stream
from dexpie_ros.critic.train import counts
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels, verdict


@configs.config
class LabelConfig:
    """From values to what the actor is conditioned on."""

    advantage: AdvantageConfig = AdvantageConfig()
    scoring: ScoringConfig = ScoringConfig()


def paper() -> LabelConfig:
    """Demonstrations and all human segments are optimal, whatever came of them."""
    return LabelConfig(scoring=ScoringConfig(demo_optimality="one", human_optimality="one"))


def authors() -> LabelConfig:
    """The published code: window 27, no terminal reward."""
    return LabelConfig(
        advantage=AdvantageConfig(window=27, terminal_reward=False),
        scoring=ScoringConfig(demo_optimality="one", human_optimality="one"),
    )


def best() -> LabelConfig:
    """Demonstrations scored, corrections optimal where they succeeded, no terminal reward.

    A critic that is careful at the end of a success would call whatever came last a surprise, and
    so optimal (docs/critic.md).
    """
    return LabelConfig(advantage=AdvantageConfig(terminal_reward=False))


PRESETS = {"paper": paper, "authors": authors, "best": best}


def label(critic: Critic, episodes: Sequence[Episode], settings: LabelConfig) -> list[Labels]:
    """Labels of episodes, each judged by networks that did not see it where the critic can.

    The quantiles are taken over those of ``episodes`` that may be used for the critic; episodes
    that may not are labelled by the same thresholds.

    Raises:
        CriticError: no episodes, or advantages without any spread.
    """
    judged = [critic.judge(episode) for episode in episodes]
    source = [{"critic": critic.hash, "held_out": critic.held_out(e)} for e in episodes]
    return _label(episodes, judged, source, settings, critic.settings.returns)


def relabel(
    episodes: Sequence[Episode], labels: Sequence[Labels], settings: LabelConfig
) -> list[Labels]:
    """New labels from stored values, without the network.

    Raises:
        CriticError: labels of several critics are mixed, or do not fit their episodes.
    """
    critics = sorted({str(item.meta["critic"]) for item in labels})
    if len(critics) > 1:
        raise CriticError(
            f"the labels come from {len(critics)} critics ({', '.join(critics)}); their values "
            "cannot share quantiles: label all episodes with one of them"
        )
    for episode, item in zip(episodes, labels, strict=True):
        if len(item.value) != len(episode):
            raise CriticError(
                f"{episode.path}: {len(item.value)} stored values for {len(episode)} steps; the "
                "episode changed since it was labelled: label it again"
            )
    if not labels:
        raise CriticError("no labels to start from")
    returns = configs.from_dict(ReturnConfig, labels[0].meta["returns"], "labels: returns")
    source = [{"critic": item.meta["critic"], "held_out": item.meta["held_out"]} for item in labels]
    judged = [(item.value, item.value_low, item.value_high) for item in labels]
    return _label(episodes, judged, source, settings, returns)


def _label(
    episodes: Sequence[Episode],
    judged: Sequence[tuple[NDArray, NDArray | None, NDArray | None]],
    source: Sequence[dict[str, Any]],
    settings: LabelConfig,
    returns: ReturnConfig,
) -> list[Labels]:
    if returns.scaling == "decay" and settings.advantage.terminal_reward:
        raise CriticError(
            "advantage.terminal_reward does not go with returns.scaling=decay: a window that reaches "
            "a failure would hold its discounted cost where the one before holds the growth of the "
            "full cost, and rank above it; set advantage.terminal_reward=false, as the authors do"
        )
    values = [np.asarray(value, np.float64) for value, _, _ in judged]
    gained = [
        advantages(v, stream(len(e), e.success, e.human, returns), settings.advantage, returns)
        for e, v in zip(episodes, values, strict=True)
    ]
    counted = [a for e, a in zip(episodes, gained, strict=True) if counts(e, returns)]
    at = thresholds(np.concatenate(counted) if counted else np.zeros(0), settings.scoring)
    shared = {
        "returns": configs.to_dict(returns),
        "settings": configs.to_dict(settings),
        "q_low": at.low,
        "q_high": at.high,
    }
    return [
        Labels(
            value=v.astype(np.float32),
            advantage=a.astype(np.float32),
            optimality=optimality(
                score(a, at, settings.scoring),
                episode.human,
                episode.success,
                episode.info.kind == "demonstration",
                settings.scoring,
            ).astype(np.float32),
            meta={**about, **shared, "verdict": verdict(episode)},
            value_low=low,
            value_high=high,
        )
        for episode, v, a, about, (_, low, high) in zip(
            episodes, values, gained, source, judged, strict=True
        )
    ]
