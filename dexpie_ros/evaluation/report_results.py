"""The results of a report: who succeeds how often, how fast, and is the difference real?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.errors import EvaluationError
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.report_data import PolicyResult, ReportData
from dexpie_ros.evaluation.statistics import (
    Comparison,
    Interval,
    Summary,
    compare,
    success_curve,
    summarise,
)


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
        raise EvaluationError(f"baseline {baseline!r} is none of {', '.join(named)}")
    base = named[baseline]

    def row(p: PolicyResult) -> Row:
        other = None if p is base else compare(p.trials, base.trials, data.limit_s)
        return p.name, summarise(p.trials, data.limit_s), other

    return [row(p) for p in data.policies]


def verdict_box(data: ReportData) -> str:
    sentences = verdict(data)
    if not sentences:
        return ""
    return '<div class="verdict">' + "".join(f"<p>{escape(s)}</p>" for s in sentences) + "</div>"


def results_section(data: ReportData) -> str:
    rows = _compared(data)
    if not rows:
        return ""
    best = max(range(len(rows)), key=lambda k: rows[k][1].successes)
    heads = ["policy", "successes", "share", "median (s)", "restricted mean (s)",
             "difference (points)", "McNemar p"]  # fmt: skip
    cells = []
    for (name, got, against), policy in zip(rows, data.policies, strict=True):
        note = below(escape(policy.note)) if policy.note else ""
        cells.append(
            [
                escape(name) + note,
                f"{got.successes} / {got.trials}",
                _percent(got.success),
                number(got.median_s),
                f"{got.restricted_mean_s.value:.1f}"
                + below(f"[{got.restricted_mean_s.low:.1f}, {got.restricted_mean_s.high:.1f}]"),
                "" if against is None else _coloured(against.success),
                ""
                if against is None
                else _p_value(against.test.p)
                + below(f"+{against.test.better} −{against.test.worse}"),
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


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} %" + below(f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]")


def _plain_percent(rate: Interval) -> str:
    return f"{100 * rate.value:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f})"


def _points(difference: Interval) -> str:
    values: Sequence[float] = (difference.value, difference.low, difference.high)
    a, b, c = (f"{100 * v:+.1f}".replace("-", "−") for v in values)
    return f"{a} [{b}, {c}]"


def _coloured(difference: Interval) -> str:
    sign = "plus" if difference.low > 0.0 else "minus" if difference.high < 0.0 else ""
    middle, interval = _points(difference).split(" ", 1)
    return f'<span class="{sign}">{middle}</span>' + below(interval)


def _p_value(p: float) -> str:
    if p >= 0.001:
        return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    if p == 0.0:
        return "0"
    mantissa, exponent = f"{p:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} × 10{raised}"


def number(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
