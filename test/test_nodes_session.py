"""A session's plan from its file and from the episodes that are there; the picture of a start."""

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.config import ConfigError
from dexpie_ros.episodes.start_picture import start_picture
from dexpie_ros.nodes.session import SessionParameters, resumed
from dexpie_ros.simulation.lockstep import LockstepConfig, Task, run_all

PLAN = """
purpose: demonstrations
stages:
  - {name: home, setup: put the bottle anywhere, demonstrations: 2}
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("session")
    task = Task("demonstration", 31_000, stage="home")
    run_all(LockstepConfig(images=True), [task], folder / "episodes")
    return folder / "episodes"


def test_a_session_goes_on_where_the_last_one_stopped(recorded, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    fresh = resumed(SessionParameters(plan=str(file), directory=str(tmp_path / "none")))
    assert fresh.progress()[0].have == {"demonstrations": 0}
    plan = resumed(SessionParameters(plan=str(file), directory=str(recorded)))
    assert plan.progress()[0].have == {"demonstrations": 1}
    following = plan.next()
    assert following.stage == "home" and following.seed == 31_001
    assert following.prompt == "put the bottle anywhere; demonstrate"
    other = resumed(SessionParameters(plan=str(file), directory=str(recorded), task="drawer"))
    assert other.progress()[0].have == {"demonstrations": 0}, "another task's do not count"


def test_without_a_plan_so_many_are_wanted():
    plan = resumed(SessionParameters(episodes_wanted=3, record=False))
    assert plan.progress()[0].wanted == {"demonstrations": 3}
    plan = resumed(SessionParameters(policy_directory="policies/bc", record=False))
    assert plan.next().kind == "deployment"


def test_a_plan_with_a_mistake_names_file_and_key(tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN.replace("demonstrations: 2", "demonstration: 2"))
    with pytest.raises(ConfigError, match=r"plan\.yaml.*demonstration"):
        resumed(SessionParameters(plan=str(file)))


def test_the_picture_of_a_start(recorded):
    (episode,) = (path.parent for path in recorded.glob("*/metadata.yaml"))
    assert start_picture(episode, "none") is None
    picture = start_picture(episode)
    assert picture is not None
    assert picture.read_bytes()[:2] == b"\xff\xd8" and start_picture(episode) == picture


def test_the_example_plan_is_one():
    from pathlib import Path

    file = Path(__file__).parent.parent / "config/session.example.yaml"
    plan = resumed(SessionParameters(plan=str(file), record=False))
    assert [stage.name for stage in plan.progress()] == ["home", "grasped", "above_platform"]
