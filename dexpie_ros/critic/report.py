"""`dexpie critic report`: do the labels carry anything? Figures, and a plain warning if not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as configs
from dexpie_ros.critic.advantage import advantages
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.events import SHARP, EventAuc, event_aucs
from dexpie_ros.critic.label import LabelConfig
from dexpie_ros.critic.measure import without_nan
from dexpie_ros.critic.returns import ReturnConfig, stream
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.episodes.labels import Labels

QUANTILES = (0.05, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95)
SOURCES = ("demonstration", "policy, success", "policy, failure", "before takeover", "human")
FLAT_SHARE = 0.05
"""|q_low| below this share of what a window of idling costs is how a critic looks that remembers its
episodes. Where most data make steady progress an honest critic looks the same, so the sign counts
only where held-out error does not speak for the critic."""
TRUSTED_VARIANCE = 0.3
"""Held-out explained variance from which it does."""


@dataclass(frozen=True)
class SourceShare:
    """How much of one source of data is called good."""

    source: str
    steps: int
    optimal: float
    """Share of steps with I > 0.5."""
    mean: float
    """Mean I."""


@dataclass(frozen=True)
class CriticReport:
    """Everything that decides whether to trust a set of labels."""

    metrics: dict[str, Any]
    """``metrics.json`` of the critic: ``held_out``, ``in_sample``, ``by_stage``."""
    advantage_quantiles: dict[str, float]
    idle_cost: float
    """What one advantage window without progress costs, in the critic's units."""
    sources: tuple[SourceShare, ...]
    corrections: int
    failed_corrections: int
    events: tuple[EventAuc, ...]
    """With the labels' own advantages."""
    events_sharp: tuple[EventAuc, ...]
    """With advantages that look about ten steps ahead, from the same values."""
    warnings: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        lines = [*_metric_lines(self.metrics), "", "advantages"]
        lines.append("  " + "  ".join(f"{k} {v:+.4f}" for k, v in self.advantage_quantiles.items()))
        lines.append(f"  a window without progress costs {self.idle_cost:.4f}")
        lines += ["", f"{'source':<18}{'steps':>8}{'I > 0.5':>9}{'mean I':>8}"]
        lines += [
            f"{s.source:<18}{s.steps:>8}{s.optimal:>9.2f}{s.mean:>8.2f}" for s in self.sources
        ]
        lines += ["", f"failed corrections: {self.failed_corrections} of {self.corrections}"]
        for name, events in (("labels", self.events), ("next steps", self.events_sharp)):
            if not events:
                continue
            lines += [
                "",
                f"{name}:",
                f"{'good against':<14}{'steps':>8}{'AUC':>7}  {'95 %':<12}at best",
            ]
            lines += [
                f"{e.event:<14}{e.steps:>8}{e.auc.value:>7.2f}  {e.auc.low:.2f}..{e.auc.high:.2f}  {e.ceiling:.2f}"
                for e in events
            ]
        lines += ["", *(f"WARNING: {w}" for w in self.warnings)]
        return "\n".join(lines).rstrip()


def critic_report(
    critic: Critic, episodes: Sequence[Episode], labels: Sequence[Labels]
) -> CriticReport:
    """Judge labels made by ``critic``. Raises CriticError if they are another critic's."""
    if not labels:
        raise CriticError("no labels to report on")
    for episode, item in zip(episodes, labels, strict=True):
        if item.meta["critic"] != critic.hash:
            raise CriticError(
                f"{episode.path}: its labels come from the critic {item.meta['critic']}, not from "
                f"{critic.hash}; label again"
            )
    meta = labels[0].meta
    returns = configs.from_dict(ReturnConfig, meta["returns"], "labels: returns")
    settings = configs.from_dict(LabelConfig, meta["settings"], "labels: settings")
    gained = [np.asarray(item.advantage, np.float64) for item in labels]
    everything = np.concatenate(gained)
    quantiles = {f"q{100 * q:.0f}": float(np.quantile(everything, q)) for q in QUANTILES}
    idle = settings.advantage.window * returns.step_cost
    corrected = [e for e in episodes if e.info.kind != "demonstration" and e.human.any()]
    failed = sum(not e.success for e in corrected)
    events = event_aucs(episodes, gained, settings.advantage)
    sharp = [
        advantages(item.value, stream(len(e), e.success, e.human, returns), SHARP, returns)
        for e, item in zip(episodes, labels, strict=True)
    ]
    return CriticReport(
        metrics=critic.metrics,
        advantage_quantiles=quantiles,
        idle_cost=idle,
        sources=_sources(episodes, labels),
        corrections=len(corrected),
        failed_corrections=failed,
        events=events,
        events_sharp=event_aucs(episodes, sharp, SHARP),
        warnings=tuple(
            _warnings(critic, float(meta["q_low"]), idle, len(corrected), failed, events)
        ),
    )


