"""The report of an experiment: one table and two figures per cell, all differences, all critics."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros import config as configs
from dexpie_ros.config import write_atomic, write_json
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.experiments.results import (
    GAINS,
    ArmResult,
    Difference,
    critic_reports,
    difference,
    load_results,
    to_plain,
)
from dexpie_ros.evaluation.experiments.settings import ExperimentConfig
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.statistics import Interval, success_curve

BASELINE = "bc"


def write_page(
    settings: ExperimentConfig,
    root: str | Path,
    command: str,
    date: str,
    failed: Sequence[str] = (),
) -> Path:
    """Write ``results.json`` and ``report.html`` below ``root`` from what is there by now."""
    folder = Path(root)
    results = load_results(settings, folder)
    about = {
        "date": date,
        "command": command,
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "preset": "cpu",
        **configs.provenance(),
    }
    write_json(folder / "results.json", {"about": about, **to_plain(settings, results)})
    write_atomic(folder / "report.html", _render(settings, folder, results, about, failed))
    return folder / "report.html"


def _render(
    settings: ExperimentConfig,
    folder: Path,
    results: Sequence[ArmResult],
    about: Mapping[str, str],
    failed: Sequence[str],
) -> str:
    title = f"Experiment {settings.name}"
    head = f"<header><h1>{escape(title)}</h1><p>{escape(about['date'])}</p></header>"
    body = [head, _targets(settings, results)]
    body += [html.warning(f"{name} failed; see its log.txt") for name in failed]
    missing = len(settings.units()) * 1 - len(
        {(r.cell, r.variant, s) for r in results for s in r.seeds}
    )
    if missing > 0:
        body.append(html.warning(f"{missing} units have no results yet"))
    for cell in dict.fromkeys(r.cell for r in results):
        for variant in settings.variants:
            rows = [r for r in results if r.cell == cell and r.variant == variant.name]
            if rows:
                name = cell if len(settings.variants) == 1 else f"{cell}, {variant.name}"
                body.append(_cell(name, rows))
    body.append(_differences(settings, results))
    body.append(_critics(critic_reports(settings, folder)))
    rows_of = [[escape(k), f"<code>{escape(v)}</code>"] for k, v in about.items()]
    body.append("<h2>How to get this again</h2>" + html.table(["", ""], rows_of))
    body.append(
        '<p class="note">Intervals are 95 %. Over seeds: percentile bootstrap, none below three '
        "seeds. The analysis was fixed in docs/protocol.md before the runs.</p>"
    )
    return html.page(title, "\n".join(body))


def _targets(settings: ExperimentConfig, results: Sequence[ArmResult]) -> str:
    rows = []
    for name, gain in GAINS.get(settings.name, ()):
        value = gain(results)
        if value is not None:
            rows.append([f"<code>{escape(name)}</code>", _points(value)])
    if not rows:
        return ""
    table = html.table(["difference of success, mean over tasks and seeds", "points"], rows, [1])
    return f'<div class="verdict">{table}</div>'


def _cell(name: str, rows: Sequence[ArmResult]) -> str:
    heads = ["arm", "seeds", "success, mean over seeds", "by seed", "median (s)",
             "restricted mean (s)", "failures"]  # fmt: skip
    table = []
    for r in rows:
        pooled = r.pooled()
        by_seed = " ".join(f"{100 * s.success.value:.0f}" for s in r.by_seed())
        table.append(
            [
                escape(r.arm),
                str(len(r.seeds)),
                _percent(r.success()) + below(f"{pooled.successes} / {pooled.trials}"),
                f'<span class="note">{by_seed}</span>',
                _number(pooled.median_s),
                _seconds(r.restricted_mean_s()),
                f'<span class="note">{escape(_causes(r))}</span>',
            ]
        )
    names = [r.arm for r in rows]
    bars = plots.success_bars(
        names,
        [_drawn(r) for r in rows],
        [f"{100 * r.success().value:.0f} %" for r in rows],
    )
    longest = max(t.time_s for r in rows for trials in r.trials for t in trials)
    times = np.linspace(0.0, longest, 241)
    curves = plots.success_over_time(
        names,
        times,
        [np.mean([success_curve(t, times) for t in r.trials], axis=0) for r in rows],
        rows[0].limit_s,
    )
    return (
        f"<h2>{escape(name)}</h2>"
        + html.table(heads, table, (1, 2, 4, 5))
        + '<div class="pair">'
        + html.figure(bars, f"Success within the limit; {_whiskers(rows)}.", "success by arm")
        + html.figure(curves, "Share of starts mastered by each time, mean over seeds.", "curves")
        + "</div>"
    )


def _whiskers(rows: Sequence[ArmResult]) -> str:
    if any(math.isnan(r.success().low) for r in rows):
        return (
            "whiskers: Wilson, 95 %, over all trials; for these trained policies, not for others, "
            "of which there are too few to tell"
        )
    return "whiskers: 95 %, bootstrap over training seeds"


def _drawn(r: ArmResult) -> Interval:
    """Interval over seeds, or Wilson's where there are too few seeds for one."""
    over = r.success()
    return r.pooled().success if math.isnan(over.low) else over


