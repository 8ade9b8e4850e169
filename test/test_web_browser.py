"""The page as people use it: a real browser, mouse and keys."""

import json
import os
import re
import shutil

import factories
import pytest
from web_pages import TOKEN, at_step, browser, opened, ready, standing

from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.annotations import annotate, read_annotations
from dexpie_ros.episodes.labels import write_labels

SEGMENT = {"images": True, "human": ((15, 30),)}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def pattern(tmp_path_factory):
    """A failure with its correction, a demonstration, a broken bag; copied for every test."""
    root = tmp_path_factory.mktemp("pattern") / "collection"
    recipe = factories.Recipe(steps=45, images=True)
    values = {"kind": "deployment", "policy_id": "bc-1", "pair_id": "pair-7"}
    failed = factories.write_episode(
        root / "e1-failed", recipe, outcome="failure", cause="tipped", stage="reach", **values
    )
    factories.write_episode(
        root / "e2-corrected",
        factories.Recipe(steps=45, **SEGMENT, events=((20, "grasped"),)),
        **{**values, "kind": "correction"},
    )
    factories.write_episode(
        root / "e3-shown", factories.Recipe(steps=20, human=((0, 20),)), kind="demonstration"
    )
    shutil.copytree(failed, root / "e4-broken")
    (bag,) = (root / "e4-broken").glob("*.mcap")
    bag.write_bytes(b"\0" * 1000)
    described = root / "e4-broken/episode.json"
    described.write_text(described.read_text().replace("e1-failed", "e4-broken"))
    shutil.copytree(root / "e4-broken", root / "e5-lost")
    (root / "e5-lost/episode.json").write_text("{")
    ramp = [k / 44 for k in range(45)]
    meta = {"critic": "abc", "q_low": 0.2}
    write_labels(failed, "v0", Labels(ramp, ramp, ramp, meta))
    low, high = [k / 88 for k in range(45)], [k / 44 + 0.5 for k in range(45)]
    write_labels(failed, "v1", Labels(ramp, ramp, ramp, meta, low, high))
    return root


@pytest.fixture
def root(pattern, tmp_path):
    return shutil.copytree(pattern, tmp_path / "collection")


@pytest.fixture(scope="module")
def stand():
    with standing() as stand:
        yield stand


@pytest.fixture
def where(root, stand):
    with stand.showing(root) as address:
        yield address


@pytest.fixture(scope="module")
def window(chromium):
    """One profile for all tests: what was loaded once is in its cache."""
    context = chromium.new_context(accept_downloads=True)
    yield context
    context.close()


def names(page):
    return page.locator(".episodes .name").all_inner_texts()


def saved(page, revision):
    """Until the page says that a revision was saved."""
    page.wait_for_function(
        "n => document.getElementById('said').textContent.includes(`revision ${n}`)", arg=revision
    )


def red(page, camera=0):
    """Red at the middle of a picture: four per control step."""
    return page.evaluate(
        "i => { const c = document.querySelectorAll('canvas')[i];"
        " return c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data[0]; }",
        camera,
    )


def test_table_is_filtered_sorted_and_walked_by_keys(where, window):
    with opened(window, where) as page:
        assert TOKEN not in page.url
        assert set(names(page)) == {"e1-failed", "e2-corrected", "e3-shown", "e4-broken", "e5-lost"}
        assert "no JSON" in page.locator("tr", has_text="e5-lost").inner_text()
        totals = page.locator(".totals").inner_text()
        assert "2 of 4 succeeded" in totals and "1 broken" in totals
        page.select_option("select >> nth=2", "correction")  # kind
        assert names(page) == ["e2-corrected"] and "kind=correction" in page.url
        page.select_option("select >> nth=2", "*")
        page.keyboard.press("Escape")
        page.get_by_label("Operator at least, %").fill("90")
        assert names(page) == ["e3-shown"]
        page.get_by_label("Operator at least, %").fill("")
        page.get_by_label("Outcome").select_option("failure")
        assert set(names(page)) >= {"e1-failed"} and "e2-corrected" not in names(page)
        page.reload()
        ready(page)
        assert "e2-corrected" not in names(page), "a filter survives a reload"
        page.keyboard.press("x")
        page.wait_for_url(re.compile("/$"))
        ready(page)
        page.keyboard.press("/")
        page.keyboard.type("shown")
        assert names(page) == ["e3-shown"]
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/episode"))
        assert "id=e3-shown" in page.url


