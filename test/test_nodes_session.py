"""A session's plan from its file and from the episodes that are there; the picture of a start."""

import asyncio
import logging
import shutil
from types import SimpleNamespace

import factories
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.config import ConfigError
from dexpie_ros.episodes import EpisodeError, read_episode
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import EpisodeInfo
from dexpie_ros.episodes.images import decode_jpeg
from dexpie_ros.episodes.start_picture import start_picture
from dexpie_ros.episodes.writer import EpisodeWriter, recorded_topics
from dexpie_ros.messages import bag_typestore
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session import RUNNING, RunningEpisode, Session, SessionParameters, resumed
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
    first = next(iter(read_episode(episode).cameras["front"]))
    assert np.array_equal(decode_jpeg(picture.read_bytes()), first)


@pytest.mark.parametrize("closed", [True, False])
def test_the_picture_of_a_start_needs_no_more_of_the_bag(tmp_path, monkeypatch, closed):
    """A long bag takes longer to read than the robot may wait for its session."""
    path = factories.write_episode(tmp_path / "a", factories.Recipe(steps=3, images=True))
    bag = find_bag(path)
    if not closed:
        bag.write_bytes(bag.read_bytes()[:-200])
    monkeypatch.setattr(BagReader, "messages", property(lambda _: pytest.fail("reads it all")))
    assert start_picture(path, "none") is None and start_picture(path).is_file()
    with pytest.raises(EpisodeError, match="no such directory"):
        start_picture(tmp_path / "gone")


def test_raw_pictures_are_pictures_too(tmp_path):
    path = tmp_path / "raw"
    topic, kind = "/camera/front/color/image_raw", "sensor_msgs/msg/Image"
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8, 0] = 200
    store = bag_typestore()
    types = store.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 0), "camera")

    def write(encoding):
        message = types[kind](header, 8, 16, encoding, 0, 48, pixels.reshape(-1))
        writer = EpisodeWriter(
            path, EpisodeInfo("raw", kind="demonstration"), recorded_topics("raw")
        )
        writer.write(topic, bytes(store.serialize_cdr(message, kind)), 10**9, 10**9)
        writer.finish("success")

    write("rgb8")
    image = decode_jpeg(start_picture(path).read_bytes())
    assert image.shape == (8, 16, 3) and image[:, :4, 0].mean() > 150 and image[:, 12:].mean() < 40
    shutil.rmtree(path)
    shutil.rmtree(tmp_path / ".starts")
    write("bgr8")
    with pytest.raises(EpisodeError, match="8x16 bgr8"):
        start_picture(path)


def test_the_example_plan_is_one():
    from pathlib import Path

    file = Path(__file__).parent.parent / "config/session.example.yaml"
    plan = resumed(SessionParameters(plan=str(file), record=False))
    assert [stage.name for stage in plan.progress()] == ["home", "grasped", "above_platform"]


class Alone(Session):
    """The session's logic without a graph: ``answers`` says what a service answers or raises."""

    def __init__(self, **answers):
        self.parameters, self.answers, self.asked = SessionParameters(), answers, []
        for part in (
            "arbiter_prepare",
            "arbiter_start",
            "arbiter_end",
            "recorder_start",
            "recorder_end",
        ):
            client = SimpleNamespace(name=part, service_is_ready=lambda: True)
            setattr(self, f"_{part}", client)
        self._reset = self._policy_start = None
        self._phase, self._recorded, self._recording = 0, 0, False
        self._episode = RunningEpisode("e7")
        self._guide = SimpleNamespace(
            later=lambda _: None,
            ended=lambda *_: [],
            keep_start=lambda episode: self.asked.append(("picture", episode)),
        )

    def _announce(self, phase):
        self._phase = phase

    def recorder_lost(self):
        return self.answers.get("lost", "")

    def get_logger(self):
        return logging.getLogger("session")

    async def call(self, client, request, timeout_s=0.0):
        self.asked.append((client.name, request))
        answer = self.answers.get(client.name, "")
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(success=not answer, message=answer, directory="/there/e7")

    async def _ask(self, client, request):
        answer = await self.call(client, request)
        if not answer.success:
            raise RuntimeError(answer.message)
        return answer

    def closed(self):
        """How the recorder was told to end: outcome, cause and whether all is thrown away."""
        return [(r.outcome, r.cause, r.discard) for name, r in self.asked if name == "recorder_end"]


def begin(session):
    request = interface("dexpie_msgs/srv/StartEpisode").Request(kind="demonstration")
    return asyncio.run(session.start_episode(request))


@pytest.mark.parametrize("kind", ["deployment", "correction", "evaluation"])
def test_an_episode_that_names_no_policy_has_the_sessions(kind):
    """Else it would be recorded without one, and hold for ever for a chunk that nobody makes."""

    def start(**given):
        request = interface("dexpie_msgs/srv/StartEpisode").Request(**given)
        session.asked.clear()
        return asyncio.run(session.start_episode(request)), request.policy_id

    session = Alone()
    (started, why), _ = start(kind=kind)
    assert not started and f"{kind} without a policy" in why and "policy:=DIRECTORY" in why
    assert session.asked == [] and session._phase == 0, "nobody was asked for anything"
    assert start(kind=kind, policy_id="replay") == ((True, ""), "replay")
    session = Alone()
    session.parameters = SessionParameters(policy_directory="/policies/bc")
    session._policy_start = SimpleNamespace(name="policy_start")
    assert start(kind=kind) == ((True, ""), "/policies/bc")
    assert {r.policy_id for n, r in session.asked if n.endswith("_start")} == {"/policies/bc"}
    assert "policy_start" in [name for name, _ in session.asked]
    assert session.episode.policy_id == "/policies/bc"
    session._phase = 0
    assert start(kind="demonstration") == ((True, ""), "")


def test_an_episode_is_closed_also_where_the_arbiter_is_gone():
    session = Alone(arbiter_end=TimeoutError("intervention_arbiter is silent"))
    session._phase = RUNNING
    ended, why, directory = asyncio.run(session.end_episode("success"))
    assert not ended and "silent" in why and directory == "/there/e7"
    assert session.closed() == [("aborted", "intervention_arbiter is silent", False)]
    assert session._phase == 0 and session._recorded == 0


def test_the_picture_of_a_start_is_kept_while_the_robot_holds_and_the_bag_is_there():
    session = Alone()
    for discard, expected in ((True, ["arbiter_end", "picture", "recorder_end"]),
                              (False, ["arbiter_end", "recorder_end"])):  # fmt: skip
        session._phase, session.asked = RUNNING, []
        assert asyncio.run(session.end_episode("aborted", discard=discard))[0]
        assert [name for name, _ in session.asked] == expected


def test_a_start_that_fails_takes_no_earlier_episode_along():
    session = Alone(recorder_start="still recording e6; end it first")
    assert begin(session) == (False, "still recording e6; end it first")
    assert session.closed() == [("aborted", "the session had lost it", False)]
    # What this start began is half an episode, and goes.
    session = Alone(arbiter_start="in FAULT")
    assert begin(session) == (False, "in FAULT")
    assert session.closed() == [("aborted", "", True)]
