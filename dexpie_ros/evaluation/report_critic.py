"""The critic's section of a report: what it knows of episodes that it did not see."""

from __future__ import annotations

from typing import Any

from dexpie_ros.critic.report import CriticReport
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.html import escape

_ROWS = (
    ("rmse", "RMSE of value against return"),
    ("explained_variance", "explained variance"),
    ("spearman", "Spearman correlation"),
    ("success_auroc", "AUROC success against failure"),
)


def critic_section(report: CriticReport) -> str:
    """Warnings first: they decide whether anything below is worth reading."""
    text = "".join(html.warning(w) for w in report.warnings)
    metrics = report.metrics
    held_out, seen = metrics.get("held_out"), metrics.get("in_sample")
    if seen is not None:
        rows = [
            [name, _interval(held_out[key] if held_out else None), _number(seen[key]["value"])]
            for key, name in _ROWS
            if key != "success_auroc" or seen[key]["value"] is not None  # all ended alike
        ]
        rows.append(["standard deviation of returns", "", _number(seen["return_sd"])])
        text += html.table(["value", "held-out episodes, 95 %", "in sample"], rows, (1, 2))
        text += _folds(metrics)
    text += '<div class="pair"><div>' + _sources(report) + "</div><div>"
    if held_out is not None:
        curve = held_out["calibration"]
        drawn = plots.calibration(
            [b["predicted"] for b in curve],
            [b["observed"] for b in curve],
            [b["count"] for b in curve],
        )
        text += html.figure(
            drawn, "Calibration on held-out episodes; dashed: perfect.", "calibration curve"
        )
    text += "</div></div>"
    return text + _quantiles(report) + _events(report)


def _folds(metrics: dict[str, Any]) -> str:
    k = metrics.get("crossfit", 0)
    how = (
        f"Labels by {k}-fold cross-fitting: every episode is judged by a network that did not see "
        "it or its pair."
        if k
        else "One network saw all episodes and labels them; held-out figures come from a second one."
    )
    stopped = f" Training stopped at epoch {metrics['epoch']}." if "epoch" in metrics else ""
    return f'<p class="note">{how}{stopped} {metrics.get("episodes", "?")} episodes.</p>'


def _sources(report: CriticReport) -> str:
    rows = [
        [escape(s.source), f"{s.steps:,}", f"{100 * s.optimal:.0f} %", f"{s.mean:.2f}"]
        for s in report.sources
    ]
    text = html.table(["source of data", "steps", "I > 0.5", "mean I"], rows, (1, 2, 3))
    failed = f"{report.failed_corrections} of {report.corrections} corrections failed."
    return text + f'<p class="note">{failed}</p>'


def _quantiles(report: CriticReport) -> str:
    if not report.advantage_quantiles:
        return ""
    row = [f"{v:+.4f}".replace("-", "−") for v in report.advantage_quantiles.values()]
    numbers = range(len(row))
    heads = list(report.advantage_quantiles)
    note = (
        f'<p class="note">A whole window without progress costs {report.idle_cost:.4f}: '
        "advantages much smaller than that tell nothing apart.</p>"
    )
    return "<h3>Advantage quantiles</h3>" + html.table(heads, [row], numbers) + note


def _events(report: CriticReport) -> str:
    if not report.events:
        return ""
    rows = [
        [
            escape(e.event.replace("_", " ")),
            f"{e.steps:,}",
            str(e.episodes),
            f"{e.auc.value:.2f} <span class=note>[{e.auc.low:.2f}, {e.auc.high:.2f}]</span>",
            f"{e.ceiling:.2f}",
            f"{sharp.auc.value:.2f} <span class=note>"
            f"[{sharp.auc.low:.2f}, {sharp.auc.high:.2f}]</span>",
            f"{sharp.ceiling:.2f}",
        ]
        for e, sharp in zip(report.events, report.events_sharp, strict=True)
    ]
    heads = ["good against", "steps", "episodes", "AUC of labels, 95 %", "at best",
             "AUC, next ten steps, 95 %", "at best"]  # fmt: skip
    return (
        "<h3>Can advantages tell good steps from known mistakes?</h3>"
        '<p class="note">Event labels come from the simulator; 0.5 is chance. At best: '
        "a perfect critic "
        "with the same window, which cannot tell the last step of a pause from progress.</p>"
        + html.table(heads, rows, range(1, 7))
    )


def _interval(estimate: dict[str, float | None] | None) -> str:
    if estimate is None:
        return "–"
    low, high = _number(estimate["low"]), _number(estimate["high"])
    return f"{_number(estimate['value'])} <span class=note>[{low}, {high}]</span>"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}".replace("-", "−")