def test_thumbnails_come_from_the_bag(where, window):
    with opened(window, where) as page:
        page.wait_for_function(
            "() => [...document.querySelectorAll('.episodes img')].every(i => i.naturalWidth > 0)"
        )
        assert page.locator(".no-picture", has_text="no picture").count() >= 1  # e3 has none


def test_scrubbing_shows_both_cameras_of_the_step(where, window):
    with opened(window, where, "/episode?id=e2-corrected") as page:
        at_step(page, 0)
        page.keyboard.press("ArrowRight")
        at_step(page, 1)
        page.keyboard.press("Shift+ArrowRight")
        at_step(page, 26)
        assert abs(red(page, 0) - 4 * 26) < 4 and abs(red(page, 1) - 4 * 26) < 4
        assert "human" in page.locator(".lane-driver .now").inner_text()
        page.keyboard.press("End")
        at_step(page, 44)
        page.keyboard.press("Home")
        at_step(page, 0)
        page.keyboard.press("e")  # next change of driver
        at_step(page, 15)
        page.keyboard.press("e")  # the event
        at_step(page, 20)
        slider = page.get_by_label("Control step")
        slider.fill("33")
        at_step(page, 33)
        assert "step 33" in slider.get_attribute("aria-valuetext")
        box = page.locator(".plot").first.bounding_box()
        page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 20)
        at_step(page, 22)
        page.wait_for_url(re.compile("step=22"))
        page.keyboard.press("+")
        page.keyboard.press("Space")
        page.wait_for_function("() => document.querySelector('.scrub').value === '44'")


def test_labels_have_lanes(where, window):
    with opened(window, where, "/episode?id=e1-failed&step=44") as page:
        at_step(page, 44)
        assert page.locator(".lane-value .now").inner_text() == "1.000 (0.50 … 1.50)"
        assert "10 to 90 %" in page.locator(".lane-value svg").get_attribute("aria-label")
        # the band: wide at the end, half a unit wide at the start, and the curve within it
        band, curve = (
            page.locator(f".lane-value path{name}").evaluate("e => e.getBBox().height")
            for name in (".spread", ".curve")
        )
        assert band == pytest.approx(1.5 * curve, rel=0.01)
        page.get_by_label("Labels").select_option("v0")  # from before there was a spread
        assert page.locator(".lane-value .now").inner_text() == "1.000"
        assert page.locator(".lane-value path.spread").count() == 0
        page.get_by_label("Labels").select_option("v1")
        assert page.locator(".lane-optimality .now").inner_text() == "1.00 good"
        assert "critic abc" in page.locator(".labels").inner_text()
        assert page.locator(".lane-advantage .level.dashed").count() == 1


def test_annotate_by_mouse_and_undo(root, where, window):
    with opened(window, where, "/episode?id=e2-corrected") as page:
        page.get_by_label("Author").fill("ann")
        page.get_by_label("Outcome").get_by_role("button", name="failure").click()
        saved(page, 1)
        page.get_by_label("Cause").fill("collision")
        page.get_by_label("Cause").press("Enter")
        saved(page, 2)
        page.get_by_label("critic").uncheck()
        saved(page, 3)
        current = read_annotations(root / "e2-corrected").current
        assert (current.outcome, current.cause, current.use_for_critic) == (
            "failure",
            "collision",
            False,
        )
        assert read_annotations(root / "e2-corrected").history[1].author == "ann"
        for revision in (4, 5):
            page.get_by_role("button", name="Undo").click()
            saved(page, revision)
        current = read_annotations(root / "e2-corrected").current
        assert (current.outcome, current.cause, current.use_for_critic) == ("failure", None, None)
        assert page.get_by_label("critic").is_checked()
        page.get_by_text("History").click()
        assert page.locator(".history > li").count() == 5
        page.locator(".history > li", has_text="cause: collision").get_by_role("button").click()
        saved(page, 6)
        assert read_annotations(root / "e2-corrected").current.cause == "collision"