def to_plain(report: CriticReport) -> dict[str, Any]:
    """Plain values for JSON; undefined figures become null."""
    plain: dict[str, Any] = without_nan(dataclasses.asdict(report))
    return plain


def data_source(episode: Episode) -> NDArray[np.str_]:
    """Which of `SOURCES` each step (T,) belongs to."""
    if episode.info.kind == "demonstration":
        return np.full(len(episode), "demonstration", dtype="U32")
    ended = "policy, success" if episode.success else "policy, failure"
    out = np.full(len(episode), ended, dtype="U32")
    human = episode.human
    if human.any():
        out[: np.flatnonzero(human)[-1]] = "before takeover"
        out[human] = "human"
    return out


def _sources(episodes: Sequence[Episode], labels: Sequence[Labels]) -> tuple[SourceShare, ...]:
    source = np.concatenate([data_source(e) for e in episodes])
    optimal = np.concatenate([np.asarray(item.optimality, np.float64) for item in labels])
    out = []
    for name in SOURCES:
        chosen = optimal[source == name]
        if len(chosen):
            share = float(np.mean(chosen > 0.5))
            out.append(SourceShare(name, len(chosen), share, float(chosen.mean())))
    return tuple(out)


def _warnings(
    critic: Critic,
    q_low: float,
    idle: float,
    corrections: int,
    failed: int,
    events: Sequence[EventAuc],
) -> list[str]:
    out = []
    held_out = critic.metrics.get("held_out")
    if held_out is None:
        out.append("no episodes were held out: nobody knows whether the critic only remembers")
    elif held_out["rmse"]["value"] >= held_out["return_sd"]:
        out.append(
            f"held-out error {held_out['rmse']['value']:.3f} is no smaller than the spread of the "
            f"returns, {held_out['return_sd']:.3f}: the critic predicts no better than the mean. "
            "Labels from it carry nothing; collect more episodes or give it better features"
        )
    if abs(q_low) < FLAT_SHARE * idle and not _trusted(critic):
        out.append(
            f"q_low = {q_low:+.4f} is next to nothing against the {idle:.4f} that a window of "
            "idling costs: the critic fits each episode's own return and tells good steps from "
            "bad ones by chance. Label by cross-fitting (crossfit=4)"
        )
    if not critic.settings.crossfit:
        out.append("labels come from a critic that saw these episodes (crossfit=0)")
    beyond = critic.metrics.get("beyond_share", 0.0)
    if beyond > 0.0:
        out.append(
            f"{100 * beyond:.1f} % of the steps lie more than max_steps="
            f"{critic.settings.returns.max_steps} before the end, where a success counts like a "
            "failure; set returns.max_steps higher"
        )
    if corrections and failed / corrections > 0.1:
        out.append(
            f"{failed} of {corrections} corrections failed: with human_optimality=one the actor "
            "would imitate them"
        )
    out += [
        f"{e.event}: advantages tell it from good progress at chance (AUC {e.auc.value:.2f})"
        for e in events
        if e.auc.low <= 0.5
    ]
    return out


def _trusted(critic: Critic) -> bool:
    held_out = critic.metrics.get("held_out")
    if held_out is None or not critic.settings.crossfit:
        return False
    explained = held_out["explained_variance"]["value"]
    return explained is not None and explained >= TRUSTED_VARIANCE


def _metric_lines(metrics: dict[str, Any]) -> list[str]:
    lines = [f"{'value':<24}{'held out':>26}{'in sample':>12}"]
    rows = {
        "rmse": "RMSE",
        "explained_variance": "explained variance",
        "spearman": "Spearman",
        "success_auroc": "AUROC success/failure",
    }
    held_out, seen = metrics.get("held_out"), metrics.get("in_sample")
    if seen is None:
        return ["the critic was never measured"]
    if seen["success_auroc"]["value"] is None:
        del rows["success_auroc"]  # all ended alike: nothing to tell apart
    for key, name in rows.items():
        text = "-" if held_out is None else _interval(held_out[key])
        lines.append(f"{name:<24}{text:>26}{_number(seen[key]['value']):>12}")
    lines.append(f"{'SD of returns':<24}{'':>26}{seen['return_sd']:>12.3f}")
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _interval(estimate: dict[str, float | None]) -> str:
    low, high = _number(estimate["low"]), _number(estimate["high"])
    return f"{_number(estimate['value'])} [{low}, {high}]"
