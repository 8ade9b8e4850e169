"""Replay on a live graph: topics in time with pause, seek and rate; commands through the arbiter."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import factories
import numpy as np
import pytest
from factories import Recipe

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")
from replay_listener import Listener, matched, until

from dexpie_ros.control.types import STEP_NS, Source
from dexpie_ros.episodes import EpisodeError, read_episode
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.replay import Replay
from dexpie_ros.graph import stack
from dexpie_ros.nodes.base import ContractNode
from dexpie_ros.nodes.replay import GraphReplay
from dexpie_ros.nodes.replay_commands import press, status
from dexpie_ros.nodes.replay_execute import GraphExecution
from dexpie_ros.nodes.session_client import GraphError, SessionClient
from dexpie_ros.running_graph import RunningGraph
from dexpie_ros.simulation.lockstep import LockstepConfig, Task, run_all

SEED = 31_000
STEPS = 100


STEP_TOPIC, POSE_TOPIC = "/control/step", "/arm/tcp_pose"
KINDS = {
    "/replay/control/step": "dexpie_msgs/msg/ControlStep",
    "/replay/arm/tcp_pose": "geometry_msgs/msg/PoseStamped",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return factories.write_episode(tmp_path / "e", Recipe(steps=STEPS))


def rows(listener: Listener) -> list[int]:
    """Which control steps were heard, by the stamps in the messages."""
    from dexpie_ros.episodes.decoding import header_stamp_ns

    heard = listener.heard["/replay/control/step"]
    return [(header_stamp_ns(data) - factories.START_NS) // STEP_NS for _, data in heard]


def test_what_was_recorded_is_heard_byte_for_byte_and_in_time(path: Path) -> None:
    player = Replay(path, topics=[STEP_TOPIC, POSE_TOPIC], rate=4.0)
    with GraphReplay(player, prefix="/replay", clock=True) as replay:
        listener = Listener(KINDS)
        try:
            matched(replay, replay._clock)
            began = time.monotonic()
            assert replay.run(wait_s=2.0) == 2 * STEPS
            assert time.monotonic() - began > 2.0 + STEPS / 25 / 4 - 0.1, "not faster than asked"
            until(lambda: len(listener.heard["/replay/control/step"]) == STEPS)
            until(lambda: len(listener.heard["/replay/arm/tcp_pose"]) == STEPS)
        finally:
            listener.close()
    messages = BagReader(find_bag(path)).messages
    for topic in (STEP_TOPIC, POSE_TOPIC):
        heard = [data for _, data in listener.heard[f"/replay{topic}"]]
        assert heard == [bytes(payload) for payload in messages[topic].payloads]
    assert rows(listener) == list(range(STEPS))
    clock = np.array(listener.clock)
    assert len(clock) > 10 and (np.diff(clock) >= 0).all()
    assert clock[0] >= player.start_ns and clock[-1] <= player.start_ns + 4 * 10**9


def test_pause_seek_and_rate_take_effect_at_once(path: Path) -> None:
    """Played slowly by keys: paused in the first second, on from the last, then to the end."""
    player = Replay(path, topics=[STEP_TOPIC], rate=0.5)
    with GraphReplay(player, prefix="/replay") as replay:
        listener = Listener({"/replay/control/step": KINDS["/replay/control/step"]})
        heard = listener.heard["/replay/control/step"]
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(replay.run(wait_s=2.0)))

        def all_arrived() -> bool:
            sent = replay.published
            time.sleep(0.3)
            return len(heard) == sent == replay.published

        try:
            matched(replay)
            thread.start()
            until(lambda: len(heard) >= 3)
            press(player, " ")
            until(all_arrived)
            stood = len(heard)
            assert "paused" in status(player) and stood < 75
            time.sleep(0.5)
            assert len(heard) == stood and not done, "it stands still"
            player.seek(3.0)
            press(player, "+")
            press(player, "+")
            time.sleep(0.2)
            assert len(heard) == stood, "sought, and still paused"
            press(player, " ")
            thread.join(60)
            until(lambda: done == [len(heard)])  # the last one may still be on its way
        finally:
            player.stop()
            if thread.ident is not None:
                thread.join()
            listener.close()
    assert rows(listener) == [*range(stood), *range(75, STEPS)]
    assert player.rate == 2.0


@pytest.mark.parametrize("prefix", ["replay", "/a b", "/1"])
def test_a_prefix_that_is_no_name_is_refused(path: Path, prefix: str) -> None:
    with pytest.raises(EpisodeError, match="no beginning of a topic's name"):
        GraphReplay(Replay(path), prefix=prefix)


def test_nothing_is_played_over_a_graph_that_acts_on_it(path: Path) -> None:
    """A driver that listens, and a topic that somebody publishes already; also if they come later."""
    player = Replay(path, topics=[STEP_TOPIC, POSE_TOPIC], loop=True)
    with GraphReplay(player) as replay:
        done: list[str] = []

        def run() -> None:
            with pytest.raises(EpisodeError) as error:
                replay.run()
            done.append(str(error.value))

        thread = threading.Thread(target=run)
        thread.start()
        until(lambda: replay.published > 5)
        arm, other = ContractNode("arm_driver"), ContractNode("tracker_driver")
        try:
            arm.subscribe(STEP_TOPIC, lambda _: None)
            other.publisher(POSE_TOPIC)
            until(lambda: done)
            assert "/control/step (arm_driver acts on it)" in done[0]
            with pytest.raises(EpisodeError, match="somebody publishes it") as error:
                replay._refuse_conflicts(own=True)
            assert "--prefix" in str(error.value) and "--execute" in str(error.value)
        finally:
            player.stop()
            thread.join()
            arm.destroy_node()
            other.destroy_node()


def test_what_moves_a_robot_through_the_arbiter_is_refused_beside_one(path: Path) -> None:
    with GraphReplay(Replay(path, topics=[POSE_TOPIC])) as replay:
        nodes = [ContractNode("policy_server")]
        try:
            nodes[0].subscribe(POSE_TOPIC, lambda _: None)
            until(lambda: replay.node.count_subscribers(POSE_TOPIC))
            replay._refuse_conflicts(own=True)  # on its own it moves nothing
            nodes.append(ContractNode("intervention_arbiter"))
            until(lambda: "intervention_arbiter" in replay.node.get_node_names())
            with pytest.raises(EpisodeError, match="policy_server acts on it"):
                replay._refuse_conflicts(own=True)
        finally:
            for node in nodes:
                node.destroy_node()


def test_an_arbiter_that_falls_silent_leaves_no_episode_open(path: Path) -> None:
    ended: list[tuple[str, str]] = []

    class Client:
        node = SimpleNamespace(publisher=lambda _: None, subscribe=lambda *_, **__: None)
        running = True

        def spin_for(self, _: float) -> None:
            pass

        def error(self, text: str) -> GraphError:
            return GraphError(text)

        def end(self, outcome: str, cause: str) -> None:
            ended.append((outcome, cause))

    client: Any = Client()
    with pytest.raises(GraphError, match="no control step"):
        GraphExecution(client, read_episode(path)).run(patience_s=0.0)
    assert ended == [("aborted", "no control steps")]


def replay(
    client: SessionClient, *arguments: str, tend: Callable[[Any], None] = lambda _: None
) -> subprocess.CompletedProcess[str]:
    """`dexpie episodes replay ... --execute` while this process' client goes on listening."""
    words = ["episodes", "replay", *arguments, "--execute"]
    command = [sys.executable, "-m", "dexpie_ros.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 150
        while process.poll() is None and time.monotonic() < end:
            client.spin_for(0.05)
            tend(process)
    finally:
        process.kill()
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_in_real_time_the_arbiter_waits_for_nobody(tmp_path: Path) -> None:
    """As on the robot: the recording must keep up with the arbiter, and is judged by its caller."""
    (recorded,) = run_all(LockstepConfig(), [Task("demonstration", SEED)], tmp_path)
    episodes = tmp_path / "episodes"
    specs = stack(
        "collect", rtf=1, lockstep=False, images="none", regime="terminal", directory=str(episodes)
    )
    log = tmp_path / "graph.log"
    with RunningGraph(specs, log_file=log) as graph, SessionClient(watch=graph.check) as client:
        client.wait_ready(150.0, nodes=[spec.name for spec in specs])
        for _ in range(3):  # a machine that stands still for a moment is late, which stops a replay
            before = set(episodes.iterdir()) if episodes.is_dir() else set()
            done = replay(client, str(recorded.directory), "--outcome", "aborted")
            if done.returncode == 0:
                break
    assert done.returncode == 0, done.stderr + done.stdout
    (path,) = set(episodes.iterdir()) - before
    first, again = read_episode(recorded.directory), read_episode(path)
    if again.outcome == "aborted":  # else the operator was faster to judge it
        assert f"{len(first)} of {len(first)} commands executed" in done.stdout
    assert (again.source == Source.POLICY).sum() > 0.8 * len(first)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SessionClient, Path]]:
    """The stack that collects, in lockstep, and a demonstration that it recorded."""
    folder = tmp_path_factory.mktemp("execute")
    episodes = folder / "episodes"
    specs = stack("collect", rtf=0, images="none", regime="terminal", directory=str(episodes))
    log = folder / "graph.log"
    with RunningGraph(specs, log_file=log) as graph, SessionClient(watch=graph.check) as client:
        client.wait_ready(150.0, nodes=[spec.name for spec in specs])
        client.start("demonstration", seed=SEED, episode_id="demonstration")
        client.wait_end(300.0)
        assert read_episode(episodes / "demonstration").success, log.read_text()[-2000:]
        yield client, episodes


