"""The page as people use it: a real browser, mouse and keys."""

import json
import os
import re
import sys
import types

import cv2
import factories
import pytest
from web_pages import TOKEN, at_step, opened, ready

from dexpie_ros import bench, cli
from dexpie_ros.control.session import SessionConfig, StageQuota

pytest_plugins = ("web_fixtures",)


def names(page):
    return page.locator(".episodes .name").all_inner_texts()


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


def test_alignment_tells_what_is_in_the_way(root, where, window):
    unknown = (0.1, float("nan"), 0.0, 0.0, 0.0, 0.0)
    off = ((0, 2.0, (0.1, 0.0, 0.0, -0.42, 0.0, 0.35)), (5, 2.0, (0.05,) * 6), (10, 31.0, unknown))
    recipe = factories.Recipe(steps=20, alignment=off)
    factories.write_episode(root / "e6-off", recipe)
    told = ["2°, index 0.42 more closed: not aligned", "2°, little 0.05 more open: aligned",
            "31°, fingers unknown: not aligned"]  # fmt: skip
    with opened(window, where, "/episode?id=e6-off") as page:
        page.locator(".lane-alignment").wait_for()
        for step, text in zip((0, 7, 12), told, strict=True):
            page.get_by_label("Control step").fill(str(step))
            page.locator(".lane-alignment .now").get_by_text(text, exact=True).wait_for()
        curves = page.locator(".lane-alignment path.curve")
        assert curves.count() == 2
        limit = float(page.locator(".lane-alignment .level").get_attribute("y1"))
        wrist, fingers = (
            [float(pair.split()[1]) for pair in re.split("[ML]", curve.get_attribute("d"))[1:]]
            for curve in curves.all()
        )
        # higher is a smaller y: what is above the limit is the reason
        assert [y < limit for y in wrist] == [False, False, True]
        assert [y < limit for y in fingers] == [True, False]


def test_a_video_is_made_while_one_looks(where, window, tmp_path):
    with opened(window, where, "/episode?id=e1-failed") as page:
        with page.expect_download() as download:
            page.keyboard.press("v")
        file = tmp_path / "video.mp4"
        download.value.save_as(file)
        assert download.value.suggested_filename == "e1-failed_v1.mp4"
        pictures = cv2.VideoCapture(str(file))
        assert pictures.get(cv2.CAP_PROP_FRAME_COUNT) == 45
        page.get_by_role("link", name="e1-failed_v1.mp4").wait_for()
        button = page.get_by_role("button", name="Save as video")
        assert button.is_enabled()
        page.route(
            "**/api/video*", lambda route: route.fulfill(status=422, json={"error": "no room"})
        )
        button.click()
        page.get_by_text("No video: no room").wait_for()
        assert button.is_enabled(), "may be tried again"


def test_a_video_shows_how_far_it_is_and_can_be_cancelled(where, window):
    job = {"id": "1", "state": "running", "progress": 0.4, "error": "", "name": "v.mp4", "bytes": 0}

    def answer(route):
        if route.request.method == "POST" and "cancel" in route.request.post_data:
            job["state"] = "cancelled"
        route.fulfill(json=job)

    with opened(window, where, "/episode?id=e1-failed") as page:
        page.route("**/api/video*", answer)
        page.keyboard.press("v")
        page.get_by_text("40 %").wait_for()
        assert page.get_by_role("progressbar", name="Video").get_attribute("value") == "0.4"
        assert page.get_by_role("button", name="Save as video").is_disabled()
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text("cancelled").wait_for()
        assert page.get_by_role("button", name="Save as video").is_enabled()


def test_misaligned_is_found_while_one_looks(root, where, window):
    factories.write_episode(root / "e6-slow", factories.Recipe(steps=20, state_rate_hz=8.0))
    with opened(window, where, "/?flag=misaligned") as page:
        page.get_by_role("link", name="e6-slow").wait_for()
        assert names(page) == ["e6-slow"]
        assert page.get_by_label("Quality").input_value() == "misaligned"
        badge = page.locator("tr", has_text="e6-slow").locator(".flag", has_text="misaligned")
        assert "of 20 steps" in badge.get_attribute("title")
        page.wait_for_function("() => document.querySelector('.checking').textContent === ''")
        page.get_by_role("button", name="Clear").click()
        page.wait_for_url(re.compile("/$"))
        ready(page)
        page.locator(".flag", has_text="misaligned").wait_for()
        assert page.locator(".flag", has_text="misaligned").count() == 1
        page.get_by_role("link", name="e6-slow").click()
        page.get_by_text("steps out of tolerance").wait_for()


