"""The recorder on a live graph: the moment before the start, the report at the end, a full disk."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")
from rclpy.executors import SingleThreadedExecutor

from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS, STEP_NS
from dexpie_ros.episodes import read_episode
from dexpie_ros.episodes import recording as module
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.nodes.base import ERROR, ContractNode, interface, status_level
from dexpie_ros.nodes.recorder import TELLS_WHEN_SENT, Recorder
from dexpie_ros.runtime import spin_for


class Robot:
    """Says what a robot says at 25 Hz, and asks the recorder."""

    def __init__(self, folder: Path) -> None:
        rclpy.init(
            args=["--ros-args", "-p", f"directory:={folder}", "-p", "images:=none", "-p",
                  "preroll_s:=0.6", "-p", "writer.durable:=false"]
        )  # fmt: skip
        self.folder, self.recorder, self.node = folder, Recorder(), ContractNode("robot")
        self._executor = SingleThreadedExecutor()
        for node in (self.recorder, self.node):
            self._executor.add_node(node)
        topics = ("/arm/joint_states", "/arm/tcp_pose", "/hand/joint_states", "/control/step",
                  "/session/state")  # fmt: skip
        self._out = {topic: self.node.publisher(topic) for topic in topics}
        self._start = self.node.client("/recorder/start_episode")
        self._end = self.node.client("/recorder/end_episode")
        self.said: list[tuple[int, str]] = []
        self.node.subscribe("/diagnostics", self._on_diagnostics)
        self._tick = 0
        self.stamps: list[int] = []
        self.until(lambda: all(p.get_subscription_count() for p in self._out.values()))

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.recorder.destroy_node()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _on_diagnostics(self, message: Any) -> None:
        self.said += [(status_level(s), s.message) for s in message.status if s.name == "recorder"]

    def until(self, true: Callable[[], Any], timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < end, "did not come about"
            self._executor.spin_once(timeout_sec=0.02)

    def live(self, steps: int) -> None:
        """So many control steps, 40 ms apart; the last one has been received."""
        make = self.node.messages
        for _ in range(steps):
            due = time.monotonic() + STEP_NS * 1e-9
            stamp, zero = self.node.now_ns(), np.zeros(6)
            said = {
                "/arm/joint_states": make.joint_state(stamp, ARM_JOINTS, zero, zero),
                "/arm/tcp_pose": make.pose_stamped(stamp, "base", factories.tcp_at(RECIPE, 0.0)),
                "/hand/joint_states": make.joint_state(stamp, HAND_JOINTS, zero, None, zero),
                "/control/step": make.control_step(
                    replace(factories.control_step(RECIPE, 0), time_ns=stamp, tick=self._tick)
                ),
            }
            self._tick += 1
            self.stamps.append(stamp)
            for topic, message in said.items():
                self._out[topic].publish(message)
            spin_for(self._executor, due - time.monotonic())
        for _ in range(30):
            self._executor.spin_once(timeout_sec=0.0)

    def start(self, name: str) -> Any:
        kind = interface("dexpie_msgs/srv/StartEpisode")
        return self._ask(self._start, kind.Request(episode_id=name, kind="deployment"))

    def end(self, outcome: str) -> Any:
        kind = interface("dexpie_msgs/srv/EndEpisode")
        return self._ask(self._end, kind.Request(outcome=outcome))

    def session(self, **fields: Any) -> None:
        values = {"phase": 0, "episode_id": "", "kind": "", "task": "", "stage": "", "seed": -1,
                  "policy_id": "", "pair_id": "", "directory": "", "recorded": 0}  # fmt: skip
        message = self.node.messages.session_state(self.node.now_ns(), **{**values, **fields})
        self._out["/session/state"].publish(message)

    def _ask(self, client: Any, request: Any) -> Any:
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()


RECIPE = factories.Recipe()


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    made = Robot(tmp_path)
    yield made
    made.close()


def test_the_moment_before_is_in_the_bag_and_the_end_says_how_it_went(robot: Robot) -> None:
    robot.live(25)
    while robot.stamps[-1] - robot.stamps[-3] > 400_000_000:  # the machine stood still meanwhile
        robot.live(3)
    begun = robot.node.now_ns()
    assert robot.start("a").success
    robot.live(20)
    answer = robot.end("success")
    assert answer.success and answer.directory == str(robot.folder / "a")
    steps = BagReader(find_bag(robot.folder / "a")).messages["/control/step"].log_time_ns
    early = [t for t in steps if t < begun]
    before = len(early)
    assert before >= 3 and early[-1] - early[0] < 0.6e9, "0.6 s of what came before the start"
    episode = read_episode(robot.folder / "a")
    assert len(episode) == len(steps) - before == 20
    assert episode.time_ns[0] > begun and episode.tick[0] >= 25
    content = read_episode_file(robot.folder / "a")
    assert content is not None and content.steps == 20
    stream = content.statistics["streams"]["/arm/tcp_pose"]
    assert 20 < stream["received"] <= stream["expected"]
    assert 0 < stream["rate_hz"] < 40 and stream["jitter_ms"] > 0
    for words in ("a: success", "20 control steps", f"/arm/tcp_pose {stream['slow']}",
                  "Hz instead of 125 Hz", "nothing came on /teleop/tracker"):  # fmt: skip
        assert words in answer.message, answer.message


def test_one_clock_in_a_bag_and_when_a_message_was_made(robot: Robot) -> None:
    """The stamp where there is one, else when it was sent: never when the recorder came to it."""
    key = robot.node.publisher("/intervention/key")
    robot.until(key.get_subscription_count)
    assert robot.start("a").success
    robot.live(5)
    before = robot.node.now_ns()
    key.publish(robot.node.messages.text("space"))
    time.sleep(0.2)
    after = robot.node.now_ns()
    robot.live(5)
    assert robot.end("success").success
    streams = BagReader(find_bag(robot.folder / "a")).messages
    for topic in ("/control/step", "/arm/tcp_pose"):
        stream = streams[topic]
        stamps = [header_stamp_ns(payload) for payload in stream.payloads]
        assert stream.publish_time_ns == stamps and stamps, topic
    (published,), (logged,) = (
        streams["/intervention/key"].publish_time_ns,
        streams["/intervention/key"].log_time_ns,
    )
    if TELLS_WHEN_SENT:
        assert before - 1000 <= published < after <= logged
    # Beside a simulation's clock that of the machine has no place.
    robot.recorder._simulated_time = True
    assert robot.recorder._sent_ns({"source_timestamp": 7}) == 0


def test_what_is_lost_is_a_warning_while_the_episode_runs(robot: Robot) -> None:
    robot.live(5)
    robot.start("a")
    robot.live(10)
    # The arm falls silent, the recorder's own report does not.
    robot.until(lambda: any("/arm/tcp_pose: silent" in text for level, text in robot.said if level))
    robot.end("failure")
    content = read_episode_file(robot.folder / "a")
    assert content is not None
    assert any("/arm/tcp_pose: silent" in text for text in content.statistics["warnings"])


def test_what_piled_up_while_the_recorder_had_no_time_is_recorded(robot: Robot) -> None:
    """Two thirds of a thousand messages before it comes to take the first, and the end at once."""
    robot.live(3)
    robot.start("a")
    stamps = []
    for _ in range(660):
        stamps.append(robot.node.now_ns())
        pose = factories.tcp_at(RECIPE, 0.0)
        message = robot.node.messages.pose_stamped(stamps[-1], "base", pose)
        robot._out["/arm/tcp_pose"].publish(message)
        time.sleep(0.001)
    assert robot.end("success").success
    payloads = BagReader(find_bag(robot.folder / "a")).messages["/arm/tcp_pose"].payloads
    recorded = [header_stamp_ns(payload) for payload in payloads]
    assert recorded[-660:] == stamps


def test_a_full_disk_ends_the_episode_and_says_so(
    robot: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot.live(5)
    robot.start("a")
    robot.live(10)
    usage = type(module.shutil.disk_usage("/"))
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**8))
    robot.live(30)
    robot.until(lambda: any(level == ERROR and "ended early" in text for level, text in robot.said))
    answer = robot.end("success")
    assert not answer.success and "0.10 GB free" in answer.message
    refused = robot.start("b")
    assert not refused.success and "make room" in refused.message
    assert not (robot.folder / "b").exists()
    content = read_episode_file(robot.folder / "a")
    assert content is not None and content.info.outcome == "aborted"
    assert BagReader(find_bag(robot.folder / "a")).indexed, "closed whole"
    assert len(read_episode(robot.folder / "a")) >= 10
    values = json.loads((robot.folder / "a/episode.json").read_text())
    assert "0.10 GB free" in values["statistics"]["ended_early"]


def test_a_session_that_begins_anew_aborts_its_episode(robot: Robot) -> None:
    robot.start("a")
    robot.session(phase=2, episode_id="a")
    robot.live(3)
    assert robot.recorder._recording.recording is not None
    robot.session()
    robot.until(lambda: robot.recorder._recording.recording is None)
    content = read_episode_file(robot.folder / "a")
    assert content is not None
    assert (content.info.outcome, content.info.cause) == ("aborted", "session restarted")
    answer = robot.end("success")
    assert not answer.success and "no episode" in answer.message


def test_an_end_that_comes_late_is_not_the_end_of_the_next_episode() -> None:
    """Nor is the next one thrown away, where that was asked for."""
    thrown_away: list[str] = []
    recording = SimpleNamespace(
        recording=SimpleNamespace(episode_id="a"),
        directory=Path("a"),
        discard=lambda: thrown_away.append(recording.recording.episode_id),
    )

    async def meanwhile() -> None:
        recording.recording = SimpleNamespace(episode_id="b")

    node: Any = SimpleNamespace(_recording=recording, _catch_up=meanwhile)
    response = SimpleNamespace(success=None, message="")
    asyncio.run(Recorder._serve_end(node, SimpleNamespace(discard=True), response))
    assert (response.success, thrown_away) == (False, [])
