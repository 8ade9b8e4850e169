"""The report of an experiment: a table and figures per cell, all differences, critics, sources."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config as configs
from dexpie_ros.config import write_atomic, write_json
from dexpie_ros.evaluation import html, plots
from dexpie_ros.evaluation.experiments.gains import gains, is_claim, to_plain
from dexpie_ros.evaluation.experiments.results import (
    ArmResult,
    Found,
    differences,
    load_found,
)
from dexpie_ros.evaluation.experiments.settings import EVALUATIONS, ExperimentConfig
from dexpie_ros.evaluation.experiments.sources import (
    Source,
    commits,
    critic_reports,
    failures,
    learning_curves,
    load_sources,
    mixture,
    summary,
)
from dexpie_ros.evaluation.experiments.trials_file import NOTHING, Added, write_trials
from dexpie_ros.evaluation.html import below, escape
from dexpie_ros.evaluation.machine import machine
from dexpie_ros.evaluation.statistics import Interval, success_curve

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
_NAMED = 12
"""So many missing evaluations are named, the rest counted."""


def write_page(
    settings: ExperimentConfig,
    root: str | Path,
    command: str,
    date: str,
    failed: Sequence[str] = (),
    added: Added = NOTHING,
) -> Path:
    """Write ``results.json``, ``trials.json`` and ``report.html`` below ``root`` from what is
    there by now, and from what was ``added`` (`read_trials`).

    Raises:
        ConfigError: what was added contradicts what is there; nothing is written then.
    """
    folder = Path(root)
    found, sources = load_found(settings, folder, added.trials), load_sources(settings, folder)
    made_at = tuple(sorted({*commits(sources), *added.commits}))
    about = {
        "date": date,
        "command": command,
        "machine": f"{machine()}, Python {platform.python_version()}",
        "preset": "cpu",
        **configs.provenance(),
        "first_start": settings.first_start,
        **({"added": added.about} if added.about else {}),
    }
    if settings.first_start != EVALUATIONS:
        about["development"] = _development(settings)
    content = {
        "about": about,
        **to_plain(settings, found.results),
        "missing": list(found.missing),
        "failed": [*failed, *failures(settings, folder)],
        "commits": list(made_at),
        "mixed": mixture(made_at),
        "critics": [summary(r) for r in critic_reports(settings, folder)],
        "sources": [dataclasses.asdict(s) for s in sources],
    }
    write_json(folder / "results.json", content)
    write_trials(settings, found.results, made_at, folder / "trials.json")
    text = _render(settings, folder, found, sources, content)
    write_atomic(folder / "report.html", text)
    return folder / "report.html"


def _render(
    settings: ExperimentConfig,
    folder: Path,
    found: Found,
    sources: Sequence[Source],
    content: Mapping[str, Any],
) -> str:
    title, results, about = f"Experiment {settings.name}", found.results, content["about"]
    head = f"<header><h1>{escape(title)}</h1><p>{escape(about['date'])}</p></header>"
    body = [head]
    if "development" in about:
        body.append(html.warning(about["development"]))
    body.append(_targets(settings, results))
    if content["mixed"]:
        body.append(html.warning(content["mixed"]))
    if found.missing:
        body.append(html.warning(_missing(settings, found.missing)))
    body += [html.warning(f"failed: {name}; see its log.txt") for name in content["failed"]]
    for cell in dict.fromkeys(r.cell for r in results):
        kinds = [(v.name, k) for v in settings.variants for k in range(1, settings.rounds + 1)]
        for variant, k in kinds:
            rows = [r for r in results if (r.cell, r.variant, r.round) == (cell, variant, k)]
            if rows:
                name = cell if len(settings.variants) == 1 else f"{cell}, {variant}"
                name += f", round {k}" if settings.rounds > 1 else ""
                curves = learning_curves(settings, folder, cell, variant, k)
                body.append(_cell(name, rows, curves))
    body.append(_differences(settings, results))
    body.append(_critics(critic_reports(settings, folder)))
    body.append(_sources(sources))
    rows_of = [[escape(k), f"<code>{escape(v)}</code>"] for k, v in about.items()]
    body.append("<h2>How to get this again</h2>" + html.table(["", ""], rows_of))
    body.append(
        '<p class="note">Intervals are 95 %. Over seeds: Student&#39;s, none below three '
        "seeds. The analysis, and what was changed of it when, stands in docs/protocol.md.</p>"
    )
    return html.page(title, "\n".join(body))


def _development(settings: ExperimentConfig) -> str:
    return (
        f"Development starts ({settings.first_start} on): these figures are for choosing settings, "
        f"and are none of the experiment, whose starts are held out ({EVALUATIONS} on)"
    )


def _missing(settings: ExperimentConfig, missing: Sequence[str]) -> str:
    total = sum(len(settings.arms_of(u)) for u in settings.units())
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return (
        f"{len(missing)} of {total} evaluations have no result yet and count for nothing here: "
        f"{', '.join(missing[:_NAMED])}{more}"
    )


def _targets(settings: ExperimentConfig, results: Sequence[ArmResult]) -> str:
    rows = [
        [
            f"<code>{escape(name)}</code>"
            + below(escape(gain.covers))
            + ("" if is_claim(settings, name) else below("exploratory")),
            _points(gain.success),
            _seconds(gain.restricted_mean_s, "+"),
        ]
        for name, gain in gains(settings, results).items()
    ]
    if not rows:
        return ""
    heads = ["difference, mean over tasks and seeds", "success (points)", "restricted mean (s)"]
    note = "No claim follows from an interval that contains zero."
    return f'<div class="verdict">{html.table(heads, rows, (1, 2))}<p class="note">{note}</p></div>'


def _cell(name: str, rows: Sequence[ArmResult], trained: Mapping[str, Curve]) -> str:
    heads = ["arm", "seeds", "success, mean over seeds", "by seed", "median (s)",
             "restricted mean (s)", "contact entry", "failures within the limit"]  # fmt: skip
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
                f"{100 * r.contact_entry():.0f} %",
                f'<span class="note">{escape(_counted(r.failures()))}</span>',
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
        + html.table(heads, table, (1, 2, 4, 5, 6))
        + '<div class="pair">'
        + html.figure(bars, f"Success within the limit; {_whiskers(rows)}.", "success by arm")
        + html.figure(curves, "Share of starts mastered by each time, mean over seeds.", "curves")
        + _losses(trained)
        + "</div>"
    )


def _losses(trained: Mapping[str, Curve]) -> str:
    if not trained:
        return ""
    drawn = plots.losses(list(trained), [x for x, _ in trained.values()],
                         [y for _, y in trained.values()])  # fmt: skip
    caption = (
        "Learning curves: training loss, mean over seeds. Arms learn from different data, so their "
        "heights say nothing about which is better."
    )
    return html.figure(drawn, caption, "training loss by arm")


def _whiskers(rows: Sequence[ArmResult]) -> str:
    if any(math.isnan(r.success().low) for r in rows):
        return (
            "whiskers: Wilson, 95 %, over all trials; for these trained policies, not for others, "
            "of which there are too few to tell"
        )
    return "whiskers: 95 %, over training seeds"


def _drawn(r: ArmResult) -> Interval:
    """Interval over seeds, or Wilson's where there are too few seeds for one."""
    over = r.success()
    return r.pooled().success if math.isnan(over.low) else over


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {n}" for cause, n in counts.items())