def test_annotate_with_keys_only(root, where, window):
    start, step = factories.START_NS, 40_000_000
    with opened(window, where, "/episode?id=e2-corrected&step=5") as page:
        at_step(page, 5)
        page.keyboard.press("f")
        saved(page, 1)
        page.keyboard.press("c")
        page.keyboard.type("sf2[")  # in a field, letters are letters
        page.keyboard.press("Enter")
        saved(page, 2)
        page.keyboard.press("2")
        saved(page, 3)
        page.keyboard.press("[")
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        at_step(page, 8)
        page.keyboard.press("]")
        saved(page, 4)
        page.keyboard.press("b")
        page.keyboard.type("place")
        page.keyboard.press("Enter")
        saved(page, 5)
        current = read_annotations(root / "e2-corrected").current
        assert (current.outcome, current.cause, current.use_for_actor) == ("failure", "sf2[", False)
        # beside what was recorded, steps 15 to 30
        assert [tuple(s) for s in current.interventions] == [
            (start + 5 * step, start + 9 * step), (start + 15 * step, start + 30 * step),
        ]  # fmt: skip
        assert [tuple(s) for s in current.stages] == [(start + 8 * step, "place")]
        for revision in (6, 7):
            page.keyboard.press("u" if revision % 2 else "Control+z")
            saved(page, revision)
        assert read_annotations(root / "e2-corrected").current.interventions is None


def test_two_browsers_no_edit_is_lost(root, where, chromium):
    with (
        opened(chromium, where, "/episode?id=e1-failed") as ann,
        opened(chromium, where, "/episode?id=e1-failed") as bob,
    ):
        ann.get_by_label("Author").fill("ann")
        ann.keyboard.press("Escape")
        ann.get_by_label("Cause").fill("by ann")
        ann.get_by_label("Cause").press("Enter")
        saved(ann, 1)
        bob.get_by_label("Cause").fill("by bob")
        bob.get_by_label("Cause").press("Enter")
        told = bob.get_by_role("alert")
        told.wait_for()
        assert "somebody else changed" in told.inner_text() and "ann saved" in told.inner_text()
        assert "by bob" in told.inner_text(), "what was not saved is still to be seen"
        assert read_annotations(root / "e1-failed").current.cause == "by ann"
        bob.get_by_role("button", name="Save mine on top").click()
        saved(bob, 2)
        history = read_annotations(root / "e1-failed").history
        assert [revision.annotation.cause for revision in history] == ["by ann", "by bob"]


def test_an_edit_from_the_command_line_is_noticed_too(root, where, window):
    with opened(window, where, "/episode?id=e1-failed") as page:
        annotate(root / "e1-failed", outcome="success", author="cli")
        page.keyboard.press("a")
        page.get_by_role("alert").wait_for()
        page.get_by_role("button", name="Keep theirs").click()
        pressed = page.locator(".choice[aria-pressed=true]").inner_text()
        assert "success" in pressed
        assert read_annotations(root / "e1-failed").revision == 1


def test_a_broken_bag_is_shown_as_such(root, where, window):
    with opened(window, where, "/episode?id=e4-broken") as page:
        assert "not an MCAP file" in page.get_by_role("alert").inner_text()
        page.keyboard.press("2")
        saved(page, 1)
        assert read_annotations(root / "e4-broken").current.use_for_actor is False


def test_wrong_token_and_unknown_episode(where, chromium):
    page = chromium.new_context().new_page()
    answer = page.goto(f"{where}/?token=wrong")
    assert answer.status == 403 and "Refused" in page.inner_text("body")
    assert page.goto(f"{where}/").status == 403
    page.goto(f"{where}/episode?id=..%2F..%2Fetc&token={TOKEN}")
    page.wait_for_selector("body[data-ready=no]")
    assert "no episode" in page.get_by_role("alert").inner_text()
    page.context.close()


def test_compare_a_failure_with_its_correction(where, window):
    with opened(window, where, "/compare?pair=pair-7") as page:
        assert page.locator(".two section h2").all_inner_texts() == ["e1-failed", "e2-corrected"]
        page.keyboard.press("Shift+ArrowRight")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.cameras')].every(c => c.dataset.step === '25')"
        )
        assert [abs(red(page, i) - 100) < 4 for i in range(4)] == [True] * 4


def test_results(root, where, window):
    (root / "bench").mkdir()
    (root / "bench/results.json").write_text(json.dumps({"BC": {"successes": 84, "n": [1, 2]}}))
    (root / "bench/report.html").write_text("<!doctype html><title>Found</title><p>report")
    with opened(window, where, "/results") as page:
        page.get_by_text("results.json").last.click()
        page.get_by_text("84").wait_for()
        page.get_by_role("link", name="report.html").click()
        assert page.title() == "Found"


def test_live_without_a_graph(where, window):
    pytest.importorskip("rclpy")
    assert os.environ["ROS_DOMAIN_ID"]  # of the tests alone
    with opened(window, where, "/live") as page:
        page.get_by_text("No graph is heard").wait_for()
        assert not page.get_by_role("button", name="Take over", exact=False).first.is_visible()
