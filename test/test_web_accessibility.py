"""The page for those who use no mouse, cannot tell colours, or hear it: every page, both schemes."""

import json
import re
from pathlib import Path

import factories
import pytest
from web_pages import NAMELESS, UNREADABLE, browser, made_up_graph, opened, ready, served

from dexpie_ros.critic.label import Labels
from dexpie_ros.episodes.labels import write_labels
from dexpie_ros.web.app import STATIC

PAGES = ("/", "/episode?id=a-failed&step=3", "/compare", "/live", "/results")

# what Tab must reach, as far as it is shown and enabled
FOCUSABLE = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && !e.closest('dialog'))
  .map((e, i) => { e.dataset.stop = i; return `${i} ${e.tagName} ${e.getAttribute('aria-label') || e.textContent.slice(0, 30)}`; })"""
WHERE = """() => { const e = document.activeElement, s = getComputedStyle(e);
  return [e.dataset.stop ?? '', s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]; }"""


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def window(chromium):
    context = chromium.new_context()
    yield context
    context.close()


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages") / "collection"
    common = {"pair_id": "pair-7", "policy_id": "bc-1", "kind": "deployment"}
    recipe = factories.Recipe(steps=30, images=True, human=((8, 14),), events=((9, "touched"),))
    failed = factories.write_episode(
        root / "a-failed", recipe, outcome="failure", cause="tipped", stage="reach", **common
    )
    other = {**common, "kind": "correction", "stage": "place"}
    factories.write_episode(root / "b-corrected", factories.Recipe(steps=30), **other)
    ramp = [k / 29 for k in range(30)]
    meta = {"critic": "abc", "q_low": 0.2, "q_high": 0.4}
    write_labels(failed, "v1", Labels(ramp, ramp, ramp, meta, ramp, [v + 0.1 for v in ramp]))
    (root / "bench").mkdir()
    (root / "bench/results.json").write_text(json.dumps({"BC": {"successes": 84}}))
    (root / "bench/report.html").write_text("<!doctype html><title>Found</title><p>report")
    with served(root) as address:
        yield address


def visit(page, where, path):
    """Open a page and come to rest there; Live with a graph that is made up."""
    if path == "/live":
        made_up_graph(page)
    page.goto(where + path)
    ready(page)


@pytest.mark.parametrize("path", PAGES)
def test_names_contrast_and_width(where, window, path):
    """Controls have names, text is readable (WCAG AA: 4.5), nothing sticks out of a small screen."""
    with opened(window, where) as page:
        visit(page, where, path)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate(NAMELESS) == []
        for scheme in ("light", "dark"):
            for width in (1280, 420):
                page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate(UNREADABLE) == [], f"{scheme}, {width} px"
                over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert over <= 0, f"{scheme}, {width} px"
            page.keyboard.press("?")
            assert page.evaluate(UNREADABLE.replace(", dialog", "")) == [], f"{scheme}: keys"
            page.keyboard.press("Escape")


def test_an_old_picture_says_so(where, window):
    with opened(window, where) as page:
        visit(page, where, "/live")
        captions = page.locator(".cameras figcaption").all_inner_texts()
        assert captions == ["front, 3.2 s old", "wrist"]


@pytest.mark.parametrize("path", PAGES)
def test_tab_reaches_everything_and_shows_where_it_is(where, window, path):
    with opened(window, where) as page:
        visit(page, where, path)
        wanted = page.evaluate(FOCUSABLE)
        assert len(wanted) > 5
        reached, unseen = set(), []
        for _ in range(len(wanted) + 3):
            page.keyboard.press("Tab")
            stop, outlined = page.evaluate(WHERE)
            reached.add(stop)
            if stop and not outlined:
                unseen.append(wanted[int(stop)])
        assert {name for name in wanted if name.split()[0] not in reached} == set()
        assert unseen == [], "focused, and nothing shows it"


def test_one_heading_landmarks_and_language(where, window):
    with opened(window, where) as page:
        for path in PAGES:
            visit(page, where, path)
            assert page.locator("h1").count() == 1, path
            assert page.locator("main").count() == 1 and page.locator("nav").count() == 1
            assert page.evaluate("document.documentElement.lang") == "en"
            title = page.title().partition(" ")[0]
            assert title in {"Episodes", "a-failed", "Compare", "Live", "Results"}, path
            levels = page.evaluate(
                "[...document.querySelectorAll('h1,h2,h3,h4')].filter(e => e.checkVisibility())"
                ".map(e => Number(e.tagName[1]))"
            )
            steps = [b - a for a, b in zip(levels, levels[1:])]
            assert all(step <= 1 for step in steps), f"{path}: a level is left out: {levels}"


def test_the_skip_link_and_the_list_of_keys(where, window):
    with opened(window, where, "/episode?id=a-failed") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.get_by_role("button", name="Keys").focus()
        page.keyboard.press("Enter")
        text = page.locator("#keys").inner_text()
        assert "play, pause" in text and "undo" in text and "use for the actor" in text
        for _ in range(4):  # the dialog keeps the focus
            page.keyboard.press("Tab")
            inside = "!document.activeElement || document.activeElement === document.body || !!document.activeElement.closest('dialog')"
            assert page.evaluate(inside)
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "keys-button", "back where one was"


def test_nothing_moves_for_those_who_asked_for_rest(where, chromium):
    with opened(chromium, where, reduced_motion="reduce") as page:
        moving = page.evaluate(
            "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).transitionDuration !== '0s'"
            " || getComputedStyle(e).animationName !== 'none').length"
        )
        assert moving == 0


def test_what_is_drawn_stands_out_from_the_page():
    """WCAG 1.4.11: curves, bands and borders have a contrast of 3 to the ground, in both schemes."""
    text = (Path(STATIC) / "base.css").read_text()
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w{6})", part))
        for part in re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    ]
    assert len(schemes) == 2
    drawn = (
        "edge",
        "accent",
        "bad",
        "policy",
        "human",
        "blend",
        "hold",
        *(f"c{k}" for k in range(6)),
    )
    for colours in schemes:
        for name in drawn:
            for ground in ("page", "card"):
                assert contrast(colours[name], colours[ground]) >= 3.0, f"{name} on {ground}"
        for judged in ("good", "unclear", "bad"):
            assert contrast(colours["ink"], colours[f"judged-{judged}"]) >= 4.5, judged


def contrast(a, b):
    def light(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(a), light(b)))
    return (high + 0.05) / (low + 0.05)