def _differences(settings: ExperimentConfig, results: Sequence[ArmResult]) -> str:
    rows = [
        [
            escape(d.cell),
            f"{escape(d.first)} − {escape(d.second)}",
            _points(d.success),
            f"{d.seeds_ahead[0]} : {d.seeds_ahead[1]}",
            f"{d.sign_p:.3f}",
            _seconds(d.restricted_mean_s, "+"),
            ", ".join(f"+{m.better}−{m.worse} (p {m.p:.2g})" for m in d.within),
        ]
        for d in differences(settings, results)
    ]
    if not rows:
        return ""
    heads = ["task", "difference", "points", "seeds ahead : behind", "sign test p",
             "restricted mean (s)", "by seed: starts only one mastered (McNemar)"]  # fmt: skip
    return (
        "<h2>Differences, paired by seed and start</h2>"
        + html.table(heads, rows, (2, 3, 4, 5))
        + '<p class="note">McNemar\'s p is exact and holds for two trained policies, not for the '
        "methods. All of these are exploratory: claims are of the gains over tasks.</p>"
    )


def _sources(sources: Sequence[Source]) -> str:
    if not sources:
        return ""
    rows = [
        [
            escape(s.unit),
            escape(s.arm),
            f"<code>{escape(s.policy_id[:12])}</code>",
            f"<code>{escape(s.data_sha256[:12])}</code>",
            f"<code>{escape(s.trained_at)}</code>",
            f"<code>{escape(s.evaluated_at)}</code>",
        ]
        for s in sources
    ]
    heads = ["unit", "arm", "policy", "data SHA-256", "trained at commit", "evaluated at commit"]
    return "<h2>What the figures were made of</h2>" + html.table(heads, rows)


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
                escape(r["labels"]) + below(f"<code>{escape(r['hash'])}</code>"),
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


def _seconds(x: Interval, sign: str = "") -> str:
    """``sign``: ``+`` for a difference."""
    return f"{x.value:{sign}.2f}".replace("-", "−") + _bracket(x, 1.0, 2, sign)


def _bracket(x: Interval, scale: float, digits: int, sign: str = "") -> str:
    if math.isnan(x.low):
        return below("too few seeds")
    low, high = (f"{scale * v:{sign}.{digits}f}".replace("-", "−") for v in (x.low, x.high))
    return below(f"[{low}, {high}]")


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
