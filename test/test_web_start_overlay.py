"""The picture of a start to be restored: only what the plan names, only from below the episodes."""

import json
from types import SimpleNamespace

import factories
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra `web`: pip install -e '.[web]'")

from web_pages import made_up_graph, opened, ready

from dexpie_ros.episodes.images import encode_jpeg
from dexpie_ros.episodes.start_picture import start_picture
from dexpie_ros.web.live_routes import LiveRoutes
from dexpie_ros.web.start_overlay import StartPicture, planned_start, read_start, start_file

pytest_plugins = ("web_fixtures",)


def plan(episode="e1-failed", picture="", **more):
    return json.dumps({"assignment": {"same_start_as": episode}, "picture": str(picture), **more})


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "{}", "[" * 100_000, plan(), plan(assignment=None, picture="a.jpg"),
     plan(episode="", picture="a.jpg"), plan(episode=3, picture="a.jpg"), '{"picture": "a.jpg"}'],
)  # fmt: skip
def test_a_plan_without_a_picture_has_none(text):
    assert planned_start(text) is None


def test_only_a_picture_below_the_episodes_is_served(root, tmp_path):
    picture = start_picture(root / "e1-failed")
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(picture.read_bytes())
    (root / "link.jpg").symlink_to(outside)
    (root / "secret.jpg").write_text("no picture")
    routes = LiveRoutes(root)

    def served(path, episode="e1-failed"):
        start = planned_start(plan(picture=path))
        graph = SimpleNamespace(start=lambda: start, state=lambda: {}, stop=lambda: None)
        routes._graph = graph
        told = json.loads(routes.state(None).body)["start"]
        assert told["episode"] == "e1-failed"
        answer = routes.start(SimpleNamespace(query_params={"episode": episode}))
        return bool(told["problem"]), answer.status_code, answer.body

    assert served(picture) == (False, 200, picture.read_bytes())
    assert served(picture, episode="e2-corrected")[1] == 404, "not what the plan names"
    for path in (
        outside, root / "link.jpg", root / "../outside.jpg", "/etc/passwd", root / "none.jpg",
        root / "e1-failed/episode.json", root, "a\0.jpg",
    ):  # fmt: skip
        problem, status, body = served(path)
        assert (problem, status) == (True, 404), path
        assert b"root:" not in body
    assert served(root / "secret.jpg")[1] == 404, "called .jpg, but none"
    start = StartPicture("e1-failed", str(picture))
    assert start_file(start, root) == picture and read_start(start, root / "e2-corrected") is None
    routes._graph = None
    assert routes.start(SimpleNamespace(query_params={"episode": "e1-failed"})).status_code == 404


def test_it_lies_over_the_front_camera_until_the_episode_runs(where, window):
    start = {"episode": "e1-failed", "problem": ""}
    image = factories.synthetic_image(factories.Recipe(), 0, "front", np.random.default_rng(1))
    asked = []

    def picture(route):
        asked.append(route.request.url)
        route.fulfill(body=encode_jpeg(image), content_type="image/jpeg")

    with opened(window, where) as page:
        state = {"start": start, "phase": "idle"}
        made_up_graph(page, **state)
        page.route("**/api/live/start*", picture)
        page.goto(f"{where}/live")
        ready(page)
        overlay = page.get_by_alt_text("start of e1-failed")
        overlay.wait_for()
        page.wait_for_function("() => document.querySelector('.start-picture').naturalWidth === 32")
        assert overlay.evaluate("e => getComputedStyle(e).opacity") == "0.5"
        over, under = overlay.bounding_box(), page.locator(".cameras canvas").first.bounding_box()
        assert over == pytest.approx(under, abs=1), "it lies exactly on the live picture"
        page.get_by_label("Opacity").fill("80")
        assert overlay.evaluate("e => getComputedStyle(e).opacity") == "0.8"
        page.keyboard.press("o")
        overlay.wait_for(state="hidden")
        page.keyboard.press("o")
        overlay.wait_for()
        made_up_graph(page, **{**state, "phase": "running"})
        overlay.wait_for(state="hidden")
        assert not page.get_by_label("Opacity").is_visible()
        made_up_graph(page, start={**start, "problem": "a.jpg is not below b"}, phase="idle")
        page.get_by_text("no picture of the start of e1-failed: a.jpg is not below b").wait_for()
        assert not overlay.is_visible()
        assert len(asked) == 1 and "episode=e1-failed" in asked[0], "loaded once"
