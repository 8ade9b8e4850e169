"""The teleoperation's node: each stream on its own clock, and what it knows after a restart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels")

from dexpie_ros import geometry
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.retargeting import ERGONOMICS
from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS
from dexpie_ros.geometry import Pose
from dexpie_ros.messages import stamp_ns
from dexpie_ros.node_spec import RUN_FOLDER_VARIABLE
from dexpie_ros.nodes.teleop import TeleopNode

MS = 1_000_000
ROBOT = Pose(np.array([0.4, 0.1, 0.3]), np.array([0.5, 0.5, 0.5, 0.5]))
WRIST = Pose(np.array([1.0, 1.2, -0.4]), np.array([0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5)]))


def shifted(x: float) -> Pose:
    return Pose(WRIST.position + np.array([x, 0.0, 0.0]), WRIST.quaternion)


class Operator:
    """A teleop node whose inputs are handed in and whose outputs are collected."""

    def __init__(self) -> None:
        self.node = TeleopNode()
        self.commands: list[Any] = []
        self.alignments: list[Any] = []
        self.node._command = SimpleNamespace(publish=self.commands.append)
        self.node._alignment = SimpleNamespace(publish=self.alignments.append)

    def robot(self, time_ns: int) -> None:
        make, node = self.node.messages, self.node
        node._measured("arm", make.joint_state(time_ns, ARM_JOINTS, np.zeros(6), np.zeros(6)))
        node._measured("hand", make.joint_state(time_ns, HAND_JOINTS, np.ones(6)))
        node._measured("tcp", make.pose_stamped(time_ns, "base", ROBOT))

    def tracker(self, time_ns: int, pose: Pose = WRIST) -> None:
        self.node._on_tracker(self.node.messages.pose_stamped(time_ns, "tracker_world", pose))

    def glove(self, time_ns: int, degrees: float = 5.0) -> None:
        values = dict.fromkeys(ERGONOMICS, degrees)
        self.node._on_glove(self.node.messages.glove(time_ns, "right", values))


Start = Callable[..., Operator]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the node anew, the one before having gone without a word."""
    running: list[Operator] = []

    def go(*parameters: str) -> Operator:
        stop()
        words = [word for parameter in parameters for word in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *words] if words else None)
        running.append(Operator())
        return running[0]

    def stop() -> None:
        while running:
            running.pop().node.destroy_node()
            rclpy.try_shutdown()

    yield go
    stop()


def play(operator: Operator, tracker_hz: float, glove_hz: float, seconds: float = 1.0) -> None:
    """Both devices at their rates, the glove 6 ms behind, in the order of their stamps."""
    begin, shift = 1_000 * MS, 6 * MS
    events = [(begin + round(k * 1e9 / tracker_hz), 0) for k in range(round(seconds * tracker_hz))]
    count = round(seconds * glove_hz)
    events += [(begin + shift + round(k * 1e9 / glove_hz), 1) for k in range(count)]
    for time_ns, device in sorted(events):
        if device:
            operator.glove(time_ns, degrees=10.0 + time_ns % 977 * 0.03)
        else:
            operator.tracker(time_ns)


def test_every_value_of_a_90_hz_glove_is_used_although_the_tracker_is_slower(start: Start) -> None:
    """DexHiL's rates: arm (the cube) 30 Hz, hand 90 Hz; the command has both at their newest."""
    operator = start()
    operator.robot(990 * MS)
    play(operator, tracker_hz=30.0, glove_hz=90.0)
    hands = [tuple(command.hand) for command in operator.commands]
    assert 80 <= len(hands) <= 125, "the slower stream must not set the pace"
    assert len(set(hands)) >= 80, "each value of the glove reaches a command"
    stamps = [stamp_ns(command.header.stamp) for command in operator.commands]
    assert stamps == sorted(stamps)
    assert 20 <= len(operator.alignments) <= 30, "what a person looks at comes at 25 Hz"


def test_a_faster_tracker_carries_the_glove_along(start: Start) -> None:
    operator = start()
    operator.robot(990 * MS)
    play(operator, tracker_hz=100.0, glove_hz=90.0)
    assert 95 <= len(operator.commands) <= 105, "not twice as many for the arbiter to read"
    assert len({tuple(command.hand) for command in operator.commands}) >= 80


@pytest.mark.parametrize("silent", ["tracker", "glove"])
def test_a_command_is_as_old_as_its_oldest_part(start: Start, silent: str) -> None:
    """So that the arbiter, which judges the stamp, notices either device's silence alike."""
    operator = start()
    operator.tracker(1_000 * MS)
    operator.glove(1_000 * MS)
    for k in range(1, 30):
        getattr(operator, "glove" if silent == "tracker" else "tracker")((1_000 + 11 * k) * MS)
    assert operator.commands
    assert {stamp_ns(command.header.stamp) for command in operator.commands} == {1_000 * MS}
    lost = [bool(np.isnan(command.hand).all()) for command in operator.commands]
    seconds = 0.2 if silent == "tracker" else 0.04
    assert lost == [11 * MS * (k + 1) > seconds * 1e9 for k in range(len(lost))], (
        "then each says that nobody leads"
    )


# -- restarts --------------------------------------------------------------------------------------
def aligned(operator: Operator) -> bool:
    operator.robot(2_000 * MS)
    operator.tracker(2_000 * MS)
    operator.glove(2_000 * MS)
    return bool(operator.alignments[-1].angle < 1e-6)


def calibrate(operator: Operator) -> None:
    operator.robot(1_000 * MS)
    operator.tracker(1_000 * MS)
    operator.glove(1_000 * MS)
    operator.node.now_ns = lambda: 1_010 * MS  # the clock of these stamps
    assert operator.node._calibrate() == (True, "aligned")


