"""How fast the page is: `dexpie bench web`.

A server as `dexpie web` starts it, and a browser without a window, both on this machine. The browser
measures by its own clock, from the request of a page, or the move of the slider, to the frame that
shows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.bag_reader import find_bag
from dexpie_ros.episodes.benchmarks import camera_bag
from dexpie_ros.episodes.episode_file import read_episode_file, write_episode_file
from dexpie_ros.episodes.labels import write_labels
from dexpie_ros.web.commands import WebError

DIFFERENT = 8
"""bags that are written; the others are links to them, each with a description of its own"""
_LOADS, _JUMPS = 15, 200
_PATIENCE_MS = 120_000

# Notes when the frame with the first row of the table was shown, ms since the page was asked for.
_TABLE = """() => {
  const watch = new MutationObserver(() => {
    if (!document.querySelector('.episodes tbody tr')) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => { window.tableShown = performance.now(); }));
  });
  watch.observe(document, { childList: true, subtree: true });
}"""

# Until the server has looked into all bags.
_CHECKED = """async () => {
  for (;;) {
    if (!(await (await fetch('/api/checks')).json()).left) return;
    await new Promise((done) => setTimeout(done, 500));
  }
}"""

# From the slider's move to the frame with both pictures of that step, ms, one after the other.
_SCRUB = """async ([steps, pause]) => {
  const slider = document.querySelector('.scrub');
  const cameras = document.querySelector('.cameras');
  const to = (step) => new Promise((done) => {
    const began = performance.now();
    const watch = new MutationObserver(() => {
      if (cameras.dataset.step !== String(step)) return;
      watch.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    });
    watch.observe(cameras, { attributes: true, attributeFilter: ['data-step'] });
    slider.value = step;
    slider.dispatchEvent(new Event('input'));
  });
  const took = [];
  for (const step of steps) {
    took.push(await to(step));
    await new Promise((done) => setTimeout(done, pause));
  }
  return took;
}"""


def bench_web(quick: bool = False) -> dict[str, float]:
    """Figures by name, in ms; about 15 s (quick) or 75 s.

    ``table_*``: a page with all episodes, from the request to the first frame with rows, in a browser
    that has nothing in its cache. ``table_first_ms``: the first one after the start of the server,
    before which nobody looked. During the others the server looks into all bags in the background;
    what follows waits for the end of that. ``open_ms``: the same for the first sight of an episode of 30 s (two cameras of 640x480 at 60 Hz,
    labels), until its first pictures. ``scrub_*``: from there to any other of its steps, until both
    pictures are shown. ``neighbour_*``: one step on. ``load_1min``: of the machine before.
    """
    episodes, loads, jumps = (100, 4, 40) if quick else (1000, _LOADS, _JUMPS)
    load = os.getloadavg()[0]
    with browser() as chromium, tempfile.TemporaryDirectory(prefix="dexpie-bench-") as name:
        root = Path(name) / "episodes"
        steps = write_collection(root, episodes, seconds=5.0 if quick else 30.0)
        with serving(root) as address:
            first, *more = (_table(chromium, address) for _ in range(loads))
            opened, scrubbed, neighbours = _scrub(chromium, address, steps, jumps)
    return {
        "episodes": float(episodes),
        "table_first_ms": round(first, 1),
        **summary("table", more),
        "open_ms": round(opened, 1),
        **summary("scrub", scrubbed),
        **summary("neighbour", neighbours),
        "load_1min": round(load, 2),
    }


def summary(name: str, took: Sequence[float]) -> dict[str, float]:
    values = {"median": np.median(took), "p95": np.percentile(took, 95), "worst": max(took)}
    return {f"{name}_{key}_ms": round(float(value), 1) for key, value in values.items()}


def write_collection(root: Path, count: int, seconds: float) -> int:
    """``count`` short episodes with pictures, and ``long`` of ``seconds``; its control steps."""
    for k in range(min(DIFFERENT, count)):
        camera_bag(root / f"e{k:04d}", 1.0, k)
    for k in range(DIFFERENT, count):
        first, path = root / f"e{k % DIFFERENT:04d}", root / f"e{k:04d}"
        content = read_episode_file(first)
        assert content is not None
        path.mkdir()
        os.link(find_bag(first), path / f"{path.name}_0.mcap")
        described = dataclasses.replace(content.info, episode_id=path.name)
        write_episode_file(path, dataclasses.replace(content, info=described))
    long = camera_bag(root / "long", seconds, count)
    recorded = read_episode_file(long)
    assert recorded is not None
    ramp = np.linspace(0.0, 1.0, recorded.steps, dtype=np.float32)
    write_labels(long, "bench", Labels(ramp, ramp, ramp, {"critic": "none"}))
    return recorded.steps


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """Address with token of a `dexpie web` process for ``root``."""
    command = [sys.executable, "-m", "dexpie_ros.cli", "web", str(root), "--port", "0"]
    with (
        open(root.parent / "server.log", "w+", encoding="utf-8") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True
        ) as server,
    ):
        try:
            assert server.stdout is not None
            for line in server.stdout:
                found = re.search(r"http://\S+", line)
                if found:
                    yield found[0]
                    return
            log.seek(0)
            raise WebError(f"`{' '.join(command)}` did not start: {log.read()[-2000:]}")
        finally:
            server.terminate()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A chromium without a window; WebError says what to install where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise WebError(
            "playwright is missing, nothing was measured; pip install 'dexpie_ros[browser]'"
        ) from None
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise WebError("no chromium here, nothing was measured; install the package `chromium`")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                 "--no-first-run", "--disable-dev-shm-usage"]  # fmt: skip
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield running
        finally:
            running.close()


def _table(chromium: Any, address: str) -> float:
    with contextlib.closing(chromium.new_context()) as fresh:
        page = fresh.new_page()
        page.add_init_script(f"({_TABLE})()")
        page.goto(address)
        page.wait_for_function("() => window.tableShown", timeout=_PATIENCE_MS)
        return float(page.evaluate("window.tableShown"))


def _scrub(
    chromium: Any, address: str, steps: int, jumps: int
) -> tuple[float, list[float], list[float]]:
    wanted = np.random.default_rng(0).permutation(np.arange(1, steps))[:jumps].tolist()
    middle = steps // 2
    with contextlib.closing(chromium.new_context()) as fresh:
        page = fresh.new_page()
        page.set_default_timeout(_PATIENCE_MS)
        page.goto(address)
        page.evaluate(_CHECKED)
        page.goto(f"{address.partition('?')[0]}episode?id=long")
        page.wait_for_selector(".cameras[data-step='0']")
        opened = float(page.evaluate("performance.now()"))
        scrubbed = page.evaluate(_SCRUB, [wanted, 0])
        # a person who goes step by step leaves time for what lies ahead to be fetched
        near = [middle, *range(middle + 1, min(middle + 1 + jumps // 4, steps))]
        return opened, scrubbed, page.evaluate(_SCRUB, [near, 200])[1:]
