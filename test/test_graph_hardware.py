"""The robot's graph with nothing left out but the robot: all drivers against all emulators.

It is what `dexpie launch collect hardware:=emulated` starts, with smaller cameras and more
patience: other tests may keep the machine so busy that a process sleeps for half a second, and the
robot's own bounds are those of a machine that has nothing else to do. So nothing here says how soon
something happens; `dexpie bench faults` measures that (docs/hardware.md).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")
from emulated import loopback, needs, needs_compiler, needs_realsense

for library in ("rtde_control", "pymodbus", "openvr", "zmq"):
    needs(library)
needs_realsense()
needs_compiler()

from hardware_cell import (
    ERROR,
    FPS,
    HEIGHT,
    OK,
    STALE,
    START_S,
    WARN,
    WIDTH,
    Cell,
    fit_to_a_small_machine,
    ordinary_scheduling,
    settled,
    take_over,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.serialization import deserialize_message

from dexpie_ros import contract, geometry
from dexpie_ros.contract import Qos
from dexpie_ros.control.modes import DRIVES
from dexpie_ros.control.types import Mode
from dexpie_ros.emulators.peer import Control
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.episodes.reader import read_episode
from dexpie_ros.graph import stack
from dexpie_ros.graph_robot import CONTROL_PORTS
from dexpie_ros.nodes.base import ContractNode, interface
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.running_graph import RunningGraph
from dexpie_ros.runtime import spin_for


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    folder, host = tmp_path_factory.mktemp("hardware"), loopback()
    episodes, log = folder / "episodes", folder / "graph.log"
    specs = stack(
        "collect", sim=False, hardware="emulated", emulators=host, directory=str(episodes)
    )
    with (
        ordinary_scheduling(),
        RunningGraph(fit_to_a_small_machine(specs), log_file=log) as graph,
        SessionClient(watch=graph.check) as client,
    ):
        client.wait_ready(START_S, nodes=[spec.name for spec in specs if spec.is_node])
        emulators = {name: Control(host, port) for name, port in CONTROL_PORTS.items()}
        made = Cell(client, graph, emulators, episodes, log)
        made.listen()
        yield made
        for control in emulators.values():
            control.close()


def test_the_graph_is_the_contract(cell: Cell) -> None:
    settled(cell)
    kinds = {"camera_front": "camera_driver", "camera_wrist": "camera_driver"}
    running = {spec.name: spec.kind for spec in stack("collect", sim=False)}
    node = cell.client.node
    for topic in contract.TOPICS:
        expected = set(topic.publisher.split("|")) & set(running.values())

        def writers(name: str = topic.name) -> set[str]:
            infos = node.get_publishers_info_by_topic(name)
            return {kinds.get(info.node_name, info.node_name) for info in infos}

        if topic.publisher not in ("all", "anyone"):  # discovery takes its time
            cell.until(
                lambda writers=writers, expected=expected: writers() == expected,
                f"{topic.name}: by {expected} only",
            )
        for info in node.get_publishers_info_by_topic(topic.name):
            assert info.topic_type == topic.type, topic.name
            latched = info.qos_profile.durability.name == "TRANSIENT_LOCAL"
            assert latched == (topic.qos is Qos.STATE), topic.name
    expected_services = {name: [contract.SERVICES[name]] for name in contract.ROBOT_SERVICES}
    cell.until(
        lambda: expected_services.items() <= dict(node.get_service_names_and_types()).items(),
        "the services of the contract",
    )


def test_only_processes_with_raw_images_share_memory(cell: Cell) -> None:
    """Who is killed while it writes there stops all who write to the same reader, for a second."""
    settled(cell)
    sharing = set()
    for name, node in cell.graph.supervisor.nodes.items():
        if "/dev/shm/fastdds_" in Path(f"/proc/{node.pid}/maps").read_text(encoding="utf-8"):
            sharing.add(name)
    assert sharing == {"camera_front", "camera_wrist", "recorder", "tracker_driver"}


RATES = {
    "/arm/joint_states": 125,
    "/arm/tcp_pose": 125,
    "/hand/joint_states": 25,
    "/teleop/tracker": 100,
    "/teleop/glove": 90,
    "/control/step": 25,
    "/camera/front/color/image_raw": FPS,
    "/camera/wrist/color/image_raw/compressed": FPS,
}


@pytest.mark.parametrize("topic", RATES)
def test_streams_come_at_their_rates_with_capture_stamps(cell: Cell, topic: str) -> None:
    settled(cell)
    ear, rates = Ear(topic), list[str]()
    try:
        cell.until(lambda: bool(ear.listen(0.1)), f"nothing on {topic}")
        for _ in range(20):  # a busy machine gives a second of its time now and then
            if right := holds(cell, ear, RATES[topic], rates):
                break
    finally:
        ear.close()
    assert right, rates
    times = [header_stamp_ns(data) for data in ear.heard]
    assert times == sorted(set(times))
    assert abs(time.time_ns() - times[-1]) < 30e9, "the robot's clock is not ROS time"
    first = deserialize_message(ear.heard[0], interface(contract.BY_NAME[topic].type))
    assert first.header.frame_id == contract.BY_NAME[topic].frame


class Ear:
    """Hears one topic and nothing else, unread: a Python process that hears all of the graph has no
    time left on a busy machine, and would measure itself.
    """

    def __init__(self, topic: str) -> None:
        self.heard: list[bytes] = []
        self._node, self._executor = ContractNode("ear"), SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._node.subscribe(topic, self.heard.append, raw=True, depth=500)

    def listen(self, seconds: float) -> int:
        """How many came meanwhile."""
        self.heard.clear()
        spin_for(self._executor, seconds)
        return len(self.heard)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()


def holds(cell: Cell, ear: Ear, nominal: float, rates: list[str]) -> bool:
    """Whether a rate is right for one second; no better than the emulated arm's own cycle."""
    robot, began = cell.emulators["emulator_ur5"], time.monotonic()
    since = robot.ask("time")
    count, seconds = ear.listen(1.0), time.monotonic() - began
    given = min(1.0, len(robot.ask("trace", since_ns=since)) / seconds / 125.0)
    rates.append(f"{count / seconds:.1f} Hz where the machine gives {given:.2f}")
    return 0.8 * given * nominal < count / seconds < 1.1 * nominal + 2


