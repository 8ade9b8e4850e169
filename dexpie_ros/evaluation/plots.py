"""Figures as SVG bytes: readable small, on light and on dark pages, and without seeing hues.

Colours are Okabe and Ito's; what a colour says is also said by position, pattern or text. Text and
axes are drawn in ``currentColor``, so that an inlined figure follows its page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.evaluation.statistics import Interval
from dexpie_ros.evaluation.svg import (
    BLEND,
    DASHES,
    HUMAN,
    INK,
    NARROW_IN,
    PALETTE,
    figure_of,
    percent_axis,
    to_svg,
)


def success_bars(names: Sequence[str], rates: Sequence[Interval], labels: Sequence[str]) -> bytes:
    """One bar per policy with its interval; ``labels`` (for instance 41/50) stand beside it."""
    with figure_of("success_bars", 0.7 + 0.44 * len(names), width_in=NARROW_IN) as (
        figure,
        (axes,),
    ):
        at = np.arange(len(names))[::-1]
        for y, rate, label, k in zip(at, rates, labels, range(len(names)), strict=True):
            axes.barh(y, rate.value, 0.62, color=PALETTE[k % len(PALETTE)], alpha=0.85)
            axes.plot([rate.low, rate.high], [y, y], color=INK, linewidth=1.4)
            for end in (rate.low, rate.high):
                axes.plot([end, end], [y - 0.14, y + 0.14], color=INK, linewidth=1.4)
            axes.text(1.02, y, label, va="center", transform=axes.get_yaxis_transform())
        axes.set_yticks(at, names)
        axes.tick_params(axis="y", length=0)
        percent_axis(axes, "success within the limit")
        axes.set_ylim(-0.6, len(names) - 0.4)
        return to_svg(figure, "success_bars")


def success_over_time(
    names: Sequence[str], times_s: ArrayLike, shares: Sequence[ArrayLike], limit_s: float
) -> bytes:
    """Share of starts mastered by each time: success for every limit one might have set.

    Where all ended before the limit, the curves go on level to it: a limit outside of the axes
    would leave no room for them.
    """
    times = np.asarray(times_s, np.float64)
    right = max(float(times.max()), limit_s)
    with figure_of("success_over_time", 2.9, width_in=NARROW_IN) as (figure, (axes,)):
        for k, (name, share) in enumerate(zip(names, shares, strict=True)):
            y = np.asarray(share, np.float64)
            axes.step(
                np.append(times, right), np.append(y, y[-1]), where="post", label=name,
                linewidth=1.8, color=PALETTE[k % len(PALETTE)], linestyle=DASHES[k % len(DASHES)],
            )  # fmt: skip
        axes.axvline(limit_s, color=INK, linewidth=0.8, alpha=0.6)
        axes.annotate(
            "limit", (limit_s, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, -2),
            textcoords="offset points", ha="right", va="top",
        )  # fmt: skip
        axes.set_xlim(0.0, right)
        axes.set_ylim(0.0, 1.0)
        axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100 %"])
        axes.set_xlabel("time since the start (s)")
        axes.set_ylabel("starts mastered")
        axes.grid(alpha=0.18, linewidth=0.8)
        axes.legend(loc="upper left", handlelength=2.6)
        return to_svg(figure, "success_over_time")


def spans(mask: ArrayLike) -> list[tuple[int, int]]:
    """Runs of true values as (first, one past the last)."""
    flags = np.concatenate([[False], np.asarray(mask, bool), [False]])
    edges = np.flatnonzero(flags[1:] != flags[:-1])
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def value_curve(
    time_s: ArrayLike,
    value: ArrayLike,
    human: ArrayLike,
    blend: ArrayLike | None = None,
    optimality: ArrayLike | None = None,
    outcome: str = "",
    name: str = "value_curve",
) -> bytes:
    """Value over one episode (T,), as the paper's figure 7.

    Where a person drove the ground is shaded (blending lighter), every takeover has a triangle,
    and a strip below the curve is the darker the better the critic judged the step.
    """
    t, v = np.asarray(time_s, np.float64), np.asarray(value, np.float64)
    with figure_of(name, 2.5) as (figure, (axes,)):
        low, high = float(v.min()), float(v.max())
        margin = max(0.03, 0.12 * (high - low))
        bottom, top = low - 2.2 * margin, high + margin
        axes.set_ylim(bottom, top)
        step = float(np.median(np.diff(t))) if len(t) > 1 else 0.04
        # The shading ends above the strip, whose own shades would be tinted by it.
        ground = 0.0 if optimality is None else margin / (top - bottom)
        for mask, colour, alpha, label in (
            (human, HUMAN, 0.28, "person drives"),
            (blend, BLEND, 0.28, "blending"),
        ):
            for k, (a, b) in enumerate(spans(np.zeros(0) if mask is None else mask)):
                axes.axvspan(
                    t[a], t[b - 1] + step, ymin=ground, color=colour, alpha=alpha, linewidth=0,
                    label=label if k == 0 else None,
                )  # fmt: skip
        if optimality is not None:
            _judgement_strip(axes, t, step, np.asarray(optimality), bottom, 0.9 * margin)
        axes.plot(t, v, color=PALETTE[0], linewidth=1.8)
        driven = np.asarray(human, bool)
        if blend is not None:
            driven = driven | np.asarray(blend, bool)
        takeovers = [t[a] for a, _ in spans(driven) if a > 0]
        if takeovers:
            axes.plot(
                takeovers, [top - 0.35 * margin] * len(takeovers), linestyle="none", marker="v",
                markersize=7, color=PALETTE[1], label="takeover",
            )  # fmt: skip
        if outcome:
            axes.annotate(
                outcome, (t[-1] + step, v[-1]), xytext=(5, 0), textcoords="offset points",
                va="center", annotation_clip=False,
            )  # fmt: skip
        axes.set_xlim(t[0], t[-1] + step)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("value")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper right", ncols=3, fontsize=9)
        return to_svg(figure, name)


def _judgement_strip(
    axes: Axes, t: NDArray[np.float64], step: float, good: NDArray, bottom: float, height: float
) -> None:
    edges = np.append(t, t[-1] + step)
    for a, b in _runs_of_level(good):
        level = float(np.mean(good[a:b]))
        axes.fill_between(
            [edges[a], edges[b]], bottom, bottom + height, color=PALETTE[2],
            alpha=0.12 + 0.78 * level, linewidth=0,
        )  # fmt: skip


def _runs_of_level(good: NDArray, levels: int = 6) -> list[tuple[int, int]]:
    """Runs of steps that share a level of optimality: a handful of boxes instead of hundreds."""
    level = np.minimum((np.asarray(good, np.float64) * levels).astype(int), levels - 1)
    cuts = [0, *(np.flatnonzero(np.diff(level)) + 1).tolist(), len(level)]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def histograms(
    names: Sequence[str],
    values_ms: Sequence[ArrayLike],
    targets_ms: Sequence[float | None],
) -> bytes:
    """One histogram per quantity in ms, on a logarithmic count: the tail is what matters."""
    with figure_of("histograms", 2.7, len(names)) as (figure, all_axes):
        for k, axes in enumerate(all_axes):
            x = np.asarray(values_ms[k], np.float64)
            axes.hist(x, bins=40, color=PALETTE[k % len(PALETTE)], alpha=0.85)
            axes.set_yscale("log")
            axes.set_title(names[k], fontsize=10)
            axes.set_xlabel("ms")
            target = targets_ms[k]
            if target is not None:
                axes.axvline(target, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
        all_axes[0].set_ylabel("count")
        return to_svg(figure, "histograms")


def data_sources(names: Sequence[str], live: ArrayLike, lockstep: ArrayLike) -> bytes:
    """Episodes by kind: how many came over the live graph, how many from lockstep (hatched)."""
    a, b = np.asarray(live, int), np.asarray(lockstep, int)
    with figure_of("data_sources", 0.85 + 0.4 * len(names)) as (figure, (axes,)):
        at = np.arange(len(names))[::-1]
        axes.barh(at, a, 0.6, color=PALETTE[0], alpha=0.9, label="live graph")
        axes.barh(
            at, b, 0.6, left=a, color=PALETTE[4], alpha=0.6, hatch="///", edgecolor=INK,
            linewidth=0.0, label="lockstep",
        )  # fmt: skip
        for y, one, two in zip(at, a, b, strict=True):
            text = f"{one} + {two}" if one and two else f"{one + two}"
            axes.annotate(
                text, (one + two, y), xytext=(5, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(at, names)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, max(1, int((a + b).max())) * 1.15)
        axes.set_xlabel("episodes")
        figure.legend(loc="outside upper right", ncols=2)
        return to_svg(figure, "data_sources")


def profiles(
    names: Sequence[str], x: ArrayLike, curves: Sequence[ArrayLike], x_label: str, y_label: str
) -> bytes:
    """Several curves over a shared axis, with a line at zero."""
    with figure_of(f"profiles {x_label}", 2.9) as (figure, (axes,)):
        for k, (name, y) in enumerate(zip(names, curves, strict=True)):
            axes.plot(
                np.asarray(x), np.asarray(y), label=name, linewidth=1.9,
                color=PALETTE[k % len(PALETTE)], linestyle=DASHES[k % len(DASHES)],
            )  # fmt: skip
        axes.axvline(0.0, color=INK, linewidth=0.8, alpha=0.6)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.18, linewidth=0.8)
        figure.legend(loc="outside upper right", ncols=3)
        return to_svg(figure, f"profiles {x_label}")


def losses(names: Sequence[str], steps: Sequence[ArrayLike], values: Sequence[ArrayLike]) -> bytes:
    """Training loss over steps, one curve per policy, on a logarithmic axis."""
    with figure_of("losses", 2.9, width_in=NARROW_IN) as (figure, (axes,)):
        for k, (name, x, y) in enumerate(zip(names, steps, values, strict=True)):
            axes.semilogy(
                np.asarray(x), np.asarray(y), label=name, linewidth=1.8,
                color=PALETTE[k % len(PALETTE)], linestyle=DASHES[k % len(DASHES)],
            )  # fmt: skip
        axes.set_xlabel("training step")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.18, linewidth=0.8)
        axes.legend(loc="upper right", handlelength=2.6)
        return to_svg(figure, "losses")


def before_after(
    names: Sequence[str],
    before: Sequence[Interval],
    after: Sequence[Interval] | None,
    before_name: str,
    after_name: str,
    label: str,
) -> bytes:
    """One row per condition: a hollow dot before, a filled one after, each with its interval."""
    name = f"before_after {label}"
    with figure_of(name, 1.0 + 0.46 * len(names), width_in=NARROW_IN) as (figure, (axes,)):
        at = np.arange(len(names))[::-1]
        sets = [(before, before_name, 0.13, "none", PALETTE[0])]
        if after is not None:
            sets.append((after, after_name, -0.13, PALETTE[1], PALETTE[1]))
        for rates, who, shift, fill, colour in sets:
            y = at + shift
            for position, rate in zip(y, rates, strict=True):
                axes.plot([rate.low, rate.high], [position] * 2, color=colour, linewidth=1.6)
            axes.plot(
                [r.value for r in rates], y, linestyle="none", marker="o", markersize=6.5,
                markerfacecolor=fill, markeredgecolor=colour, label=who, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(at, names)
        axes.tick_params(axis="y", length=0, pad=8)
        percent_axis(axes, label)
        axes.set_ylim(-0.6, len(names) - 0.4)
        figure.legend(loc="outside upper right", ncols=2, fontsize=9)
        return to_svg(figure, name)


def calibration(predicted: ArrayLike, observed: ArrayLike, counts: ArrayLike) -> bytes:
    """Mean return against predicted value on episodes that the critic did not see."""
    p, r = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    n = np.asarray(counts, np.float64)
    with figure_of("calibration", 3.2, width_in=NARROW_IN) as (figure, (axes,)):
        low = min(float(p.min()), float(r.min()), -0.05) - 0.03
        axes.plot([low, 0.0], [low, 0.0], color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.plot(p, r, color=PALETTE[0], linewidth=1.0, alpha=0.6)
        axes.scatter(p, r, s=18 + 60 * n / n.max(), color=PALETTE[0], zorder=3)
        axes.set_xlim(low, 0.02)
        axes.set_ylim(low, 0.02)
        axes.set_xlabel("predicted value")
        axes.set_ylabel("mean return")
        axes.grid(alpha=0.18, linewidth=0.8)
        return to_svg(figure, "calibration")
