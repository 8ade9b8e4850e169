"""Judging and annotating on the page: by mouse, by keys, and two people at once."""

import factories
from web_pages import at_step, opened

from dexpie_ros.episodes.annotations import annotate, read_annotations

pytest_plugins = ("web_fixtures",)


def saved(page, revision):
    """Until the page says that a revision was saved."""
    page.wait_for_function(
        "n => document.getElementById('said').textContent.includes(`revision ${n}`)", arg=revision
    )


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