def test_camera_info_is_latched_and_the_cameras_own(cell: Cell) -> None:
    heard: list[Any] = []
    topic = "/camera/wrist/color/camera_info"
    subscription = cell.client.node.subscribe(topic, heard.append)
    cell.until(lambda: bool(heard), f"nothing on {topic}")
    cell.client.node.destroy_subscription(subscription)
    focal = 615.0 * WIDTH / 640
    assert (heard[0].width, heard[0].height) == (WIDTH, HEIGHT)
    assert heard[0].k[0] == heard[0].p[0] == focal and heard[0].k[2] == WIDTH / 2


def test_the_operator_moves_the_emulated_arm_and_hand_and_it_is_recorded(cell: Cell) -> None:
    settled(cell)
    vive, glove = cell.emulators["emulator_vive"], cell.emulators["emulator_manus"]
    place = geometry.make_pose(np.eye(3), [0.0, 1.2, -0.3])
    vive.ask("place", matrix=place.tolist())
    glove.ask("hold", closed=0.0)
    cell.client.spin_for(0.5)
    cell.client.start("demonstration", episode_id="by-hand")
    take_over(cell)
    cell.client.spin_for(0.6)
    cell.until(lambda: bool(cell.hand().min() > 0.7), "the hand did not open with the glove")
    for last in (False, False, True):  # an operator who is lost for a moment is anchored anew
        cell.until(cell.arm_stands_still, "the arm did not come to rest")
        start, sign = cell.tcp(), 1.0 if place[0, 3] < 0.04 else -1.0
        for _ in range(20):
            place[0, 3] += 0.004 * sign
            vive.ask("place", matrix=place.tolist())
            cell.client.spin_for(0.04)

        def moved(start: np.ndarray = start) -> bool:
            return bool(abs(np.linalg.norm(cell.tcp() - start) - 0.08) < 0.003)

        try:
            cell.until(moved, "the arm did not move by the operator's 8 cm", 20.0)
            break
        except AssertionError:
            if last:
                raise
    glove.ask("hold", closed=1.0)
    cell.until(lambda: cell.hand()[:4].max() < 0.3, "the hand did not close with the glove")
    directory = Path(cell.client.end("success"))
    glove.ask("hold")
    vive.ask("place")
    episode = read_episode(directory)
    assert episode.success and episode.human.sum() > 10
    assert np.linalg.norm(episode.tcp[:, :3, 3] - start, axis=1).max() > 0.07
    lag = np.linalg.norm(episode.tcp[:, :3, 3] - episode.command_tcp[:, :3, 3], axis=1)
    assert np.median(lag) < 0.03, "the arm follows the commands that are recorded as executed"
    assert episode.images("front")[5].shape == (HEIGHT, WIDTH, 3)
    assert 35 < float(np.median(np.diff(episode.time_ns))) * 1e-6 < 90


