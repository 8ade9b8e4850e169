"""How figures look: SVG that follows light and dark pages, in colours that all can tell apart."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8a8a8a", "#7B61C9")
"""As many as a ladder has arms."""
HUMAN, BLEND = "#E69F00", "#56B4E9"
WIDE_IN, NARROW_IN = 6.6, 4.6
"""Widths of figures that stand alone and of those that share a row."""
INK = "#010203"
"""Stands for ``currentColor``, which matplotlib does not know."""
_STYLE: Any = {
    "font.size": 10.0,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def figure_of(
    name: str, height_in: float, columns: int = 1, width_in: float = WIDE_IN
) -> Iterator[tuple[Figure, list[Axes]]]:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, list(np.atleast_1d(figure.subplots(1, columns)))


def to_svg(figure: Figure, name: str) -> bytes:
    """The figure without date or program, so that equal data give equal bytes."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue().decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # matplotlib quotes the fonts that it looked for; the page's own is what fits.
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", text)
    # The one rule that matplotlib writes would hold for the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    return text.encode()


def percent_axis(axes: Axes, label: str) -> None:
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100 %"])
    axes.grid(axis="x", alpha=0.18, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)


DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), "solid", (0, (3, 1)))