def test_a_recorded_episode_executed_again_reaches_the_same_outcome(
    live: tuple[SessionClient, Path],
) -> None:
    client, episodes = live
    done = replay(client, "demonstration", "--root", str(episodes))
    assert done.returncode == 0, done.stderr
    assert "outcome success (recorded: success)" in done.stdout
    (path,) = episodes.glob("replay-*")
    first, again = read_episode(episodes / "demonstration"), read_episode(path)
    assert again.success and again.info.policy_id == "replay" and again.info.seed == SEED
    assert again.info.note == {"replay_of": "demonstration"}
    assert not again.partial and not again.flags.any()
    # Behind the approach the commands are the recorded ones, up to where it was judged.
    away = again.command_tcp[:, :3, 3] - first.command_tcp[20, :3, 3]
    start = int(np.linalg.norm(away, axis=1).argmin()) - 20
    assert start >= 8
    steps = min(len(first), len(again) - start)
    assert steps > 0.9 * len(first)
    driven = slice(10, start + steps)
    assert (again.source[driven] == Source.POLICY).all() and not again.stalls[driven].any()
    gap = again.command_tcp[start : start + steps, :3, 3] - first.command_tcp[:steps, :3, 3]
    assert np.linalg.norm(gap, axis=1).max() < 1e-9, "through the limits unchanged"
    who = partial(client.node.get_publishers_info_by_topic, "/control/command")
    until(lambda: client.spin_for(0.1) or who())  # discovery takes its time
    infos = who()
    assert [info.node_name for info in infos] == ["intervention_arbiter"]