def test_totals_by_stage_and_quotas(root, stand, window):
    plan = SessionConfig((StageQuota("reach", failures=4), StageQuota("", pairs=0, successes=1)))
    with stand.showing(root, plan=plan) as where, opened(window, where) as page:
        stages = page.locator(".quota").all_inner_texts()
        assert "reach" in stages[0] and "failures 2 of 4" in stages[0]
        assert page.get_by_role("meter").first.get_attribute("value") == "0.5"
        page.get_by_text("By stage (2)").click()
        rows = [row.split("\t") for row in page.locator(".stages tbody tr").all_inner_texts()]
        heads = page.locator(".stages thead tr").inner_text().split("\t")
        reach = dict(zip(heads, rows[1]))
        assert reach["Task, stage"] == "bottle, reach" and reach["Deployments"] == "2"
        assert (reach["Failed"], reach["Succeeded"]) == ("2", "0")  # e4 is a copy of e1


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
        left, right = page.locator(".lane-position .limits").all_inner_texts()
        assert left == right, "the same scale, or curves could not be compared"
        # who drives is told by the height of the band too
        bands = page.locator(".two > section >> nth=1").locator(".lane-driver")
        human, policy = (
            float(bands.locator(f"rect.source-{name}").first.get_attribute("height"))
            for name in ("human", "policy")
        )
        assert human >= 2 * policy


def test_a_pair_without_a_correction_is_not_another_pair(root, where, window):
    factories.write_episode(root / "e6-alone", factories.Recipe(steps=5), pair_id="pair-8")
    with opened(window, where, "/compare?pair=pair-8") as page:
        told = page.get_by_text("Nothing to compare in pair pair-8")
        told.wait_for()
        page.get_by_label("Which two").locator("option").first.wait_for(state="attached")


def test_compare_any_two_policies_on_one_start(root, where, window):
    for number, name in enumerate(("bc", "dagger", "dexpie")):
        recipe = factories.Recipe(steps=20 + 5 * number, seed=7)
        info = {"kind": "evaluation", "stage": "reach", "policy_id": f"runs/{name}/policy"}
        factories.write_episode(root / f"f-{name}", recipe, **info)
    # not of this start, or nobody's policy
    factories.write_episode(root / "f-other", factories.Recipe(steps=5, seed=8), kind="evaluation")
    with opened(window, where, "/compare") as page:
        heads = page.locator(".two section h2")
        which = page.get_by_label("Which two")
        starts = [text for text in which.locator("option").all_inner_texts() if "start" in text]
        assert starts == ["start bottle reach 7: bc, dagger, dexpie"]
        which.select_option(starts[0])
        page.wait_for_function("() => document.querySelector('.two h2')?.textContent === 'f-bc'")
        assert heads.all_inner_texts() == ["f-bc", "f-dagger"]
        policies = page.locator(".two section > p").all_inner_texts()
        assert "evaluation, bc" in policies[0] and "evaluation, dagger" in policies[1]
        page.get_by_label("Left").select_option("f-dagger")
        page.get_by_label("Right").select_option("f-dexpie")
        page.wait_for_url("**/compare?a=f-dagger&b=f-dexpie")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.two h2')].map(e => e.textContent).join() === 'f-dagger,f-dexpie'"
        )
        page.keyboard.press("End")
        page.locator(".time", has_text="step 29").wait_for()  # the clock of the longer one
        page.reload()
        ready(page)
        assert heads.all_inner_texts() == ["f-dagger", "f-dexpie"], "the address says which"
        assert page.get_by_label("Right").input_value() == "f-dexpie"


def test_results(root, where, window):
    (root / "bench").mkdir()
    (root / "bench/results.json").write_text(json.dumps({"BC": {"successes": 84, "n": [1, 2]}}))
    (root / "bench/report.html").write_text("<!doctype html><title>Found</title><p>report")
    with opened(window, where, "/results") as page:
        page.get_by_text("results.json").last.click()
        page.get_by_text("84").wait_for()
        page.get_by_role("link", name="report.html").click()
        assert page.title() == "Found"


def test_benchmarks_are_results(tmp_path, stand, window, monkeypatch):
    """Files as `dexpie bench` writes them, and one that only has the name of such."""
    measured = types.ModuleType("measured")
    measured.run = lambda quick: {"chunk_p50_ms": 4.6090380019, "steps": 1685}
    monkeypatch.setitem(sys.modules, "measured", measured)
    monkeypatch.setitem(bench.BENCHMARKS, "policy", ("measured", "run"))
    written = tmp_path / "outputs/bench"
    assert cli.main(["bench", "policy", "--quick", "--output", str(written)]) == 0
    content = json.loads((written / "policy.json").read_text())
    (written / "graph.json").write_text('{"nodes": []}')
    with stand.showing(tmp_path) as where, opened(window, where, "/results") as page:
        page.get_by_text("Benchmark: policy").click()
        page.locator("tr", has_text="chunk p50 ms").get_by_text("4.609", exact=True).wait_for()
        page.locator("tr", has_text="steps").get_by_text("1685", exact=True).wait_for()
        assert page.locator(".results > li").count() == 1
        about = page.locator(".results > li .note").inner_text()
        assert f"measured {content['date']}" in about and "a quick look only" in about
        assert f"commit {content['provenance']['commit']}" in about


def test_live_without_a_graph(where, window):
    pytest.importorskip("rclpy")
    assert os.environ["ROS_DOMAIN_ID"]  # of the tests alone
    with opened(window, where, "/live") as page:
        page.get_by_text("No graph is heard").wait_for()
        assert not page.get_by_role("button", name="Take over", exact=False).first.is_visible()
