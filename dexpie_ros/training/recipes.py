"""The six methods: which data, with what weight and condition (docs/protocol.md#arms).

One trainer, one network, one data order; a recipe decides nothing but its rows in this table:

============  =====================================================================  ==========
recipe        windows                                                                condition
============  =====================================================================  ==========
`bc`          demonstrations                                                         none
`hg_dagger`   demonstrations + successful post-training episodes                     none
`hg_fast`     demonstrations + the shortest of those (half of them)                  none
`recap`       everything judged                                                      binary
`dexhil`      demonstrations + from the last intervention to completion, with half   none
              of the loss
`dexpie`      everything judged                                                      continuous
============  =====================================================================  ==========

With ``data.weights.failure: 0`` (presets `best`, `cpu`) `recap` and `dexpie` learn from what
`hg_dagger` does, told step by step what was good.

Never used: evaluation episodes, episodes marked ``use_for_actor: false``, episodes without a
verdict, demonstrations that failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as cfg
from dexpie_ros.control.types import Mode
from dexpie_ros.critic.optimality import ScoringConfig, Thresholds, optimality, score
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels, require_current
from dexpie_ros.geometry import Array
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.training.dataset import (
    MAX_LEAD,
    DatasetError,
    Windows,
    concatenate,
    episode_windows,
    left_out,
)
from dexpie_ros.training.sampling import SourceWeights

Recipe = Literal["bc", "hg_dagger", "hg_fast", "recap", "dexhil", "dexpie"]
RECIPES: tuple[str, ...] = get_args(Recipe)
CONDITIONS: dict[str, Literal["none", "binary", "continuous"]] = {
    "bc": "none",
    "hg_dagger": "none",
    "hg_fast": "none",
    "recap": "binary",
    "dexhil": "none",
    "dexpie": "continuous",
}
FAR = 0.005
"""At most this share of the windows is left out for reaching further than the demonstrations."""
FAST_SHARE = 0.5
"""Of the successful post-training episodes, the shortest: what `hg_fast` learns from."""
INTERVENTION_SHARE = 0.5
"""Of the loss: what `dexhil` gives to the windows from the last intervention on."""


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a recipe made of the episodes."""

    windows: Windows
    optimality: Array
    """(N,) I of each window; 1 where the recipe has no condition"""
    weight: Array
    """(N,) in the loss, mean 1"""
    episodes: tuple[Episode, ...]
    """Those that ``windows.episode`` counts"""
    sampling: Array | None = None
    """(N,) how often each window is drawn, relative to the others; None: all equally"""
    beyond: int = 0
    """Windows left out because they reach further than any other"""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Steps that begin no window, by reason"""
    labelled_by: Mapping[str, Any] = field(default_factory=dict)
    """Critic and thresholds of the labels; empty where there are none"""
    undrawn: int = 0
    """Windows left out because their source has the weight 0"""

    def summary(self) -> list[str]:
        """Lines for people: episodes and windows by kind, share of optimal windows."""
        lines = []
        seen = self.weight if self.sampling is None else self.weight * self.sampling
        for kind in sorted({e.info.kind for e in self.episodes}):
            which = [i for i, e in enumerate(self.episodes) if e.info.kind == kind]
            rows = np.isin(self.windows.episode, which)
            good = sum(self.episodes[i].success for i in which)
            if not rows.any():
                lines.append(f"{kind}: {len(which)} episodes ({good} successful), no window")
                continue
            lines.append(
                f"{kind}: {len(which)} episodes ({good} successful), {rows.sum()} windows, "
                f"I > 0.5 in {np.mean(self.optimality[rows] > 0.5):.0%}, "
                f"loss share {seen[rows].sum() / seen.sum():.0%}"
            )
        if self.undrawn:
            lines.append(
                f"left out: {self.undrawn} windows of sources with weight 0 (data.weights)"
            )
        if self.beyond:
            lines.append(f"left out: {self.beyond} windows that reach further than any other")
        steps = sum(len(e) for e in self.episodes)
        lines += [
            f"left out: {count} of {steps} steps ({count / steps:.1%}): {reason}"
            for reason, count in self.left_out.items()
            if count
        ]
        return lines


def build(
    recipe: str,
    episodes: Sequence[Episode],
    labels: Mapping[str, Labels] | Sequence[Labels] | None,
    spec: ObservationSpec,
    horizon: int,
    human_share: float = 1.0,
    skip_flagged: bool = True,
    max_lead: float = MAX_LEAD,
    weights: SourceWeights | None = None,
    fast_share: float = FAST_SHARE,
    intervention_share: float = INTERVENTION_SHARE,
) -> TrainingSet:
    """Select, cut and condition the windows of ``recipe``.

    ``labels`` by episode id, or in the order of ``episodes``; needed by `recap` and `dexpie`.
    ``human_share``: a chunk takes its human label where at least this share of it is human (paper:
    all of it). ``weights`` of sources; windows of weight 0 are left out. ``fast_share`` is of
    `hg_fast`, ``intervention_share`` of `dexhil`. Raises DatasetError where the recipe finds nothing
    or a label is missing, EpisodeError where an episode was annotated anew since it was labelled.
    """
    if recipe not in RECIPES:
        raise DatasetError(f"recipe {recipe!r} is unknown; choose from {', '.join(RECIPES)}")
    chosen = select(recipe, episodes, fast_share)
    _require_distinct(chosen)
    parts = [
        episode_windows(e, spec, horizon, first_tick(recipe, e), skip_flagged, max_lead)
        for e in chosen
    ]
    windows = concatenate(parts)
    condition, labelled_by = np.ones(len(windows)), {}
    drawn = (weights or SourceWeights()).of(windows, chosen, human_share)
    undrawn, kept = int((drawn == 0).sum()), drawn > 0
    kept[kept] = _within_reach(windows.rows(kept), chosen)
    if not kept.any():
        raise DatasetError(
            f"no window of recipe {recipe} is left by data.weights ({_listed(weights)}); "
            "give a source that it has more than 0"
        )
    if CONDITIONS[recipe] != "none":
        by_id = _labels_by_id(episodes, labels)
        wanted = [_label_of(e, by_id, recipe) for e in chosen]
        labelled_by = _one_source(chosen, wanted)
        pieces = [
            chunk_optimality(e, item, part, human_share)
            for e, item, part in zip(chosen, wanted, parts, strict=True)
        ]
        condition = np.concatenate(pieces)
        if CONDITIONS[recipe] == "binary":
            # f(q_low) = 0.5, so this is RECAP's A > q_low whichever kind the labels are.
            condition = (condition > 0.5).astype(np.float64)
    if not kept.all():
        windows, condition, drawn = windows.rows(kept), condition[kept], drawn[kept]
    weight = np.ones(len(windows))
    if recipe == "dexhil":
        weight = _shared_weight(windows, chosen, intervention_share)
    sampling = None if np.ptp(drawn) == 0.0 else drawn
    reasons = [left_out(e, spec, first_tick(recipe, e), skip_flagged, max_lead) for e in chosen]
    return TrainingSet(
        windows,
        condition,
        weight,
        tuple(chosen),
        sampling,
        int((~kept).sum()) - undrawn,
        {key: sum(each[key] for each in reasons) for key in reasons[0]},
        labelled_by,
        undrawn,
    )


def _within_reach(windows: Windows, episodes: Sequence[Episode]) -> NDArray[np.bool_]:
    """Windows (N,) but the few (at most `FAR`) that reach further than all demonstrations.

    All positions of a policy share one scale, that of the farthest window. A few windows in which
    a failing policy ran away would make it coarser, and only for recipes that learn from failures.
    """
    shown = [i for i, e in enumerate(episodes) if e.info.kind == "demonstration"]
    reach = windows.reach
    rows = np.isin(windows.episode, shown)
    if not rows.any():
        return np.ones(len(reach), bool)
    limit = max(reach[rows].max(), np.quantile(reach, 1.0 - FAR, method="higher"))
    return np.asarray(reach <= limit)


def _listed(weights: SourceWeights | None) -> str:
    return ", ".join(f"{k} {v:g}" for k, v in cfg.to_dict(weights or SourceWeights()).items())


def select(
    recipe: str, episodes: Sequence[Episode], fast_share: float = FAST_SHARE
) -> list[Episode]:
    """The episodes that ``recipe`` learns from, in their order."""
    judged = [
        e
        for e in episodes
        if e.info.use_for_actor
        and e.info.kind != "evaluation"
        and e.outcome in ("success", "failure")
        and (e.success or e.info.kind != "demonstration")
    ]
    demos = [e for e in judged if e.info.kind == "demonstration"]
    later = [e for e in judged if e.info.kind != "demonstration"]
    if recipe == "bc":
        later = []
    elif recipe in ("hg_dagger", "hg_fast"):
        later = [e for e in later if e.success]
        if recipe == "hg_fast":
            later = _shortest(later, fast_share)
    elif recipe == "dexhil":
        later = [e for e in later if e.success and e.human.any()]
    kept = {id(e) for e in (*demos, *later)}
    return [e for e in judged if id(e) in kept]


def first_tick(recipe: str, episode: Episode) -> int:
    """Where the windows of an episode begin: in `dexhil` with its last intervention."""
    if recipe != "dexhil" or episode.info.kind == "demonstration":
        return 0
    human = episode.human
    theirs = human.copy()
    if episode.intervention is None:
        theirs |= episode.mode == Mode.HUMAN  # also while their tracker was lost
    starts = np.flatnonzero(theirs & ~np.concatenate([[False], theirs[:-1]]))
    last = int(starts[starts <= np.flatnonzero(human)[-1]][-1])
    return last + int(np.argmax(human[last:]))


def chunk_optimality(
    episode: Episode, labels: Labels, windows: Windows, human_share: float = 1.0
) -> Array:
    """I of the windows of one episode (docs/critic.md#from-value-to-i).

    A chunk is human where people decided at least ``human_share`` of it; wherever it begins, it then
    has the label of a human step. Any other chunk has the label of its first step, but where that
    is the 1 of a human step, what the critic says of it.
    """
    require_current(episode, labels)
    value = np.asarray(labels.optimality, np.float64)[windows.tick]
    if episode.info.kind == "demonstration":
        return value
    begins, enough = episode.human[windows.tick], windows.human >= human_share - 1e-9
    mixed, joined = begins & ~enough, ~begins & enough & (windows.human > 0)
    if not mixed.any() and not joined.any():
        return value
    meta = labels.meta
    try:
        settings = cfg.from_dict(ScoringConfig, meta["settings"]["scoring"], "labels: scoring")
        at = Thresholds(float(meta["q_low"]), float(meta["q_high"]))
    except KeyError as error:
        raise DatasetError(
            f"{episode.path}: its labels lack {error}, which chunks that people share with the "
            "policy need; label it again"
        ) from None
    scored = score(np.asarray(labels.advantage, np.float64), at, settings)
    human = optimality(scored, np.ones(len(episode), bool), episode.success, False, settings)
    value = np.where(mixed, scored[windows.tick], value)
    return np.where(joined, human[windows.tick], value)


def _shortest(episodes: list[Episode], share: float) -> list[Episode]:
    order = sorted(range(len(episodes)), key=lambda i: (len(episodes[i]), i))
    kept = set(order[: math.ceil(share * len(order) - 1e-9)])
    return [e for i, e in enumerate(episodes) if i in kept]


def _shared_weight(windows: Windows, episodes: Sequence[Episode], wanted: float) -> Array:
    """Weights of mean 1 that give the windows after interventions the share ``wanted`` of the loss."""
    corrected = [i for i, e in enumerate(episodes) if e.info.kind != "demonstration"]
    rows = np.isin(windows.episode, corrected)
    share = rows.mean()
    if share in (0.0, 1.0):
        return np.ones(len(windows))
    ratio = np.where(rows, wanted / share, (1 - wanted) / (1 - share))
    return np.asarray(ratio, np.float64)


def _labels_by_id(
    episodes: Sequence[Episode], labels: Mapping[str, Labels] | Sequence[Labels] | None
) -> dict[str, Labels]:
    if labels is None:
        return {}
    if isinstance(labels, Mapping):
        return dict(labels)
    return {e.id: item for e, item in zip(episodes, labels, strict=True)}


def _label_of(episode: Episode, labels: Mapping[str, Labels], recipe: str) -> Labels:
    if episode.id not in labels:
        raise DatasetError(
            f"{episode.path}: has no labels, which recipe {recipe} needs; run `dexpie label` first"
        )
    return labels[episode.id]


def _require_distinct(episodes: Sequence[Episode]) -> None:
    """Labels go by id: of two episodes with the same, one would have the other's."""
    seen: dict[str, Episode] = {}
    for episode in episodes:
        if episode.id in seen:
            raise DatasetError(
                f"{episode.path}: has the same id, {episode.id}, as {seen[episode.id].path}; give a "
                "folder that holds each episode once"
            )
        seen[episode.id] = episode


def _one_source(episodes: Sequence[Episode], labels: Sequence[Labels]) -> dict[str, Any]:
    """The critic and the thresholds that all these labels share.

    I of several critics, or by several thresholds, means several things: an actor that is told
    both learns neither. That is so too where one critic labelled folder after folder, since the
    thresholds are quantiles of what it is shown.
    """
    first: dict[str, Any] = {}
    for episode, item in zip(episodes, labels, strict=True):
        mine = {key: item.meta[key] for key in _SOURCE if key in item.meta}
        first = first or mine
        different = [key for key in _SOURCE if mine.get(key) != first.get(key)]
        if different:
            raise DatasetError(
                f"{episode.path}: its labels have another {' and '.join(different)} than those of "
                f"{episodes[0].path}; label all episodes in one call (`dexpie label`)"
            )
    return first


_SOURCE = ("critic", "settings", "q_low", "q_high")