def test_a_protective_stop_stops_everything_until_the_operator_recovers(cell: Cell) -> None:
    settled(cell)
    robot = cell.emulators["emulator_ur5"]
    robot.ask("protective_stop")
    cell.until_status("arm_driver", ERROR, "protective stop")
    cell.until_mode(Mode.FAULT, "protective stop")
    assert cell.arm_stands_still()
    assert cell.statuses["arm_driver"][2]["device"] == "arm"
    cell.recover()
    assert cell.modes[-1][0] is Mode.FAULT, "only the operator clears it"
    cell.clear_fault()
    again = cell.call("/arm/recover")
    assert not again.success and "not stopped" in again.message


def test_a_halted_program_is_a_fault_although_the_arm_goes_on_sending(cell: Cell) -> None:
    settled(cell)
    cell.emulators["emulator_ur5"].ask("halt", reason="stopped on the pendant")
    cell.until_status("arm_driver", ERROR, "halted its program")
    cell.until_mode(Mode.FAULT, "halted its program")
    cell.recover()
    assert cell.modes[-1][0] is Mode.FAULT, "only the operator clears it"
    cell.clear_fault()


def test_a_silent_hand_makes_the_arbiter_hold_and_comes_back(cell: Cell) -> None:
    settled(cell)
    hand = cell.emulators["emulator_inspire"]
    hand.ask("line_fault", kind="silence")
    cell.until_mode(Mode.HOLD, "hand_driver")
    cell.until_status("hand_driver", ERROR)
    assert "hand" in cell.statuses["hand_driver"][1]
    hand.ask("line_fault", kind="")
    cell.until_status("hand_driver", OK)
    cell.until(lambda: "hand" not in cell.reason, "the arbiter did not go on")


def test_hand_errors_are_cleared_on_request(cell: Cell) -> None:
    settled(cell)
    hand = cell.emulators["emulator_inspire"]
    hand.ask("stall", finger=3)
    cell.until_status("hand_driver", ERROR, "index: stall")
    cell.succeeds("/hand/clear_errors")
    cell.until_status("hand_driver", OK)


def test_an_unplugged_camera_is_named_and_comes_back(cell: Cell) -> None:
    settled(cell)
    camera = cell.emulators["emulator_wrist"]
    camera.ask("unplug")
    cell.until_status("camera_wrist", ERROR)
    assert cell.statuses["camera_wrist"][2]["serial"] == "emulated-wrist"
    cell.until_status("camera_front", OK)
    assert cell.statuses["camera_wrist"][0] == ERROR
    camera.ask("plug")
    cell.until_status("camera_wrist", OK)


def test_a_frozen_glove_and_a_lost_tracker_make_the_takeover_hold(cell: Cell) -> None:
    settled(cell)
    vive, glove = cell.emulators["emulator_vive"], cell.emulators["emulator_manus"]
    cell.client.start("demonstration", episode_id="lost")
    take_over(cell)
    glove.ask("freeze")
    cell.until_status("glove_driver", STALE, "frozen")
    cell.until_mode(Mode.HUMAN, "lost")
    glove.ask("freeze", on=False)
    cell.until_status("glove_driver", OK)
    cell.until_mode(Mode.HUMAN, DRIVES[Mode.HUMAN])
    vive.ask("tracking", result=201, valid=False)
    cell.until_status("tracker_driver", STALE, "out of range of the lighthouses")
    cell.until_mode(Mode.HUMAN, "lost")
    vive.ask("tracking")
    cell.until_status("tracker_driver", OK)
    cell.client.end("aborted", discard=True)


def test_without_a_heartbeat_of_the_arbiter_arm_and_hand_hold(cell: Cell) -> None:
    settled(cell)
    pid = cell.graph.supervisor.nodes["intervention_arbiter"].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        cell.until_status("arm_driver", WARN, "no /control/command")
        cell.until_status("hand_driver", WARN, "see intervention_arbiter")
        assert cell.arm_stands_still()
    finally:
        os.kill(pid, signal.SIGCONT)
    cell.until_status("arm_driver", OK)


def test_only_the_arbiter_is_obeyed(cell: Cell) -> None:
    settled(cell)
    node = cell.client.node
    stranger = node.publisher("/control/command")
    cell.until_status("arm_driver", WARN, "not following: session_client publishes")
    node.destroy_publisher(stranger)
    cell.until_status("arm_driver", OK)


def test_a_lost_connection_to_the_arm_is_taken_up_again(cell: Cell) -> None:
    settled(cell)
    robot = cell.emulators["emulator_ur5"]
    robot.ask("drop")
    cell.until_status("arm_driver", ERROR)
    cell.until_status("arm_driver", OK)
    sessions = lambda: robot.ask("state")["sessions"]
    cell.until(lambda: sessions() == 2, "one to read, one to control")