def test_what_cannot_be_executed_is_refused_before_anything_moves(
    live: tuple[SessionClient, Path],
) -> None:
    client, episodes = live
    before = sorted(path.name for path in episodes.iterdir())
    wrong = factories.write_episode(episodes.parent / "other", Recipe(steps=30), task="drawer")
    done = replay(client, str(wrong))
    assert done.returncode == 2 and "launch it with task:=drawer" in done.stderr, done.stderr
    done = replay(client, "demonstration", "--root", str(episodes), "--rate", "2")
    assert done.returncode == 2 and "--rate does not go with --execute" in done.stderr
    policy = client.node.publisher("/policy/chunk")
    done = replay(client, "demonstration", "--root", str(episodes))
    client.node.destroy_publisher(policy)
    assert done.returncode == 2 and "drives this graph already" in done.stderr, done.stderr
    assert sorted(path.name for path in episodes.iterdir()) == before
    assert not client.running


def test_an_interrupted_replay_ends_its_episode(live: tuple[SessionClient, Path]) -> None:
    client, episodes = live
    before = set(episodes.iterdir())
    sent: list[int] = []

    def interrupt(process: Any) -> None:
        driving = client.running and client.step.command.source == Source.POLICY
        if driving and not sent:
            process.send_signal(signal.SIGINT)
            sent.append(client.step.tick)

    slow = factories.write_episode(episodes.parent / "slow", Recipe(steps=2000))
    done = replay(client, str(slow), tend=interrupt)
    assert sent and done.returncode == 130, done.stderr
    assert "ended as aborted" in done.stderr
    (path,) = set(episodes.iterdir()) - before
    assert read_episode(path).outcome == "aborted"
    assert not client.running
