"""Ground truth of behaviour: event labels of control steps, stored by the simulator's operator.

While it drives, the simulated operator notes every change of what it is doing: an event whose text
is JSON with a ``note`` that has a part ``label pause`` (``ok``, ``miss``, ``detour``, ``retreat``; or
``label none``: it no longer drives, and steps are without a label from then on). With them,
advantages have a test of their own that needs no rollout: can they tell a missed grasp from good
progress?
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.critic.advantage import AdvantageConfig, advantages
from dexpie_ros.critic.metrics import Estimate, auroc, episode_bootstrap
from dexpie_ros.critic.returns import ReturnConfig, stream
from dexpie_ros.episodes.episode import Episode

OK, UNLABELLED = "ok", ""
LOOKAHEAD = 24
"""Steps over which ``bad_ahead`` looks."""
SHARP = AdvantageConfig(kind="gae", window=60, gae_lambda=0.9)
"""An advantage that looks about ten steps ahead. Labels look as far as the chunks that they are for,
which blurs when exactly something went wrong; this one judges what the critic knows of the step."""


def event_labels(episode: Episode) -> NDArray[np.str_] | None:
    """What happens at each step (T,), empty where nobody says; None without any label at all."""
    marks = [(time, name) for time, text in episode.events if (name := _name(text)) is not None]
    if not marks:
        return None
    out = np.full(len(episode), UNLABELLED, dtype="U32")
    for time, name in sorted(marks, key=lambda mark: mark[0]):
        out[np.searchsorted(episode.time_ns, time) :] = name
    return out


def _name(text: str) -> str | None:
    """The label that an event sets; None where it says nothing of labels."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    note = content.get("note") if isinstance(content, dict) else None
    if not isinstance(note, str):
        return None
    for part in note.split(";"):
        words = part.split()
        if len(words) == 2 and words[0] == "label":
            return UNLABELLED if words[1] == "none" else words[1]
    return None


@dataclass(frozen=True)
class EventAuc:
    """How well advantages tell good steps from one kind of event (1 perfect, .5 chance)."""

    event: str
    steps: int
    episodes: int
    auc: Estimate
    ceiling: float
    """What a perfect critic reaches with this window: one that knows which steps make progress."""


def event_aucs(
    episodes: Sequence[Episode],
    gained: Sequence[NDArray[np.float64]],
    settings: AdvantageConfig,
) -> tuple[EventAuc, ...]:
    """AUC of good against each kind of event, over the episodes that hold labels.

    ``gained`` are advantages (T_i,) made with ``settings``.

    ``bad_ahead`` compares steps before nearly clean windows (< 10 % events within the next
    `LOOKAHEAD` steps) with steps before mostly bad ones (> 50 %): the advantage looks ahead too.
    """
    labelled = [
        (names, np.asarray(a, np.float64))
        for episode, a in zip(episodes, gained, strict=True)
        if (names := event_labels(episode)) is not None
    ]
    if not labelled:
        return ()
    oracle = [_oracle(names, settings) for names, _ in labelled]
    kinds = sorted({str(n) for names, _ in labelled for n in np.unique(names)} - {OK, UNLABELLED})
    out = []
    for kind in kinds:
        masks = [(names == OK, names == kind) for names, _ in labelled]
        out.append(_auc(kind, masks, [a for _, a in labelled], oracle))
    masks = []
    for names, _ in labelled:
        share = _share_ahead(~np.isin(names, (OK, UNLABELLED)))
        said = names != UNLABELLED
        masks.append(((share < 0.1) & said, (share > 0.5) & said))
    out.append(_auc("bad_ahead", masks, [a for _, a in labelled], oracle))
    return tuple(out)


def _oracle(names: NDArray[np.str_], settings: AdvantageConfig) -> NDArray[np.float64]:
    """Advantages (T,) from the value of a critic that counts the steps of progress still to come."""
    good = np.isin(names, (OK, UNLABELLED))
    returns = ReturnConfig(scaling="clip", max_steps=len(names))
    ahead: NDArray[np.float64] = (np.cumsum(good[::-1])[::-1] - good).astype(np.float64)
    rewards = stream(len(names), True, np.zeros(len(names), bool), returns)
    return advantages(-ahead * returns.step_cost, rewards, settings, returns)


def _share_ahead(bad: NDArray[np.bool_]) -> NDArray[np.float64]:
    total = np.concatenate([[0], np.cumsum(bad)])
    stop = np.minimum(np.arange(len(bad)) + LOOKAHEAD, len(bad))
    return (total[stop] - total[:-1]) / (stop - np.arange(len(bad)))


def _auc(
    event: str,
    masks: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    gained: Sequence[NDArray[np.float64]],
    oracle: Sequence[NDArray[np.float64]],
) -> EventAuc:
    truth = [good[good | bad].astype(np.float64) for good, bad in masks]
    scores = [a[good | bad] for a, (good, bad) in zip(gained, masks, strict=True)]
    best = [a[good | bad] for a, (good, bad) in zip(oracle, masks, strict=True)]
    return EventAuc(
        event,
        sum(int(bad.sum()) for _, bad in masks),
        sum(bool(bad.any()) for _, bad in masks),
        episode_bootstrap(auroc, scores, truth),
        auroc(np.concatenate(best), np.concatenate(truth)),
    )
