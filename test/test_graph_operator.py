"""The running graph in real time: takeover by every way there is, stops, and nodes that die."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from live_graph import LiveGraph, live_graph
from pty_keyboard import PtyKeyboard
from rosbags.rosbag2 import Reader

from dexpie_ros.control.types import Command, Mode
from dexpie_ros.episodes import EpisodeError, read_episode
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.episodes.episode_file import read_episode_file
from dexpie_ros.episodes.repair import repair
from dexpie_ros.geometry import Pose
from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.arrivals import told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGraph]:
    with live_graph(tmp_path_factory.mktemp("operator")) as live:
        yield live


@pytest.fixture
def live(graph: LiveGraph) -> Iterator[LiveGraph]:
    """Idle before and after."""
    graph.reasons.clear()
    yield graph
    graph.end()


def human(live: LiveGraph) -> bool:
    return live.mode is Mode.HUMAN


def test_takeover_by_service_and_by_event(live: LiveGraph) -> None:
    live.start("takeover")
    for take, give in (
        (lambda: live.ask("/intervention/force"), lambda: live.ask("/intervention/toggle")),
        (lambda: live.key("F"), lambda: live.key(" ")),
        (lambda: live.key("force"), lambda: live.ask("/intervention/set", False)),
    ):
        live.persist(take, lambda: human(live), "the operator drives")
        live.persist(give, lambda: live.drives, "the policy drives again")
    live.persist(lambda: live.key("h"), lambda: live.reason == "requested", "holds")
    live.until(lambda: taken_or_misaligned(live), "is taken over, or says what is misaligned")
    directory = live.client.end("success")
    record = read_episode_file(live.episodes / "takeover")
    assert directory.endswith("takeover") and record.info.outcome == "success"
    figures = record.statistics["nodes"]["intervention_arbiter"]
    assert float(figures["jitter_p99_ms"]) >= 0 and float(figures["takeover_count"]) >= 3
    if told():
        assert float(figures["command_latency_count"]) > 0
        assert float(figures["command_latency_p99_ms"]) > float(figures["chunk_way_p50_ms"]) > 0
    assert int(float(figures["interventions"])) >= 3


def taken_or_misaligned(live: LiveGraph) -> bool:
    """A stream that is late for a moment is no answer."""
    taken, why = live.ask("/intervention/set", True)
    return taken or ("no takeover" in why and "silent" not in why)


def test_the_keyboard_in_a_terminal(live: LiveGraph) -> None:
    live.start("typed")
    with PtyKeyboard(live.folder / "keyboard.log") as keyboard:
        live.until(lambda: "[POLICY]" in keyboard.screen(), "the screen shows the mode")
        assert keyboard.raw
        live.persist(lambda: keyboard.type(b"F"), lambda: human(live), "the operator drives")
        live.until(lambda: "[HUMAN]" in keyboard.screen(), "the screen shows it")
        for shown in ("alignment: ", "wrist ", "session: running typed", "streams: "):
            live.until(lambda shown=shown: shown in keyboard.screen(), f"the screen shows {shown}")
        keyboard.type(b"\x1b[A\x1bOB")  # arrows begin like the emergency stop and are none
        live.client.spin_for(0.6)
        assert all(mode is not Mode.FAULT for mode, _ in live.reasons)

        def fail() -> None:
            if live.session.phase != 2:
                return  # it is being closed
            keyboard.type(b"f")
            live.until(lambda: "1: tipped" in keyboard.screen(), "asks for the cause")
            keyboard.type(b"2")

        live.persist(fail, lambda: live.session.phase == 0, "the episode is over")
        record = read_episode_file(live.episodes / "typed")
        assert (record.info.outcome, record.info.cause) == ("failure", "dropped")
        fault = partial(live.is_in, Mode.FAULT)
        live.persist(lambda: keyboard.type(b"\x1b"), fault, "the escape key stops")
        assert live.reason == "emergency stop"
        hold = partial(live.is_in, Mode.HOLD)
        live.persist(lambda: keyboard.type(b"c"), hold, "cleared")
        keyboard.type(b"\x03")
        assert keyboard.wait() == 0, (live.folder / "keyboard.log").read_text()
        assert keyboard.restored


def test_a_terminated_keyboard_gives_the_terminal_back(live: LiveGraph) -> None:
    with PtyKeyboard(live.folder / "keyboard.log") as keyboard:
        live.until(lambda: "[HOLD]" in keyboard.screen(), "the screen shows the mode")
        keyboard.process.send_signal(signal.SIGTERM)
        keyboard.wait()
        assert keyboard.restored


def test_the_monitor_sees_the_graph(live: LiveGraph) -> None:
    live.start("watched")
    command = [sys.executable, "-m", "dexpie_ros.cli", "monitor", "--once", "3"]
    said = ["arbiter: ", "/control/step", "policy_server", "jitter_p99_ms"]
    said += ["command_latency_p99_ms"] if told() else []
    for _ in range(8):  # on a busy machine three seconds may be too few to meet every node
        wide = {**os.environ, "COLUMNS": "240"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=wide)
        assert done.returncode == 0, done.stderr
        if all(shown in done.stdout for shown in said):
            break
    for shown in said:
        assert shown in done.stdout, done.stdout


def test_an_emergency_stop_ends_the_episode(live: LiveGraph) -> None:
    live.start("stopped")
    assert live.ask("/intervention/emergency_stop")[0]
    live.until(lambda: live.mode is Mode.FAULT, "fault")
    live.until(lambda: live.session.phase == 0, "the episode is over")
    record = read_episode_file(live.episodes / "stopped")
    assert (record.info.outcome, record.info.cause) == ("aborted", "emergency stop")
    accepted, why = live.ask("/intervention/toggle")
    assert not accepted and "clear the fault" in why


def test_a_second_writer_is_a_fault(live: LiveGraph) -> None:
    live.start("two")
    node = live.client.node
    stranger = node.publisher("/control/command")
    zero = Command(Pose([0.4, 0.0, 0.3], [0.0, 0.0, 0.0, 1.0]), [1.0] * 6)
    command = node.messages.control_command(1, zero)

    def heard() -> bool:  # as those do who are no part of the graph: whoever listens by then
        stranger.publish(command)
        live.client.spin_for(0.5)
        return live.mode is Mode.FAULT

    live.until(heard, "fault")
    assert "two nodes command the arm" in live.reason and node.get_name() in live.reason
    node.destroy_publisher(stranger)


def test_the_session_leads_through_its_plan(live: LiveGraph) -> None:
    def said() -> dict:
        return json.loads(live.plan)

    def goes_on(wanted: str) -> None:
        """By the key for what comes next: the plan is said beside the answer, before or after it."""
        before = said()["phase"]

        def press() -> None:
            if said()["phase"] == before:
                live.ask("/session/next", did=lambda: said()["phase"] != before)

        live.persist(press, lambda: said()["phase"] == wanted, wanted)

    live.until(lambda: live.plan, "the session says where it is")
    goes_on("setting up")
    assert said()["assignment"]["kind"] == "deployment"
    goes_on("running")
    live.key("f")
    live.until(lambda: said()["phase"] == "asking for the cause", "asks")
    live.key("2")
    live.until(lambda: said()["phase"] == "idle", "over")
    goes_on("setting up")
    again = said()["assignment"]
    assert again["kind"] == "correction" and again["pair_id"]
    gone = lambda: said()["assignment"] is None
    assert live.ask("/session/re_record", did=gone)[0], "the failure is thrown away"
    live.until(gone, "nothing is assigned")


def test_home(live: LiveGraph) -> None:
    # refused or stopped on its way where a stream was late
    live.until(lambda: live.ask("/intervention/home") == (True, "home"), "home", timeout=120.0)
    live.start("no")
    assert live.ask("/intervention/home") == (False, "an episode is running; end it first")


@pytest.fixture
def load() -> Iterator[None]:
    """A neighbour that computes all the time, for the tests in which a node is killed."""
    words = ["nice", "-n", "5", sys.executable, "-c", "while True: pass"]
    neighbour = subprocess.Popen(words)
    try:
        yield
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def back(live: LiveGraph, node: str, pid: int | None) -> None:
    live.until(lambda: live.pid(node) not in (None, pid), f"{node} is started again")


def test_the_policy_server_dies(live: LiveGraph, load: None) -> None:
    live.start("without-policy")
    pid = live.pid("policy_server")
    live.kill("policy_server")
    told = "policy server: its process has ended", "policy server is silent"  # whichever is first
    live.until(lambda: any(map(live.was, told)), "holds and says why")
    live.take_over()  # the operator may drive meanwhile
    give = partial(live.ask, "/intervention/set", False)
    live.persist(give, lambda: not human(live), "gives back")
    back(live, "policy_server", pid)
    live.until(lambda: live.drives, "goes on")


@pytest.mark.parametrize("node", ["teleop", "simulated_operator"])
def test_the_operators_side_dies(live: LiveGraph, load: None, node: str) -> None:
    live.start(f"without-{node}")
    live.take_over()
    pid = live.pid(node)
    live.kill(node)
    live.until(lambda: live.was("lost; holding"), "holds and says why")
    back(live, node, pid)
    live.until(lambda: live.reason == "the operator drives", "goes on")


def test_the_arbiter_dies(live: LiveGraph, load: None) -> None:
    live.start("without-arbiter")
    commands: dict[int, np.ndarray] = {}
    poses: dict[int, np.ndarray] = {}

    def keep(into: dict[int, np.ndarray], pose: str, message: Any) -> None:
        p = getattr(message, pose).position
        into[stamp_ns(message.header.stamp)] = np.array([p.x, p.y, p.z])

    node = live.client.node
    listeners = [
        node.subscribe("/control/command", partial(keep, commands, "tcp")),
        node.subscribe("/arm/tcp_pose", partial(keep, poses, "pose")),
    ]
    live.until(lambda: len(commands) > 10 and len(poses) > 10, "commands and poses are heard")
    pid = live.pid("intervention_arbiter")
    live.kill("intervention_arbiter")
    back(live, "intervention_arbiter", pid)
    live.client.spin_for(0.2)
    heard = live.heard["/control/step"]
    live.reasons.clear()
    live.until(lambda: live.heard["/control/step"] > heard, "steps again")
    live.until(lambda: live.reasons and live.drives, "the policy drives again")
    for listener in listeners:
        node.destroy_subscription(listener)
    # Nobody commands in the widest gap: the robot goes to the last command and stays there. Half a
    # second of it, for the new arbiter commands before this listener hears it.
    stamps = sorted(commands)
    last, again = max(itertools.pairwise(stamps), key=lambda pair: pair[1] - pair[0])
    alone = [t for t in sorted(poses) if last < t <= min(again, last + 500_000_000)]
    away = [np.linalg.norm(poses[t] - commands[last]) for t in alone]
    assert len(away) >= 3, "the world went on meanwhile"
    assert max(away) <= away[0] + 3e-3, "and the robot did not go elsewhere"


def test_the_arbiter_dies_while_the_operator_drives(live: LiveGraph, load: None) -> None:
    """Nobody gave the robot back to the policy: it holds until somebody says who drives."""
    live.start("without-arbiter-and-person")
    live.take_over()
    pid = live.pid("intervention_arbiter")
    live.kill("intervention_arbiter")
    back(live, "intervention_arbiter", pid)
    holds = ("requested", "waiting for the operator")
    live.until(lambda: live.reasons and live.reason in holds, "holds with all streams there")
    live.client.spin_for(1.0)
    assert live.mode is Mode.HOLD and not live.drives
    live.take_over()
    give = partial(live.ask, "/intervention/set", False)
    live.persist(give, lambda: live.drives, "the policy drives when it is told to")


@pytest.mark.parametrize("node", ["session", "recorder"])
def test_who_leads_or_records_dies(live: LiveGraph, load: None, node: str) -> None:
    """The episode is over, the robot holds, what was recorded is there, the next one works."""
    live.start(f"without-{node}")
    pid, path = live.pid(node), live.episodes / f"without-{node}"
    live.until(lambda: steps_on_disk(path) >= 10, "a part of it is safe")
    safe = steps_on_disk(path)
    live.kill(node)
    live.until(lambda: live.mode is Mode.HOLD, "holds")
    back(live, node, pid)
    live.until(lambda: live.session.phase == 0 and live.reason == "no episode", "over")
    expected = ("finished", "aborted") if node == "session" else ("recording", "")

    def state() -> tuple[str, str]:
        record = read_episode_file(path)
        return record.status, record.info.outcome

    live.until(lambda: state() == expected, f"the bag is {expected}")
    if node == "recorder":  # what it left is made whole, and all that was safe is there
        assert repair(path).changed
        record = read_episode_file(path)
        assert record is not None and record.status == "repaired" and record.steps >= safe
        with Reader(path) as bag:
            assert bag.message_count == record.messages
        episode = read_episode(path)
        assert episode.partial and len(episode) >= safe and not episode.outcome
    live.start(f"after-{node}")


def steps_on_disk(path: Path) -> int:
    """Control steps in whole chunks of a bag that is still being written."""
    try:
        bag, record = BagReader(find_bag(path)), read_episode_file(path)
    except EpisodeError:
        return 0  # not begun
    said = bag.messages["/control/step"].payloads if "/control/step" in bag.messages else ()
    return len({stamp for cdr in said if (stamp := header_stamp_ns(cdr)) >= record.start_ns})


def test_the_robot_dies(live: LiveGraph, load: None) -> None:
    live.start("without-robot")
    pid = live.pid("simulated_cell")
    live.kill("simulated_cell")
    live.until(lambda: live.was("/arm/tcp_pose is silent"), "holds and says why")
    back(live, "simulated_cell", pid)
    live.until(lambda: live.mode is Mode.FAULT, "its clock went back")
    live.until(lambda: live.session.phase == 0, "the episode is over")
    clear = partial(live.ask, "/intervention/clear_fault")
    live.persist(clear, lambda: live.mode is Mode.HOLD, "the fault is cleared")
    live.start("after-robot")
    live.take_over()  # the operator's side follows the new clock
