"""The running graph: real processes on real DDS, held against the contract and against lockstep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros import contract
from dexpie_ros.contract import Qos
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.graph import stack
from dexpie_ros.nodes.base import interface
from dexpie_ros.nodes.session_client import GraphError, SessionClient
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.policy.policy import Policy
from dexpie_ros.running_graph import RunningGraph
from dexpie_ros.simulation.lockstep import LockstepConfig, Task, run_all
from dexpie_ros.training.train import actor_preset, train_actor

SEED = 31_000
PATIENCE_S = 150.0
"""In lockstep: a busy machine makes it slow, never wrong."""


@dataclass
class Stack:
    client: SessionClient
    policy: Path
    episodes: Path
    demonstration: Path
    log: Path


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A deployed stack with a policy that a few hundred steps of training gave."""
    folder = tmp_path_factory.mktemp("graph")
    demos = run_all(LockstepConfig(), [Task("demonstration", SEED + k) for k in range(3)], folder)
    spec = ObservationSpec(parts=("tcp", "hand", "objects"), object_names=("bottle", "platform"))
    preset = actor_preset("cpu", "bc", spec)
    settings = replace(preset, loop=replace(preset.loop, iterations=150))
    policy = train_actor(settings, [read_episode(d.directory) for d in demos], None, folder / "bc")
    episodes, log = folder / "episodes", folder / "graph.log"
    specs = stack("deploy", rtf=0, directory=str(episodes), policy=str(policy), device="cpu",
                  regime=LockstepConfig().cell.bottle.regime)  # fmt: skip
    with RunningGraph(specs, log_file=log) as graph, SessionClient(watch=graph.check) as client:
        client.wait_ready(PATIENCE_S, nodes=[spec.name for spec in specs])
        client.start("demonstration", seed=SEED, episode_id="demonstration")
        client.wait_end(PATIENCE_S)
        yield Stack(client, policy, episodes, episodes / "demonstration", log)


def until(live: Stack, true: Callable[[], object], what: str) -> None:
    """Discovery takes its time on a busy machine."""
    end = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < end, what
        live.client.spin_for(0.1)


def test_a_demonstration_by_teleoperation_succeeds(live: Stack) -> None:
    episode = read_episode(live.demonstration)
    assert episode.success, live.log.read_text(encoding="utf-8")[-2000:]
    assert episode.human.mean() > 0.9
    assert not episode.partial and not episode.flags.any()
    assert len(episode.images("front")) == len(episode)
    assert episode.images("wrist")[10].shape == (240, 320, 3)
    assert episode.images("front")[10].std() > 10, "a picture, not a blank"
    assert np.array_equal(np.diff(episode.time_ns), np.full(len(episode) - 1, 40_000_000))


def test_the_graph_is_the_contract(live: Stack) -> None:
    node = live.client.node
    expected = {
        topic.name: topic for topic in contract.TOPICS
        if topic.publisher != contract.ANYONE and not topic.publisher.endswith("_driver")
    }  # fmt: skip
    for name, topic in expected.items():
        until(
            live, partial(node.get_publishers_info_by_topic, name), f"{name}: nobody publishes it"
        )
        for info in node.get_publishers_info_by_topic(name):
            assert info.topic_type == topic.type, name
            assert info.qos_profile.reliability.name == "RELIABLE", name
            latched = info.qos_profile.durability.name == "TRANSIENT_LOCAL"
            assert latched == (topic.qos is Qos.STATE), name
            if topic.publisher != "all":
                assert info.node_name in topic.publisher.split("|"), name
    ours = {n for n, _ in node.get_topic_names_and_types()}
    system = {"/rosout", "/parameter_events"}
    assert ours - system <= set(contract.BY_NAME), "a topic that the contract does not know"
    wanted = {
        name: [kind]
        for name, kind in contract.SERVICES.items()
        if name not in contract.ROBOT_SERVICES
    }
    until(
        live,
        lambda: wanted.items() <= dict(node.get_service_names_and_types()).items(),
        "the services of the contract",
    )


def test_only_the_arbiter_commands(live: Stack) -> None:
    find = partial(live.client.node.get_publishers_info_by_topic, "/control/command")
    until(live, find, "somebody commands")
    assert [info.node_name for info in find()] == ["intervention_arbiter"]