@pytest.mark.parametrize(("silent", "told"), [("tracker", "the tracker has been silent"),
                                              ("robot", "measurement is old: arm, hand, tcp")])  # fmt: skip
def test_what_is_not_there_any_more_is_not_aligned_with(
    start: Start, silent: str, told: str
) -> None:
    operator = start()
    calibrate(operator)
    world = operator.node._teleop.world.matrix()
    for k in range(1, 6):
        stamp = (1_000 + 50 * k) * MS
        operator.robot(stamp) if silent == "tracker" else operator.tracker(stamp, shifted(0.1 * k))
        operator.glove(stamp)
    operator.node.now_ns = lambda: 1_250 * MS
    accepted, why = operator.node._calibrate()
    assert not accepted and told in why
    assert (operator.node._teleop.world.matrix() == world).all()


def said(operator: Operator) -> tuple[int, str]:
    operator.node._teleop.lost = lambda _now=None: ""  # the stamps above are of no clock
    level, message, _ = operator.node._diagnose()
    return level, message


def test_a_restarted_node_knows_the_alignment_and_says_since_when(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    first = start()
    assert not aligned(first)
    assert said(first)[0] == 1 and "press k" in said(first)[1]
    calibrate(first)
    assert aligned(first) and said(first) == (0, "following")
    second = start()
    assert aligned(second)
    assert second.node._teleop.world.matrix() == pytest.approx(
        ROBOT.matrix() @ geometry.invert(WRIST.matrix()), abs=1e-12
    )
    level, message = said(second)
    assert level == 0 and "before this node was started anew" in message
    calibrate(second)
    assert said(second) == (0, "following")


def test_what_does_not_fit_any_more_is_asked_for(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate(start())
    assert not aligned(start()), "not started by a launch: nobody knows how long ago that was"
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    calibrate(start())
    assert not aligned(start("teleop.mounting_quaternion:=[0.0, 0.0, 1.0, 0.0]"))
    for content in (b"\xff\xfe", b"[]", b'{"world": [1, 2], "aligned_ns": 1}', b'{"world": "no"}',
                    b'{"held": 3, "world": [0,0,0,0,0,0,0], "aligned_ns": 1}'):  # fmt: skip
        for file in tmp_path.iterdir():
            file.write_bytes(content)
        assert not aligned(start())
        assert not list(tmp_path.glob("*.tmp*"))


def test_who_let_go_of_the_robot_is_not_followed_after_a_restart(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_FOLDER_VARIABLE, str(tmp_path))
    calibrate(first := start())
    assert first.node._clutch()[0]
    second = start()
    second.glove(3_000 * MS)
    for k in range(20):
        moved = shifted(0.01 * k)
        second.tracker((3_000 + 10 * k) * MS, moved)
    places = np.array([second.commands[k].tcp.position.x for k in range(20)])
    assert np.ptp(places) == 0.0
    assert "let go" in said(second)[1]
    assert second.node._clutch() == (True, "follows again")
    second.tracker(3_200 * MS, shifted(0.2))
    assert second.commands[-1].tcp.position.x == pytest.approx(places[0] + 0.01)


def test_a_pedal_that_bounces_lets_go_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, now = start(), SimpleNamespace(ns=0)
    clock = SimpleNamespace(monotonic_ns=lambda: now.ns)
    monkeypatch.setattr("dexpie_ros.nodes.teleop.time", clock)
    for ms, held in ((0, False), (20, False), (200, False), (600, True)):
        now.ns = ms * MS
        operator.node._on_key(SimpleNamespace(data="clutch"))
        assert operator.node._held is held, ms


# -- absolute mode ---------------------------------------------------------------------------------
def test_absolute_commands_are_in_base_and_wait_for_the_alignment(start: Start) -> None:
    operator = start("follow:=absolute")
    operator.robot(1_000 * MS)
    operator.glove(1_000 * MS)
    operator.tracker(1_000 * MS)
    assert not operator.commands, "a pose in the tracker's world is none in the base"
    calibrate(operator)
    operator.tracker(1_010 * MS, Pose(WRIST.position, WRIST.quaternion))
    last = operator.commands[-1]
    assert last.header.frame_id == "base"
    assert (last.tcp.position.x, last.tcp.position.z) == pytest.approx((0.4, 0.3))
    for _ in range(2):  # let go, carried away, taken hold of
        assert operator.node._clutch()[0]
        operator.tracker(1_020 * MS, shifted(0.5))
    assert operator.node._calibrate()[0]
    operator.tracker(1_030 * MS, shifted(0.5))
    place = operator.commands[-1].tcp.position
    assert (place.x, place.y, place.z) == pytest.approx((0.4, 0.1, 0.3)), "k moves nothing"


def test_an_alignment_by_chance_is_none(start: Start) -> None:
    """Without `k` the tracker's world is unknown, and may lie so that the wrist seems aligned."""
    by_chance = Pose(WRIST.position, ROBOT.quaternion)
    for parameters, expected in (
        ((), False),
        (("follow:=absolute",), False),
        # who says how the world lies knows it
        (("teleop.world_quaternion:=[0.0, 0.0, 0.0, -1.0]",), True),
    ):
        operator = start("teleop.hand_limit:=2.0", *parameters)
        operator.robot(1_000 * MS)
        operator.glove(1_000 * MS)
        for k in range(2):
            operator.tracker((1_000 + 100 * k) * MS, by_chance)
        last = operator.alignments[-1]
        assert last.angle < 1e-6 and max(map(abs, last.hand_difference)) < last.hand_limit
        assert last.aligned is expected
        assert Alignment.heard(last).aligned is expected
