"""The session's guide with a session beside it that has no graph: what a key does to which bag."""

import asyncio
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import factories
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.control.keys import SERVICES, Action
from dexpie_ros.control.session import Finished, SessionConfig, SessionPlan, StageQuota
from dexpie_ros.control.session_flow import Phase, SessionFlow
from dexpie_ros.episodes import read_episode
from dexpie_ros.episodes import start_picture as pictures
from dexpie_ros.nodes.session_guide import SessionGuide


class Beside:
    """Stands in for the session's node; an episode is a bag in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.parameters = SimpleNamespace(directory=str(folder), policy_directory="")
        self.messages = SimpleNamespace(text=json.loads)
        self.said: list[dict] = []
        self.served, self.ends, self.count = {}, [], 0
        self.present: Finished | None = None
        self.executor = self
        stages = StageQuota("", demonstrations=9), StageQuota("far")
        plan = SessionPlan(SessionConfig(stages, "demonstrations"))
        self.guide = SessionGuide(self, SessionFlow(plan, homing=False))

    episode = property(lambda self: self.present)
    running = property(lambda self: self.present is not None)
    idle = property(lambda self: self.present is None)

    def publisher(self, _):
        return SimpleNamespace(publish=self.said.append)

    def serve(self, name, callback):
        self.served[name] = callback

    def subscribe(self, *_, **__): ...
    def doubt_all(self): ...
    def create_timer(self, *_, **__): ...
    def now_ns(self):
        return factories.START_NS + 60_000_000

    def get_logger(self):
        return logging.getLogger("session")

    def create_task(self, function, *arguments):
        asyncio.run(function(*arguments))

    async def start_episode(self, request):
        self.count += 1
        request.episode_id = request.episode_id or f"e{self.count}"
        factories.write_episode(
            self.bag(request.episode_id), factories.Recipe(steps=3, images=True)
        )
        self.present = Finished(request.episode_id, request.kind, "", request.seed, "", "")
        return True, ""

    async def end_episode(self, outcome, cause="", discard=False):
        if self.present is None:
            return False, "no episode is running", ""
        self.ends.append((self.present.episode_id, outcome, cause, discard))
        p, self.present = self.present, None
        if discard:
            self.guide.keep_start(p.episode_id)
            shutil.rmtree(self.bag(p.episode_id))
        done = Finished(p.episode_id, p.kind, "", p.seed, "", outcome, cause)
        orders = self.guide.ended(done, str(self.bag(p.episode_id)), discard)
        self.guide.later(orders)
        return True, "", ""

    def bag(self, episode: str) -> Path:
        return Path(self.parameters.directory) / episode

    # -- a person ----------------------------------------------------------------------------------
    def ask(self, action: Action) -> SimpleNamespace:
        answer = SimpleNamespace(success=None, message="")
        served = self.served[SERVICES[action]](None, answer)
        return asyncio.run(served) if asyncio.iscoroutine(served) else served

    def press(self, key: str) -> None:
        self.guide._on_key(SimpleNamespace(data=key))

    def record(self, key: str) -> str:
        assert self.ask(Action.START).success and self.ask(Action.START).success
        episode = self.present.episode_id
        self.press(key)
        return episode

    def somebody_else_begins(self, episode: str) -> None:
        request = SimpleNamespace(episode_id=episode, kind="demonstration", seed=7)
        asyncio.run(self.start_episode(request))


@pytest.fixture
def beside(tmp_path):
    return Beside(tmp_path)


def test_a_key_that_repeats_itself_discards_one_recording(beside, caplog):
    first, last = beside.record("s"), beside.record("s")
    assert beside.ask(Action.RE_RECORD).success
    answer = beside.ask(Action.RE_RECORD)
    assert not answer.success and "once" in answer.message
    with caplog.at_level(logging.WARNING):
        beside.press("r")
        beside.press("s")
    assert "key r: not now" in caplog.text and "key s: no episode is running" in caplog.text
    assert beside.bag(first).is_dir() and not beside.bag(last).exists()


def test_the_recording_before_an_aborted_one_is_kept(beside):
    good = beside.record("s")
    beside.ask(Action.START)
    beside.ask(Action.START)
    stopped = beside.present.episode_id
    beside.guide._on_arbiter(SimpleNamespace(mode=5, reason="emergency stop"))
    assert beside.ends[-1] == (stopped, "aborted", "emergency stop", False)
    answer = beside.ask(Action.RE_RECORD)
    assert answer.success and "its start comes again" in answer.message
    assert beside.bag(good).is_dir() and beside.bag(stopped).is_dir()


def test_re_recording_ends_the_running_episode_and_no_other(beside):
    good = beside.record("s")
    beside.somebody_else_begins("theirs")
    assert beside.ask(Action.RE_RECORD).success
    assert beside.ends[-1] == ("theirs", "aborted", "recorded again", True)
    assert beside.bag(good).is_dir() and beside.guide.flow.phase is Phase.IDLE
    assert not beside.ask(Action.RE_RECORD).success and beside.bag(good).is_dir()


def test_an_episode_that_somebody_else_began_fails_and_is_left_by_the_same_keys(beside):
    for key in ("f", "failure"):
        beside.somebody_else_begins(f"by-{key}")
        beside.press(key)
        assert beside.said[-1]["phase"] == "asking for the cause"
        assert beside.running
        beside.press("2")
        assert beside.ends[-1] == (f"by-{key}", "failure", "dropped", False)
        assert beside.said[-1]["phase"] == "idle"
    beside.somebody_else_begins("left")
    answer = beside.ask(Action.QUIT)
    assert answer.success and "over" in answer.message
    assert beside.ends[-1] == ("left", "aborted", "session ended", False)


def test_an_episode_can_be_kept_without_counting(beside):
    for key in ("z", "aborted"):
        kept = beside.record(key)
        assert beside.ends[-1] == (kept, "aborted", "", False) and beside.bag(kept).is_dir()
        assert beside.said[-1]["progress"][0]["have"] == {"demonstrations": 0}
    beside.somebody_else_begins("theirs")
    beside.press("z")
    assert beside.ends[-1] == ("theirs", "aborted", "", False)


def test_a_stage_and_an_exclusion_are_marked_by_key_and_by_service(beside):
    assert not beside.ask(Action.MARK_STAGE).success, "no episode is running"
    assert not beside.ask(Action.EXCLUDE).success, "none has ended"
    for mark in (lambda: beside.press("b"), lambda: beside.ask(Action.MARK_STAGE)):
        assert beside.ask(Action.START).success and beside.ask(Action.START).success
        episode = beside.present.episode_id
        mark()
        beside.press("e")
        beside.press("s")
        read = read_episode(beside.bag(episode))
        assert read.stages == ((beside.now_ns(), "far"),) and read.info.use_for_critic
        beside.press("e")
        assert not read_episode(beside.bag(episode)).info.use_for_critic
    assert beside.ask(Action.RE_RECORD).success
    assert not beside.ask(Action.EXCLUDE).success, "it is thrown away"


def test_the_picture_of_a_start_outlives_its_recording(beside):
    episode = beside.record("s")
    assert beside.ask(Action.RE_RECORD).success and not beside.bag(episode).exists()
    assert beside.ask(Action.START).success
    said = beside.said[-1]
    assert said["assignment"]["same_start_as"] == episode
    assert Path(said["picture"]).read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("by", ["service", "key"])
def test_the_start_of_an_attempt_thrown_away_while_it_ran_is_shown_for_the_next(beside, by):
    assert beside.ask(Action.START).success
    for _ in range(2):  # it is still the first attempt that shows it
        assert beside.ask(Action.START).success
        episode = beside.present.episode_id
        if by == "key":
            beside.press("r")
        else:
            assert beside.ask(Action.RE_RECORD).success
        assert beside.ends[-1] == (episode, "aborted", "recorded again", True)
        assert not beside.bag(episode).exists()
        assert beside.ask(Action.START).success
        said = beside.said[-1]
        assert said["assignment"]["same_start_as"] == "e1" and said["assignment"]["seed"] == 0
        assert Path(said["picture"]).read_bytes()[:2] == b"\xff\xd8"


def test_an_episode_without_pictures_is_looked_at_once(beside, monkeypatch):
    looked = []

    def none(directory, camera="front"):
        looked.append(directory)

    monkeypatch.setattr("dexpie_ros.nodes.session_guide.start_picture", none)
    beside.record("s")
    beside.ask(Action.RE_RECORD)
    beside.ask(Action.START)
    for _ in range(3):
        beside.guide.announce()
        assert beside.said[-1]["picture"] == ""
    assert len(looked) == 1
    assert pictures.start_picture is not none


def test_an_episode_that_ends_while_it_starts_leaves_no_session_waiting(beside):
    began = beside.start_episode

    async def ends_at_once(request):
        await began(request)
        await beside.end_episode("aborted", "emergency stop")
        return True, ""

    beside.start_episode = ends_at_once
    beside.ask(Action.START)
    answer = beside.ask(Action.START)
    assert (
        beside.guide.flow.phase is Phase.SETTING_UP and "ended while it started" in answer.message
    )
