"""Marks by key: stage boundaries of the running episode, and what the critic is not to see."""

import factories
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.episodes import read_episode
from dexpie_ros.episodes.annotations import FILE_NAME, read_annotations
from dexpie_ros.nodes.session_marks import SessionMarks

S = 1_000_000_000
STAGES = ("home", "grasped", "above")


def test_boundaries_become_the_stages_of_the_episode(tmp_path):
    path = factories.write_episode(tmp_path / "e1", factories.Recipe(steps=60))
    start = factories.START_NS
    marks = SessionMarks(STAGES)
    assert marks.boundary("e1", "home", start + S // 2) == (True, "stage grasped begins")
    accepted, why = marks.boundary("e1", "home", start + S)  # the key repeats itself
    assert not accepted and "just now" in why
    assert marks.boundary("e1", "home", start + 2 * S)[0]
    accepted, why = marks.boundary("e1", "home", start + 9 * S)
    assert not accepted and "no stage after 'above'" in why
    assert marks.ended("e1", str(path), discarded=False) == ""
    assert read_episode(path).stages == ((start + S // 2, "grasped"), (start + 2 * S, "above"))
    assert read_annotations(path).history[-1].author == "operator"
    # the next episode begins without them
    assert marks.boundary("e2", "grasped", start) == (True, "stage above begins")
    assert marks.ended("e2", "", discarded=True) == ""
    marks.boundary("e3", "home", start)
    assert "e3: 1 stage boundaries are lost" in marks.ended("e3", "", discarded=False)


def test_without_a_plan_there_is_no_next_stage():
    for stages, stage in (((), ""), (("",), ""), (STAGES, "elsewhere")):
        accepted, why = SessionMarks(stages).boundary("e", stage, S)
        assert not accepted and f"no stage after {stage!r}" in why


def test_the_last_episode_is_kept_from_the_critic(tmp_path):
    marks = SessionMarks(STAGES)
    assert marks.exclude() == (False, "no episode has ended since this session began")
    path = factories.write_episode(tmp_path / "e1", factories.Recipe(steps=3))
    marks.ended("e1", str(path), discarded=False)
    assert not (path / FILE_NAME).exists(), "nothing was marked"
    accepted, why = marks.exclude()
    assert accepted and why.startswith("e1 is not for the critic")
    info = read_episode(path).info
    assert not info.use_for_critic and info.use_for_actor
    marks.forget("e1")
    assert not marks.exclude()[0]
    marks.ended("gone", str(tmp_path / "gone"), discarded=False)
    accepted, why = marks.exclude()
    assert not accepted and "not annotated" in why
