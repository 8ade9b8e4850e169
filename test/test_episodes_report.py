"""The report counts what the factory wrote."""

import math

import factories
import pytest

from dexpie_ros.episodes import Collection, read_episode
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.report import picture, report


@pytest.fixture
def root(tmp_path):
    factories.write_collection(tmp_path / "c", 8)
    return tmp_path / "c"


def test_counts_by_kind_stage_and_policy(root):
    annotate(root / "e005", stage="place")
    annotate(root / "e006", use_for_critic=False, cause="collision")
    (root / "bad").mkdir()
    (root / "bad/episode.json").write_text("{")
    figures = report(Collection(root))
    groups = {(g.kind, g.stage): g for g in figures.groups}
    assert [g.kind for g in figures.groups] == [
        "demonstration", "deployment", "deployment", "correction",
    ]  # fmt: skip
    plain = groups["deployment", ""]
    assert (plain.episodes, plain.successes, plain.failures) == (3, 1, 2)
    assert plain.success_share == pytest.approx(1 / 3)
    assert dict(plain.causes) == {"tipped": 1, "collision": 1}
    assert plain.median_s == 50 * 0.04 and plain.longest_s == 2.0
    assert groups["deployment", "place"].episodes == 1
    demonstrations = groups["demonstration", ""]
    assert demonstrations.human_share == 1.0 and demonstrations.policy_id == ""
    corrections = groups["correction", ""]
    assert corrections.human_share == pytest.approx(15 / 55)
    assert corrections.with_intervention == 2
    assert figures.total.episodes == 8 and figures.statuses == {"finished": 8, "broken": 1}
    assert (figures.excluded_from_critic, figures.excluded_from_actor) == (1, 0)
    text = figures.text()
    assert "collision 1" in text and "episode.json" in text and "33 %" in text


def test_corrected_interventions_count(root):
    start = factories.START_NS
    annotate(root / "e003", interventions=[(start, start + 400_000_000)])
    (corrections,) = (g for g in report(Collection(root)).groups if g.kind == "correction")
    assert corrections.human_steps == 10 + 15


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_one(root, tmp_path, ending):
    path = tmp_path / f"pictures/report.{ending}"
    picture(report(Collection(root)), path)
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if ending == "png" else b"<svg" in path.read_bytes()


def test_an_empty_collection_is_reported_too(tmp_path):
    figures = report(Collection(tmp_path))
    assert math.isnan(figures.total.success_share) and "0 episodes" in figures.text()
    picture(figures, tmp_path / "empty.png")


def test_annotated_stages_are_counted_apart(root):
    """The operator drove steps 15 to 30 of 55; the episode failed where it stood at the end."""
    start, step = factories.START_NS, factories.STEP_NS
    stages = [(start + 20 * step, "place"), (start + 40 * step, "retreat")]
    annotate(root / "e003", stages=stages, outcome="failure", cause="tipped")
    figures = report(Collection(root))
    parts = {g.stage: g for g in figures.groups if g.kind == "correction"}
    assert {k: (g.episodes, g.steps, g.human_steps) for k, g in parts.items()} == {
        "": (2, 20 + 55, 5 + 15), "place": (1, 20, 10), "retreat": (1, 15, 0),
    }  # fmt: skip
    assert {k: (g.successes, g.failures, g.causes) for k, g in parts.items()} == {
        "": (2, 0, ()), "place": (1, 0, ()), "retreat": (0, 1, (("tipped", 1),)),
    }  # fmt: skip
    assert parts["place"].median_s == pytest.approx(0.8) and parts["retreat"].with_intervention == 0
    # As a whole it is one episode, and a failure.
    assert (figures.total.episodes, figures.total.failures) == (8, 3)
    # What cannot be read counts as a whole, and is said.
    (root / "e003/e003_0.mcap").write_bytes(b"\x89MCAP0\r\n" * 2)
    broken = report(Collection(root))
    assert broken.total.episodes == 8 and "e003" in broken.errors[0]
    assert {g.stage for g in broken.groups if g.kind == "correction"} == {""}


def test_segments_outside_the_episode_do_not_count(root):
    """Another program may have written them; the list and the arrays say the same."""
    start = factories.START_NS
    step = factories.STEP_NS
    annotate(root / "e003", interventions=[(start + 10_000 * step, start + 20_000 * step)])
    annotate(root / "e007", interventions=[(0, start + 5 * step)])
    for name, human in (("e003", 0), ("e007", 5)):
        entry = Collection(root).find(name)
        assert entry.content.human_steps == human == read_episode(entry.path).human.sum()
