"""One HTML file that holds everything: verdict, figures, episodes, critic, data, timing, commands.

Nothing is loaded from elsewhere, so the file can be mailed, archived and opened in ten years.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dexpie_ros.config import write_atomic
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.report_critic import critic_section
from dexpie_ros.evaluation.report_data import EpisodeView, ReportData
from dexpie_ros.evaluation.report_panel import panel_section
from dexpie_ros.evaluation.report_results import number, results_section, verdict, verdict_box

__all__ = ["render", "verdict", "write_report"]


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write ``data`` as one self-contained HTML file, whole or not at all; returns its path.

    Raises:
        EvaluationError: policies that were tried on different starts, or an unknown baseline.
    """
    file = Path(path)
    write_atomic(file, render(data))
    return file


def render(data: ReportData) -> str:
    """The report as text."""
    sections = [
        ("results", "Results", results_section(data)),
        ("live", "Live graph against lockstep", _live(data)),
        ("panel", "Panel", _panel(data)),
        ("episodes", "Episodes", _episodes(data)),
        ("critic", "Critic", critic_section(data.critic) if data.critic else ""),
        ("data", "Data", _data(data)),
        ("timing", "Timing", _timing(data)),
        ("reproduce", "How to reproduce", _reproduce(data)),
    ]
    shown = [(key, name, body) for key, name, body in sections if body]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in shown)
    head = f"<header><h1>{escape(data.title)}</h1>"
    subtitle = " · ".join(filter(None, [data.task, data.environment.get("date", "")]))
    head += f"<p>{escape(subtitle)}</p>" if subtitle else ""
    head += f"<p>{escape(data.description)}</p>" if data.description else ""
    head += f"<nav>{links}</nav></header>"
    body = [head, verdict_box(data), *(html.warning(remark) for remark in data.remarks)]
    body += [f'<h2 id="{key}">{escape(name)}</h2>\n{text}' for key, name, text in shown]
    return html.page(data.title, "\n".join(body))


def _live(data: ReportData) -> str:
    rows = []
    for check in data.live_checks:
        lockstep = {t.start: t for t in check.lockstep}
        both = [(t, lockstep[t.start]) for t in check.live if t.start in lockstep]
        same = sum(a.success == b.success for a, b in both)
        apart = [abs(a.time_s - b.time_s) for a, b in both if a.success and b.success]
        rows.append(
            [
                escape(check.policy),
                str(len(both)),
                str(sum(a.success for a, _ in both)),
                str(sum(b.success for _, b in both)),
                f"{same} of {len(both)}",
                number(float(np.median(apart)) if apart else float("nan"), 2),
            ]
        )
    if not rows:
        return ""
    heads = ["policy", "starts", "live successes", "lockstep successes", "same outcome",
             "median time difference (s)"]  # fmt: skip
    return (
        "<p>The same policy from the same starts, once over separate processes and the live ROS "
        "graph, once in the fast lockstep runner that the large comparison uses.</p>"
        + html.table(heads, rows, range(1, 6))
    )


def _panel(data: ReportData) -> str:
    return panel_section(data.panel, data.panel_after, data.gate) if data.panel else ""


def _episodes(data: ReportData) -> str:
    return "\n".join(_episode(view, k) for k, view in enumerate(data.episodes))


def _episode(view: EpisodeView, number: int) -> str:
    text = f"<h3>{escape(view.title)}</h3>"
    if view.note:
        text += f'<p class="note">{escape(view.note)}</p>'
    inner = ""
    if view.value is not None:
        nobody = np.zeros(len(view.time_s), bool)
        inner = plots.value_curve(
            view.time_s,
            view.value,
            nobody if view.human is None else view.human,
            view.blend,
            view.optimality,
            view.outcome,
            name=f"value_curve_{number}",
        ).decode()
        inner = inner.replace("<svg ", '<svg role="img" aria-label="value over time" ', 1)
    if view.frames:
        frames = "".join(
            f'<div class="{escape(f.driver)}"><img src="{html.picture(f.image)}" '
            f'alt="camera at {f.time_s:.1f} s">{f.time_s:.1f} s {escape(f.driver)}</div>'
            for f in view.frames
        )
        inner += f'<div class="strip">{frames}</div>'
    if not inner:
        return text
    caption = ""
    if view.value is not None:
        caption = "Value as judged by a critic that did not see the episode"
        caption += "; the strip below is the darker the better the step" * (
            view.optimality is not None
        )
        caption = f"<figcaption>{caption}.</figcaption>"
    return f"{text}<figure>{inner}{caption}</figure>"


def _data(data: ReportData) -> str:
    if not data.data:
        return ""
    rows = [
        [
            escape(s.name),
            str(s.live),
            str(s.lockstep),
            str(s.successes),
            f"{s.steps:,}",
            f"{100.0 * s.human_steps / s.steps:.0f} %" if s.steps else "–",
        ]
        for s in data.data
    ]
    live, lockstep = sum(s.live for s in data.data), sum(s.lockstep for s in data.data)
    heads = ["kind", "bags, live graph", "bags, lockstep", "successes", "control steps",
             "driven by a person"]  # fmt: skip
    drawn = plots.data_sources(
        [s.name for s in data.data], [s.live for s in data.data], [s.lockstep for s in data.data]
    )
    return (
        f"<p>{live + lockstep} episodes, one rosbag2 directory each: {live} recorded over the live "
        f"graph, {lockstep} by the lockstep runner with the same control, operator and recording "
        "code.</p>"
        + html.table(heads, rows, range(1, 6))
        + html.figure(drawn, "Where the episodes came from.", f"{live} live, {lockstep} lockstep")
    )


def _timing(data: ReportData) -> str:
    if not data.timing and not data.counters:
        return ""
    text = ""
    if data.timing:
        rows = []
        for t in data.timing:
            q = np.quantile(t.values_ms, [0.5, 0.95, 0.99, 1.0])
            rows.append(
                [
                    escape(t.name) + (below(escape(t.note)) if t.note else ""),
                    str(len(t.values_ms)),
                    *(f"{x:.2f}" for x in q),
                    "" if t.target_ms is None else f"{t.target_ms:g}",
                ]
            )
        heads = ["ms", "n", "median", "95 %", "99 %", "largest", "target"]
        text += html.table(heads, rows, range(1, 7))
        drawn = plots.histograms(
            [t.name for t in data.timing],
            [t.values_ms for t in data.timing],
            [t.target_ms for t in data.timing],
        )
        text += html.figure(
            drawn, "Counts are logarithmic; dashed lines are targets.", "histograms of durations"
        )
    if data.counters:
        rows = [[escape(k), escape(v)] for k, v in data.counters.items()]
        text += html.table(["counter", "value"], rows, [1])
    return text


def _reproduce(data: ReportData) -> str:
    text = ""
    if data.reproductions:
        rows = [
            [escape(r.what), f"<code>{escape(r.command)}</code>", escape(r.seeds)]
            for r in data.reproductions
        ]
        text += html.table(["figure", "command", "seeds"], rows)
    if data.environment:
        rows = [[escape(k), f"<code>{escape(v)}</code>"] for k, v in data.environment.items()]
        text += "<h3>Where these figures were measured</h3>" + html.table(["", ""], rows)
    return text