def test_live_and_lockstep_are_equal_bit_for_bit(live: Stack) -> None:
    live.client.start("evaluation", seed=SEED + 9, episode_id="live", policy_id=str(live.policy))
    live.client.wait_end(PATIENCE_S)
    task = Task("evaluation", SEED + 9, episode_id="lockstep")
    run_all(LockstepConfig(), [task], live.episodes, Policy.load(live.policy))
    a, b = read_episode(live.episodes / "live"), read_episode(live.episodes / "lockstep")
    steps = min(len(a), len(b))
    assert abs(len(a) - len(b)) <= 10 and steps > 20
    assert a.outcome == b.outcome
    for name in ("command_tcp", "command_hand", "tcp", "hand", "objects", "proposal_hand"):
        assert np.array_equal(getattr(a, name)[:steps], getattr(b, name)[:steps], equal_nan=True), (
            name
        )


def test_the_operator_takes_over_by_the_service(live: Stack) -> None:
    """A policy that barely moves stalls; the operator notices, takes over and finishes."""
    client = live.client
    client.start("correction", seed=SEED + 1, episode_id="corrected", policy_id=str(live.policy))
    client.wait_end(PATIENCE_S)
    episode = read_episode(live.episodes / "corrected")
    assert episode.human.any() and not episode.human[:5].any()
    assert any("takes over" in text for _, text in episode.events)
    executed = np.linalg.norm(np.diff(episode.command_tcp[:, :3, 3], axis=0), axis=1)
    assert executed.max() < 0.75 * 0.04 + 1e-9, "no jump, at the takeover either"


def test_the_clock_never_goes_back_and_commands_follow_a_reset(live: Stack) -> None:
    stamps: list[int] = []
    node = live.client.node
    row = contract.BY_NAME["/clock"]
    subscription = node.create_subscription(
        interface(row.type), row.name,
        lambda m: stamps.append(m.clock.sec * 10**9 + m.clock.nanosec), 100,
    )  # fmt: skip
    until(live, lambda: stamps, "the clock is heard")
    for k in range(2):
        live.client.start("demonstration", seed=SEED + k, episode_id=f"reset-{k}")
        heard = len(stamps) + 12
        while len(stamps) < heard:  # however fast this machine is
            live.client.spin_for(0.01)
            assert live.client.running, "it is over before it was heard"
        live.client.end("aborted", discard=True)
    node.destroy_subscription(subscription)
    assert stamps == sorted(stamps)
    assert not (live.episodes / "reset-0").exists(), "discarded: nothing is kept"


def test_refusals_say_why(live: Stack) -> None:
    client = live.client
    with pytest.raises(GraphError, match="kind 'play'"):
        client.start("play")
    with pytest.raises(GraphError, match="no episode is running"):
        client.end("success")
    with pytest.raises(GraphError, match="no policy there"):
        client.start("evaluation", seed=1, episode_id="nobody", policy_id="missing")
    assert not (live.episodes / "nobody").exists(), "a failed start leaves nothing behind"
    with pytest.raises(GraphError, match="has no stage 'nowhere'"):
        client.start("demonstration", seed=1, stage="nowhere", episode_id="stage")
    client.start("demonstration", seed=1, episode_id="first")
    with pytest.raises(GraphError, match="still there"):
        client.start("demonstration", seed=2)
    client.end("aborted", discard=True)


def test_standard_readers_open_the_bag(live: Stack) -> None:
    from mcap.reader import make_reader
    from rosbags.highlevel import AnyReader

    from dexpie_ros.messages import bag_typestore

    with AnyReader([live.demonstration], default_typestore=bag_typestore()) as reader:
        topics = {c.topic: c.msgcount for c in reader.connections}
        assert topics["/control/step"] == len(read_episode(live.demonstration))
        assert {"/arm/tcp_pose", "/teleop/tracker", "/simulation/state"} <= set(topics)
    file = next(live.demonstration.glob("*.mcap"))
    with file.open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None and summary.statistics is not None
    assert summary.statistics.message_count == sum(topics.values())