def _causes(r: ArmResult) -> str:
    counts: dict[str, int] = {}
    for trials in r.trials:
        for t in trials:
            if not t.success:
                counts[t.cause or "unknown"] = counts.get(t.cause or "unknown", 0) + 1
    return ", ".join(f"{c} {n}" for c, n in sorted(counts.items(), key=lambda x: -x[1]))


def _differences(settings: ExperimentConfig, results: Sequence[ArmResult]) -> str:
    pairs: list[Difference] = []
    for r in results:
        base = [b for b in results if b.cell == r.cell and b.variant == r.variant]
        for other in base:
            if other.arm in (BASELINE, "hg_fast", "recap") and other.arm != r.arm:
                pairs.append(difference(r, other))
        later = [
            b for b in results if b.cell == r.cell and b.arm == r.arm and b.variant != r.variant
        ]
        names = [v.name for v in settings.variants]
        pairs += [
            difference(r, b) for b in later if names.index(r.variant) < names.index(b.variant)
        ]
    if not pairs:
        return ""
    rows = [
        [
            escape(d.cell),
            f"{escape(d.first)} − {escape(d.second)}",
            _points(d.success),
            f"{d.seeds_ahead[0]} : {d.seeds_ahead[1]}",
            f"{d.sign_p:.3f}",
            _seconds(d.restricted_mean_s),
            " ".join(f"+{m.better}−{m.worse}" for m in d.within[:12]),
        ]
        for d in pairs
    ]
    heads = ["task", "difference", "points", "seeds ahead : behind", "sign test p",
             "restricted mean (s)", "starts only one mastered, by seed"]  # fmt: skip
    return "<h2>Differences, paired by seed and start</h2>" + html.table(heads, rows, (2, 3, 4, 5))


def _critics(reports: Sequence[Mapping[str, Any]]) -> str:
    if not reports:
        return ""
    rows = []
    for r in reports:
        held = (r["metrics"] or {}).get("held_out")
        seen = (r["metrics"] or {}).get("in_sample")
        aucs = ", ".join(f"{e['event']} {_two(e['auc']['value'])}" for e in r["events_sharp"])
        shares = ", ".join(f"{s['source']} {100 * s['optimal']:.0f} %" for s in r["sources"])
        rows.append(
            [
                escape(r["unit"]),
                escape(r["labels"]),
                _two(held["explained_variance"]["value"]) if held else "–",
                _two(seen["explained_variance"]["value"]) if seen else "–",
                f"{r['failed_corrections']} / {r['corrections']}",
                f'<span class="note">{escape(aucs)}</span>',
                f'<span class="note">{escape(shares)}</span>',
                str(len(r["warnings"])),
            ]
        )
    heads = ["unit", "labels", "explained variance, held out", "in sample", "failed corrections",
             "AUC of good against, next ten steps", "I > 0.5", "warnings"]  # fmt: skip
    return "<h2>Critics</h2>" + html.table(heads, rows, (2, 3, 4, 7))


def _percent(rate: Interval) -> str:
    return f"{100 * rate.value:.1f} %{_bracket(rate, 100.0, 0)}"


def _points(d: Interval) -> str:
    return f"{100 * d.value:+.1f}".replace("-", "−") + _bracket(d, 100.0, 1, "+")


def _seconds(x: Interval) -> str:
    return f"{x.value:.2f}".replace("-", "−") + _bracket(x, 1.0, 2)


def _bracket(x: Interval, scale: float, digits: int, sign: str = "") -> str:
    if math.isnan(x.low):
        return below("too few seeds")
    low, high = (f"{scale * v:{sign}.{digits}f}".replace("-", "−") for v in (x.low, x.high))
    return below(f"[{low}, {high}]")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
