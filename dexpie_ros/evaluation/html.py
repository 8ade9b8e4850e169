"""The few pieces of HTML that a report is made of. Every text is escaped here and nowhere else."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1c1e21; --soft: #5d636b; --line: #dcdfe3;
  --accent: #0a5c91; --good: #0b6e4f; --warn: #8a4b00; --warn-page: #fff5e2; --code: #f0f2f4; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --card: #1c2024; --ink: #e6e8ea; --soft: #a0a7af; --line: #343a41;
  --accent: #74b9e8; --good: #5fd0a5; --warn: #f3bc73; --warn-page: #2c2417; --code: #262b30; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
header p, .note { color: var(--soft); }
h1 { font-size: clamp(1.6rem, 4.5vw, 2.3rem); line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { max-width: 72ch; margin: .5rem 0; }
nav { margin: 1rem 0 0; font-size: .92rem; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; }
nav a { color: var(--accent); text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.verdict { background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--accent);
  border-radius: 8px; padding: .9rem 1.2rem; margin: 1.4rem 0; font-size: 1.12rem; }
.verdict p { margin: .25rem 0; max-width: none; }
.warning { background: var(--warn-page); border-left: 4px solid var(--warn); border-radius: 6px;
  padding: .6rem 1rem; margin: .6rem 0; max-width: none; }
.scroll { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; font-size: .94rem; font-variant-numeric: tabular-nums;
  min-width: min(100%, 600px); }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line);
  padding: .4rem .8rem .4rem 0; vertical-align: bottom; font-size: .86rem; }
td { border-bottom: 1px solid var(--line); padding: .45rem .8rem .45rem 0; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.strong td { font-weight: 650; }
td .note { font-weight: 400; font-size: .86em; }
.below { display: block; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 1rem;
  align-items: start; }
figure { margin: 1rem 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem 1rem .7rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 720px; margin: 0 auto; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 6px; margin-top: .7rem; }
.strip div { font-size: .78rem; color: var(--soft); }
.strip img { width: 100%; display: block; border-radius: 4px; border-bottom: 4px solid var(--line); }
.strip .human img { border-bottom-color: #e69f00; }
.strip .policy img { border-bottom-color: #0072b2; }
code { background: var(--code); border-radius: 4px; padding: .1em .35em; font-size: .88em;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.plus { color: var(--good); } .minus { color: var(--warn); }
@media print { body { background: white; } figure, .verdict { break-inside: avoid; } nav { display: none; } }
"""


def escape(text: object) -> str:
    return html.escape(str(text))


def page(title: str, body: str) -> str:
    """A whole document that loads nothing from anywhere."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[int] = (),
    strong: int | None = None,
) -> str:
    """A table that scrolls sideways where it must. Cells are HTML; ``numbers`` are columns that
    hold figures, ``strong`` a row to stress.
    """

    def row(cells: Sequence[str], tag: str, style: str = "") -> str:
        inner = "".join(
            f"<{tag}{' class=number' if k in numbers else ''}>{cell}</{tag}>"
            for k, cell in enumerate(cells)
        )
        return f"<tr{style}>{inner}</tr>"

    body = "\n".join(
        row(cells, "td", " class=strong" if k == strong else "") for k, cells in enumerate(rows)
    )
    head = row([escape(h) for h in heads], "th")
    return f'<div class="scroll"><table><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'


def figure(svg: bytes, caption: str, alternative: str) -> str:
    """A drawing within the page. ``alternative`` says in words what it shows."""
    drawn = svg.decode().replace("<svg ", f'<svg role="img" aria-label="{escape(alternative)}" ', 1)
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def warning(text: str) -> str:
    return f'<p class="warning">{escape(text)}</p>'


def below(text: str) -> str:
    """The small second line of a cell; ``text`` is HTML."""
    return f'<span class="note below">{text}</span>'


def picture(image: NDArray[np.uint8], width: int = 208, quality: int = 80) -> str:
    """A data URI of an RGB image (height, width, 3), made no wider than ``width``."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image of shape {image.shape} and type {image.dtype}, not RGB uint8")
    if image.shape[1] > width:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        size = (width, height)
    else:
        size = (image.shape[1], image.shape[0])
    small = cv2.resize(np.ascontiguousarray(image[..., ::-1]), size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be written as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
