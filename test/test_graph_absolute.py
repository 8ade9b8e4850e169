"""Demonstrations in absolute mode on the running graph: the robot comes to the operator's pose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.graph import stack
from dexpie_ros.messages import bag_typestore
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.running_graph import RunningGraph

ABSOLUTE = {
    "teleop": {"follow": "absolute"},
    "intervention_arbiter": {"arbiter.follow": "absolute"},
}


def test_a_demonstration_in_absolute_mode(tmp_path: Path) -> None:
    from rosbags.highlevel import AnyReader

    episodes, log = tmp_path / "episodes", tmp_path / "graph.log"
    specs = [
        replace(spec, parameters={**spec.parameters, **ABSOLUTE.get(spec.kind, {})})
        for spec in stack(
            "collect", rtf=0, images="none", regime="terminal", directory=str(episodes)
        )
    ]
    with RunningGraph(specs, log_file=log) as graph, SessionClient(watch=graph.check) as client:
        client.wait_ready(150.0, nodes=[spec.name for spec in specs])
        client.start("demonstration", seed=31_000, episode_id="absolute")
        client.wait_end(300.0)
    episode = read_episode(episodes / "absolute")
    assert episode.success, log.read_text(encoding="utf-8")[-3000:]
    assert episode.human.mean() > 0.9
    with AnyReader([episodes / "absolute"], default_typestore=bag_typestore()) as bag:
        said = {
            stamp: bag.deserialize(raw, connection.msgtype)
            for connection, stamp, raw in bag.messages()
            if connection.topic == "/teleop/command"
        }
    assert {message.header.frame_id for message in said.values()} == {"base"}
    there = episode.human[25:]  # the approach takes a second
    gap = np.linalg.norm(episode.command_tcp[25:, :3, 3] - episode.human_tcp[25:, :3, 3], axis=1)
    assert gap[there].max() < 0.02, "at the pose that the operator holds"
