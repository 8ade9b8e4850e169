"""One HTML file that holds everything: verdict, figures, episodes, critic, data, timing, commands.

Nothing is loaded from elsewhere, so the file can be mailed, archived and opened in ten years.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dexpie_ros.config import write_atomic
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.html import escape
from dexpie_ros.evaluation.report_critic import critic_section
from dexpie_ros.evaluation.report_data import EpisodeView, PolicyResult, ReportData
from dexpie_ros.evaluation.statistics import (
    Comparison,
    Interval,
    Summary,
    compare,
    success_curve,
    summarise,
)


def write_report(path: str | Path, data: ReportData) -> Path:
    """Write ``data`` as one self-contained HTML file, whole or not at all; returns its path.

    Raises:
        ValueError: policies that were tried on different starts, or an unknown baseline.
    """
    file = Path(path)
    write_atomic(file, render(data))
    return file


def render(data: ReportData) -> str:
    """The report as text."""
    sections = [
        ("results", "Results", _results(data)),
        ("live", "Live graph against lockstep", _live(data)),
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
    body = [head, _verdict(data), *(html.warning(remark) for remark in data.remarks)]
    body += [f'<h2 id="{key}">{escape(name)}</h2>\n{text}' for key, name, text in shown]
    return html.page(data.title, "\n".join(body))


def verdict(data: ReportData) -> tuple[str, ...]:
    """One plain sentence per policy against the baseline, derived from the trials alone."""
    rows = _compared(data)
    if not rows:
        return ()
    base_name, base, _ = next(r for r in rows if r[2] is None)
    if len(rows) == 1:
        return (f"{base_name} succeeded from {base.successes} of {base.trials} starts.",)
    out = []
    for name, got, against in rows:
        if against is None:
            continue
        d = against.success
        if d.low > 0.0:
            said = f"{name} succeeds more often than {base_name}"
        elif d.high < 0.0:
            said = f"{name} succeeds less often than {base_name}"
        else:
            said = f"no difference in success shown between {name} and {base_name}"
        out.append(
            f"{said[0].upper()}{said[1:]}: {got.successes} against {base.successes} of "
            f"{got.trials} starts, {_points(d)} points (95 % interval, paired; McNemar p = "
            f"{_p_value(against.test.p)}); the two Wilson intervals "
            f"{'overlap' if got.success.overlaps(base.success) else 'do not overlap'}."
        )
    return tuple(out)


Row = tuple[str, Summary, "Comparison | None"]


def _compared(data: ReportData) -> list[Row]:
    """Every policy with its comparison to the baseline, which itself has none."""
    if not data.policies:
        return []
    named = {p.name: p for p in data.policies}
    baseline = data.baseline or data.policies[0].name
    if baseline not in named:
        raise ValueError(f"baseline {baseline!r} is none of {', '.join(named)}")
    base = named[baseline]

    def row(p: PolicyResult) -> Row:
        other = None if p is base else compare(p.trials, base.trials, data.limit_s)
        return p.name, summarise(p.trials, data.limit_s), other

    return [row(p) for p in data.policies]


def _verdict(data: ReportData) -> str:
    sentences = verdict(data)
    if not sentences:
        return ""
    return '<div class="verdict">' + "".join(f"<p>{escape(s)}</p>" for s in sentences) + "</div>"


def _results(data: ReportData) -> str:
    rows = _compared(data)
    if not rows:
        return ""
    best = max(range(len(rows)), key=lambda k: rows[k][1].successes)
    heads = ["policy", "successes", "share", "median (s)", "restricted mean (s)",
             "difference (points)", "McNemar p"]  # fmt: skip
    cells = []
    for (name, got, against), policy in zip(rows, data.policies, strict=True):
        note = _below(escape(policy.note)) if policy.note else ""
        cells.append(
            [
                escape(name) + note,
                f"{got.successes} / {got.trials}",
                _percent(got.success),
                _number(got.median_s),
                f"{got.restricted_mean_s.value:.1f}"
                + _below(f"[{got.restricted_mean_s.low:.1f}, {got.restricted_mean_s.high:.1f}]"),
                "" if against is None else _coloured(against.success),
                ""
                if against is None
                else _p_value(against.test.p)
                + _below(f"+{against.test.better} −{against.test.worse}"),
            ]
        )
    baseline = next(name for name, _, against in rows if against is None)
    text = html.table(heads, cells, numbers=range(1, 7), strong=best if len(rows) > 1 else None)
    text += (
        f'<p class="note">Success within {data.limit_s:g} s. Median time of the successes; the '
        "restricted mean counts a failure as the limit. Differences against "
        f"{escape(baseline)} on the same starts; + and − count starts that only one of the two "
        "mastered. Brackets are 95 % intervals, Wilson's for the share. These intervals hold for these trained policies, not for another training "
        "seed.</p>"
    )
    names = [name for name, _, _ in rows]
    bars = plots.success_bars(
        names,
        [got.success for _, got, _ in rows],
        [f"{g.successes}/{g.trials}" for _, g, _ in rows],
    )
    longest = max((t.time_s for p in data.policies for t in p.trials), default=data.limit_s)
    times = np.linspace(0.0, max(longest, data.limit_s), 241)
    curves = plots.success_over_time(
        names, times, [success_curve(p.trials, times) for p in data.policies], data.limit_s
    )
    text += '<div class="pair">'
    text += html.figure(
        bars, "Success within the limit; whiskers are 95 % Wilson intervals.",
        "; ".join(f"{n} {_plain_percent(g.success)}" for n, g, _ in rows),
    )  # fmt: skip
    text += html.figure(
        curves, "Share of starts mastered by each time: the result for any limit.",
        "success against time for " + ", ".join(names),
    )  # fmt: skip
    return text + "</div>" + _causes(data)


def _causes(data: ReportData) -> str:
    causes = sorted({t.cause for p in data.policies for t in p.trials if not t.success and t.cause})
    if not causes:
        return ""
    rows = [
        [escape(cause)]
        + [str(sum(t.cause == cause and not t.success for t in p.trials)) for p in data.policies]
        for cause in causes
    ]
    numbers = range(1, len(data.policies) + 1)
    heads = ["why it failed", *(p.name for p in data.policies)]
    return "<h3>Failures by cause</h3>" + html.table(heads, rows, numbers)


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
                _number(float(np.median(apart)) if apart else float("nan"), 2),
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
                    escape(t.name) + (_below(escape(t.note)) if t.note else ""),
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


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} %" + _below(f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]")


def _plain_percent(rate: Interval) -> str:
    return f"{100 * rate.value:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f})"


def _points(difference: Interval) -> str:
    values: Sequence[float] = (difference.value, difference.low, difference.high)
    a, b, c = (f"{100 * v:+.1f}".replace("-", "−") for v in values)
    return f"{a} [{b}, {c}]"


def _coloured(difference: Interval) -> str:
    sign = "plus" if difference.low > 0.0 else "minus" if difference.high < 0.0 else ""
    middle, interval = _points(difference).split(" ", 1)
    return f'<span class="{sign}">{middle}</span>' + _below(interval)


def _below(text: str) -> str:
    """The small second line of a cell."""
    return f'<span class="note below">{text}</span>'


def _p_value(p: float) -> str:
    if p >= 0.001:
        return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    if p == 0.0:
        return "0"
    mantissa, exponent = f"{p:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{raised}"


def _number(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
