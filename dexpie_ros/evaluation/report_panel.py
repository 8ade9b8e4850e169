"""The panel's section of a report: every condition before and after, and what the gate says."""

from __future__ import annotations

import math

from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.gate import Decision
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.panel import PanelChange, PanelResult, PanelRow, compare_panels
from dexpie_ros.evaluation.statistics import Interval

_MEANING = {
    "success": "success within the task's limit",
    "contact entry": "the hand ever touched the object",
    "recovery": "the goal reached all the same after a disturbance, also beyond the limit",
}


def panel_section(before: PanelResult, after: PanelResult | None, gate: Decision | None) -> str:
    """Figures as tables and as dots with intervals; ``after`` may not exist yet."""
    text = "" if gate is None else _gate(gate)
    measures = [("success", [r.success for r in before.rows]),
                ("contact entry", [r.contact_entry for r in before.rows])]  # fmt: skip
    later = None if after is None else [after.row(r.condition) for r in before.rows]
    text += _table(before, after)
    names = [r.condition.replace("_", " ") for r in before.rows]
    drawings = []
    for measure, first in measures:
        second = None
        if later is not None:
            second = [r.success if measure == "success" else r.contact_entry for r in later]
        drawings.append((measure, names, first, second))
    hit = [r for r in before.rows if r.recovery is not None]
    if hit:
        second = None if after is None else [_recovery(after.row(r.condition)) for r in hit]
        drawings.append(
            (
                "recovery",
                [r.condition.replace("_", " ") for r in hit],
                [_recovery(r) for r in hit],
                second,
            )
        )
    text += '<div class="pair">'
    for measure, rows, first, second in drawings:
        drawn = plots.before_after(
            rows, first, second, f"before ({before.checkpoint})" if after else before.checkpoint,
            "" if after is None else f"after ({after.checkpoint})", measure,
        )  # fmt: skip
        text += html.figure(drawn, f"{_MEANING[measure]}; 95 % Wilson intervals.", measure)
    return text + "</div>"


def _recovery(row: PanelRow) -> Interval:
    return row.recovery if row.recovery is not None else Interval(float("nan"), 0.0, 1.0)


def _gate(gate: Decision) -> str:
    said = {
        "rl_finetune": "Improve from the policy's own deployment now",
        "continue_bc": "Collect more demonstrations first",
    }[gate.phase]
    sure = "" if gate.certain else " The intervals allow the other decision too: run more trials."
    return (
        f'<div class="verdict"><p>{said} (<code>{gate.phase}</code>): '
        f"{escape('; '.join(gate.reasons))}.{sure}</p></div>"
    )


def _table(before: PanelResult, after: PanelResult | None) -> str:
    """One row per condition; each measure before and after stand side by side."""
    heads, columns = ["condition", "starts"], [[str(r.trials) for r in before.rows]]
    for what in ("success", "recovery", "contact"):
        heads += [what] if after is None else [f"{what} before", "after"]
        for result in (before,) if after is None else (before, after):
            own = [result.row(r.condition) for r in before.rows]
            columns.append([_measure(row, what) for row in own])
        if what == "success" and after is not None:
            heads.append("points")
            columns.append([_change(c) for c in compare_panels(before, after)])
    names = [escape(r.condition.replace("_", " ")) for r in before.rows]
    rows = [list(row) for row in zip(names, *columns, strict=True)]
    return _policies(before, after) + html.table(heads, rows, range(1, len(heads)))


def _policies(before: PanelResult, after: PanelResult | None) -> str:
    if after is None:
        return f"<p>Policy <code>{escape(before.checkpoint)}</code>.</p>"
    names = (f"<code>{escape(each.checkpoint)}</code>" for each in (before, after))
    return "<p>Before: policy {}; after: {}.</p>".format(*names)


def _measure(row: PanelRow, what: str) -> str:
    if what == "recovery":
        return "" if row.recovery is None else _share(row.recovery)
    return _share(row.success if what == "success" else row.contact_entry)


def _change(change: PanelChange) -> str:
    d = change.success
    text = f"{100 * d.value:+.0f}" + below(f"[{100 * d.low:+.0f}, {100 * d.high:+.0f}]")
    return text.replace("-", "−") + below(f"p {change.test.p:.3f}")


def _share(rate: Interval) -> str:
    if math.isnan(rate.value):
        return "–"
    interval = f"[{100 * rate.low:.0f}, {100 * rate.high:.0f}]"
    return f"{100 * rate.value:.0f} %{below(interval)}"
