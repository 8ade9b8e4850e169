"""Keys of the page as keyboards send them: held down, with caps lock, with the help open."""

import re
import time

import pytest
from web_pages import at_step, made_up_graph, opened, ready

from dexpie_ros.episodes.annotations import read_annotations

pytest_plugins = ("web_fixtures",)


@pytest.fixture
def live(where, window):
    """The Live page of a graph that is made up, and what was ordered there."""
    with opened(window, where) as page:
        orders = made_up_graph(page)
        page.goto(f"{where}/live")
        ready(page)
        yield page, orders


def hold(page, key, times=6):
    for _ in range(times):  # all but the first are repetitions
        page.keyboard.down(key)
    page.keyboard.up(key)


def ordered(page, orders, wanted):
    """Until the orders are these. A last one is asked for, so that one too many would be seen."""
    page.keyboard.press("h")
    end = time.monotonic() + 60
    while {"action": "hold"} not in orders and time.monotonic() < end:
        page.wait_for_timeout(20)  # what the page says may still be of an earlier one
    assert orders == [*wanted, {"action": "hold"}]
    orders.clear()


def test_a_key_held_down_acts_once(live):
    page, orders = live
    for key, action in ((" ", "toggle"), ("r", "re_record"), ("j", "clutch"), ("k", "calibrate")):
        hold(page, key)
        ordered(page, orders, [{"action": action}])
    page.get_by_role("button", name="Toggle").focus()
    hold(page, "Enter")
    ordered(page, orders, [{"action": "toggle"}])


def test_a_judgement_held_down_is_one_revision(root, where, window):
    with opened(window, where, "/episode?id=e2-corrected&step=5") as page:
        at_step(page, 5)
        hold(page, "s")
        hold(page, "f")
        page.wait_for_function(
            "() => document.getElementById('said').textContent === 'failure, revision 2'"
        )
        hold(page, "ArrowRight", 4)  # but arrows go on
        at_step(page, 9)
        hold(page, "u")
        page.wait_for_function(
            "() => document.getElementById('said').textContent === 'undone, revision 3'"
        )
        assert read_annotations(root / "e2-corrected").revision == 3


@pytest.mark.parametrize("key", ["x", "X", "Escape"])
def test_the_stop_works_while_the_help_is_open(live, key):
    page, orders = live
    page.keyboard.press("?")
    page.locator("dialog[open]").get_by_text("stop: hold until cleared (also while").wait_for()
    page.keyboard.press("r")  # others wait until it is closed
    page.keyboard.press(key)
    page.wait_for_function("() => document.getElementById('said').textContent === 'emergency stop'")
    if key != "Escape":
        page.keyboard.press("Escape")
        orders.pop()  # which stops, too
    page.locator("dialog[open]").wait_for(state="detached")
    ordered(page, orders, [{"action": "emergency_stop"}])


def test_caps_lock_makes_no_other_key_of_a_letter(live):
    page, orders = live
    page.evaluate(
        """() => ['X', 'F', 'f'].forEach((key) => document.body.dispatchEvent(new KeyboardEvent('keydown',
        { key, shiftKey: key === 'f', modifierCapsLock: true, bubbles: true, cancelable: true })))"""
    )
    page.get_by_role("group", name="Why did it fail?").get_by_role("button").first.wait_for()
    ordered(page, orders, [{"action": "emergency_stop"}, {"action": "force"}])


def test_space_takes_over_although_a_button_was_clicked(live):
    page, orders = live
    for act in (page.get_by_role("button", name="Hold").click, lambda: page.keyboard.press(" "),
                page.get_by_role("button", name="Aborted").click, lambda: page.keyboard.press("z")):  # fmt: skip
        with page.expect_response("**/api/live/command*"):
            act()
    aborted = {"action": "end", "outcome": "aborted"}
    assert orders == [{"action": "hold"}, {"action": "toggle"}, aborted, aborted]


@pytest.mark.parametrize(
    "state", [{"mode": "policy", "phase": "running"}, {"mode": "hold", "phase": "running"},
              {"mode": "human", "phase": "idle"}],
)  # fmt: skip
def test_the_stop_is_not_left_behind_by_one_key(live, state):
    page, _ = live
    orders = made_up_graph(page, **state)
    page.locator(f".mode-{state['mode']}").wait_for()
    page.keyboard.press("g")
    page.locator("#said").get_by_text("g again").wait_for()
    page.keyboard.press("x")
    page.locator("#said").get_by_text("emergency stop").wait_for()
    assert page.url.endswith("/live") and orders == [{"action": "emergency_stop"}]
    left(page)


def test_a_robot_at_rest_keeps_nobody(live):
    page, _ = live
    made_up_graph(page, mode="hold", phase="idle")
    page.locator(".mode-hold").wait_for()
    page.keyboard.press("g")
    page.wait_for_url(re.compile("/$"))
    ready(page)


def left(page):
    """By the key pressed twice; again where this machine took longer than a person for that."""
    end = time.monotonic() + 60
    while page.url.endswith("/live") and time.monotonic() < end:
        page.keyboard.press("g")
        page.wait_for_timeout(200)
    page.wait_for_url(re.compile("/$"))
    ready(page)
