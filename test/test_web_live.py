"""The Live page before a running graph: what a person sees and does there reaches the robot."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from live_graph import LiveGraph, live_graph
from web_pages import NAMELESS, UNREADABLE, browser, opened, served

from dexpie_ros.control.types import Mode
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.web import live_routes

pytestmark = pytest.mark.slow
WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, chromium: object) -> Iterator[LiveGraph]:
    """In lockstep: a busy machine makes it slow, never wrong."""
    folder = tmp_path_factory.mktemp("live")
    with live_graph(folder, lockstep=True, images="jpeg", width=WIDTH, height=HEIGHT) as graph:
        yield graph


@pytest.fixture(scope="module")
def page(live: LiveGraph, chromium: object) -> Iterator[object]:
    live.episodes.mkdir(exist_ok=True)
    with served(live.episodes) as where, opened(chromium, where, "/live") as page:
        page.set_default_timeout(60_000)
        yield page


def mode(page, live: LiveGraph, wanted: Mode) -> None:
    """Until the page says so; then the graph must agree."""
    style = wanted.name.lower().replace("_", "-")
    page.wait_for_selector(f".mode-{style}")
    live.until(lambda: live.mode is wanted, f"{wanted} beside the page")


def panel(page, text: str) -> None:
    page.wait_for_function(
        "text => document.querySelector('.panel').textContent.includes(text)", arg=text
    )


def press(page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def test_an_episode_is_run_from_the_page(page, live: LiveGraph) -> None:
    mode(page, live, Mode.HOLD)
    live.start("seen")
    mode(page, live, Mode.POLICY)
    panel(page, "session: running seen")
    panel(page, "alignment: ")
    # both cameras: pictures of the size that is rendered, and newer ones come
    page.wait_for_function(
        "size => [...document.querySelectorAll('.cameras canvas')].every("
        "c => c.dataset.number && c.width === size[0] && c.height === size[1])",
        arg=[WIDTH, HEIGHT],
    )
    cameras = page.locator(".cameras canvas")
    before = [int(camera.get_attribute("data-number")) for camera in cameras.all()]
    assert len(before) == 2
    page.wait_for_function(
        "before => [...document.querySelectorAll('.cameras canvas')].every((c, k) => Number(c.dataset.number) > before[k] + 2)",
        arg=before,
    )
    front, wrist, least = brightness(page)
    assert front != wrist and least > 10, "pictures of two cameras, and never a blank in between"
    for stream in ("/control/step", "/camera/wrist/color/image_raw/compressed", "/arm/tcp_pose"):
        row = page.locator("tr", has=page.get_by_text(stream, exact=True))
        row.get_by_text("fresh").wait_for()
    assert page.evaluate(NAMELESS) == [] and page.evaluate(UNREADABLE) == []

    press(page, "Take over out of alignment")
    mode(page, live, Mode.HUMAN)
    press(page, "Give back")
    mode(page, live, Mode.POLICY)
    page.keyboard.press("F")
    mode(page, live, Mode.HUMAN)
    panel(page, "interventions 2")
    press(page, "Give back")
    mode(page, live, Mode.POLICY)

    press(page, "✓ Success")
    panel(page, "session: idle")
    mode(page, live, Mode.HOLD)
    record = read_episode_file(live.episodes / "seen")
    assert (record.status, record.info.outcome) == ("finished", "success")
    assert 0 < record.human_steps < record.steps


def test_a_failure_asks_for_its_cause_and_the_table_has_it(page, live: LiveGraph) -> None:
    live.start("failed")
    panel(page, "session: running failed")
    page.keyboard.press("f")
    why = page.get_by_role("group", name="Why did it fail?")
    why.get_by_role("button", name="dropped").wait_for()
    page.keyboard.press("2")
    panel(page, "session: idle")
    record = read_episode_file(live.episodes / "failed")
    assert (record.info.outcome, record.info.cause) == ("failure", "dropped")
    assert why.get_by_role("button").count() == 0, "asked once"


def test_a_refusal_is_told(page, live: LiveGraph) -> None:
    live.end()
    panel(page, "session: idle")
    press(page, "✓ Success")
    page.locator("#said.bad").get_by_text("no episode is running").wait_for()


def test_the_start_to_be_restored_lies_over_the_live_picture(page, live: LiveGraph) -> None:
    """A session from the page: a deployment fails, its correction begins at the same start."""
    live.end()
    for prompt in ("watch; enter: start", "s: success"):
        page.keyboard.press("Enter")
        panel(page, prompt)
    mode(page, live, Mode.POLICY)
    live.until(lambda: live.session.phase == 2, "it runs")
    failed = live.session.episode_id
    panel(page, f"session: running {failed}")
    overlay = page.locator(".start-picture")
    assert not overlay.is_visible()
    page.keyboard.press("f")
    page.get_by_role("group", name="Why did it fail?").get_by_role(
        "button", name="dropped"
    ).wait_for()
    page.keyboard.press("2")
    panel(page, "restore the start of")
    page.keyboard.press("Enter")
    panel(page, "its first picture lies over the live one")
    page.get_by_alt_text(f"how the scene was at the start of {failed}").wait_for()
    page.wait_for_function(
        "size => { const e = document.querySelector('.start-picture');"
        " return e.naturalWidth === size[0] && e.naturalHeight === size[1]; }",
        arg=[WIDTH, HEIGHT],
    )
    page.keyboard.press("Enter")
    panel(page, "s: success")
    overlay.wait_for(state="hidden")
    page.keyboard.press("z")
    panel(page, "session: idle")


def test_stop_and_clear(page, live: LiveGraph) -> None:
    press(page, "Stop")
    mode(page, live, Mode.FAULT)
    page.locator(".mode").get_by_text("emergency stop").wait_for()
    press(page, "Clear fault")
    mode(page, live, Mode.HOLD)


def test_a_graph_that_goes_is_not_shown_as_if_it_were_there(page, live: LiveGraph) -> None:
    pid = live.pid("intervention_arbiter")
    os.kill(pid, signal.SIGSTOP)  # so that it is not back before the page has looked
    page.locator(".mode-none").get_by_text("the arbiter is silent").wait_for()
    live.kill("intervention_arbiter")
    live.until(lambda: live.pid("intervention_arbiter") not in (None, pid), "it is started again")
    mode(page, live, Mode.HOLD)


def test_the_page_leaves_the_graph_when_nobody_looks(page, live: LiveGraph, monkeypatch) -> None:
    def there() -> bool:
        return "web_page" in live.client.node.get_node_names()

    live.until(there, "the page is a node of the graph")
    monkeypatch.setattr(live_routes, "IDLE_S", 0.5)
    page.goto("about:blank")
    live.until(lambda: not there(), "the page has left it")


def brightness(page) -> tuple[float, float, float]:
    """Mean over each camera's picture, 0 .. 255, and the least of it in one second."""
    return tuple(
        page.evaluate(
            """async () => {
  const mean = c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    return d.reduce((sum, v, k) => sum + (k % 4 === 3 ? 0 : v), 0) / (0.75 * d.length); };
  const canvases = [...document.querySelectorAll('.cameras canvas')];
  let least = 255;
  for (let k = 0; k < 50; k++) { await new Promise(d => setTimeout(d, 20)); least = Math.min(least, ...canvases.map(mean)); }
  return [...canvases.map(mean), least]; }"""
        )
    )
