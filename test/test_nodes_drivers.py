"""What the drivers do beyond their devices: other inputs, refusals, and whom they obey."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels")
from emulated import loopback, needs
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from dexpie_ros.config import ConfigError
from dexpie_ros.control.retargeting import ERGONOMICS, LinearRetargeting, RetargetingConfig
from dexpie_ros.control.types import Command, Source
from dexpie_ros.devices import calibration, commands
from dexpie_ros.devices.device import Level
from dexpie_ros.devices.driver_parameters import GloveDriverParameters
from dexpie_ros.devices.probe import probe
from dexpie_ros.emulators.peer import Emulator
from dexpie_ros.geometry import Pose
from dexpie_ros.nodes import device_node, glove_driver, glove_listener
from dexpie_ros.nodes.arm_driver import ArmDriver
from dexpie_ros.nodes.base import ContractNode
from dexpie_ros.nodes.camera_driver import CameraDriver
from dexpie_ros.nodes.device_node import ArbiterCommands
from dexpie_ros.nodes.hand_driver import HandDriver
from dexpie_ros.nodes.teleop import TeleopNode
from dexpie_ros.nodes.tracker_driver import TrackerDriver

SECOND = 1_000_000_000


class World:
    """One process' nodes and a way to let time pass for them."""

    def __init__(self) -> None:
        self._executor = SingleThreadedExecutor()
        self._nodes: list[Any] = []

    def add(self, node: Any) -> Any:
        self._nodes.append(node)
        self._executor.add_node(node)
        return node

    def until(self, condition: Callable[[], bool], timeout: float = 60.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "did not come about"
            self.spin_once()

    def spin_once(self) -> None:
        self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        for node in self._nodes:
            node.destroy_node()


@contextmanager
def world(*parameters: str) -> Iterator[World]:
    words = [word for parameter in parameters for word in ("-p", parameter)]
    rclpy.init(args=["--ros-args", *words] if words else None)
    made = World()
    try:
        yield made
    finally:
        made.close()
        rclpy.try_shutdown()


# -- gloves ----------------------------------------------------------------------------------------
def vendor_message(side: str, degrees: float) -> Any:
    entries = [SimpleNamespace(type=name, value=degrees) for name in ERGONOMICS]
    return SimpleNamespace(side=side, ergonomics=entries)


def test_gloves_of_the_vendors_ros_package(monkeypatch: pytest.MonkeyPatch) -> None:
    # any message class will do: the message itself is handed in below
    monkeypatch.setattr(glove_listener, "VENDOR_TYPE", "dexpie_msgs/msg/GloveErgonomics")
    with world() as w:
        node = w.add(glove_driver.GloveDriver())
        peer = w.add(ContractNode("listener"))
        heard: list[Any] = []
        peer.subscribe("/teleop/glove", heard.append)
        assert node.get_subscriptions_info_by_topic("/manus_glove_1")
        status = node.judge(node.device.status())
        assert status.level is Level.ERROR and "manus_data_publisher" in status.message

        def comes() -> bool:
            node._on_vendor(vendor_message("Left", 1.0))
            node._on_vendor(vendor_message("Right", 10.0 + len(heard) + time.monotonic() % 1))
            return bool(heard)

        w.until(comes)
        assert heard[0].side == "right" and list(heard[0].type) == list(ERGONOMICS)
        assert heard[0].value[0] >= 10.0
        w.until(lambda: comes() and node.judge(node.device.status()).level is Level.OK)


def test_the_commands_hear_the_vendors_messages_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """`dexpie calibrate glove` where the glove comes over the vendor's ROS package."""
    monkeypatch.setattr(glove_listener, "VENDOR_TYPE", "dexpie_msgs/msg/GloveErgonomics")
    monkeypatch.setattr(commands, "CONNECT_S", 60.0)
    asked: list[str] = []
    made: list[Any] = []

    def closed() -> float:
        return float(len(asked) > 1)

    def glove_of(p: Any) -> Any:
        # the message class that stands in has other fields: content comes from here, time from ROS
        glove = glove_listener.glove_of(p)
        assert isinstance(glove, glove_listener.ListeningGlove)
        offer, retarget = glove.offer, LinearRetargeting()

        def translated(_message: Any) -> None:
            values = {
                **dict.fromkeys(ERGONOMICS, 3.0),
                **retarget.inverse(np.full(6, 1 - closed())),
            }
            jitter = np.random.default_rng().uniform(-0.1, 0.1)
            entries = [SimpleNamespace(type=k, value=v + jitter) for k, v in values.items()]
            offer(SimpleNamespace(side="Right", ergonomics=entries))

        glove.offer = translated  # type: ignore[method-assign,assignment]
        made.append(glove)
        return glove

    code = (
        "import time, rclpy\nfrom dexpie_ros.nodes.base import interface\nrclpy.init()\n"
        "node = rclpy.create_node('manus')\ncls = interface('dexpie_msgs/msg/GloveErgonomics')\n"
        "out = node.create_publisher(cls, '/manus_glove_1', 10)\n"
        "while True:\n    out.publish(cls())\n    time.sleep(0.02)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as vendor:
        try:
            stored = commands.calibrate_glove(None, tmp_path, asked.append, glove_of)
        finally:
            vendor.kill()
    found = calibration.load(stored, "glove", RetargetingConfig, "right")
    assert found.index.open_deg == pytest.approx(5.0, abs=0.2)
    assert found.index.closed_deg == pytest.approx(90.0, abs=0.2)
    assert not rclpy.ok(), "ROS is let go of"
    silent = glove_listener.glove_of(GloveDriverParameters())
    status = probe(silent, timeout=0.3)
    assert status.level is Level.ERROR and "is manus_data_publisher running" in status.message


def test_a_missing_vendor_package_is_an_error_only_where_it_was_asked_for() -> None:
    with world("source:=ros"), pytest.raises(ConfigError, match="manus_ros2_msgs is not installed"):
        glove_driver.GloveDriver()


# -- trackers and cameras --------------------------------------------------------------------------
def test_the_cube_waits_for_its_camera_and_then_looks() -> None:
    with world("tracker:=aruco") as w:
        node = w.add(TrackerDriver())
        w.until(lambda: "no camera_info yet" in node.judge(node.device.status()).message)
        camera = w.add(ContractNode("camera"))
        info = camera.publisher("/camera/front/color/camera_info")
        image = camera.publisher("/camera/front/color/image_raw")
        info.publish(camera.messages.camera_info(1, "front", 64, 48, 60.0))

        def looked() -> bool:
            blank = np.zeros((48, 64, 3), np.uint8)
            image.publish(camera.messages.image(time.time_ns(), "front", blank))
            return "0 faces of the cube" in node.device.status().message

        w.until(looked)


def test_a_serial_number_must_be_given() -> None:
    with world(), pytest.raises(ConfigError, match="serial is empty; list cameras with"):
        CameraDriver()
    with world(), pytest.raises(ConfigError, match="serial is empty; SteamVR shows it"):
        TrackerDriver()


def test_an_emulated_arm_is_not_looked_for_in_the_laboratory() -> None:
    with world("hardware:=emulated"), pytest.raises(ConfigError, match="no loopback address"):
        ArmDriver()


# -- whom arm and hand obey ------------------------------------------------------------------------
COMMAND = Command(Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])), np.ones(6))


def test_only_fresh_commands_of_the_arbiter_are_taken() -> None:
    with world() as w:
        driver = w.add(ContractNode("driver"))
        taken: list[Command] = []
        gate = ArbiterCommands(driver, taken.append, 0.3)
        assert "waiting for the first" in gate.problem()
        arbiter = w.add(ContractNode("intervention_arbiter"))
        output = arbiter.publisher("/control/command")

        def send(age_s: float = 0.0) -> None:
            stamp = arbiter.now_ns() - int(age_s * 1e9)
            output.publish(arbiter.messages.control_command(stamp, COMMAND, 1, Source.POLICY))

        w.until(lambda: send(age_s=5.0) or driver.count_publishers("/control/command") == 1)  # type: ignore[func-returns-value]
        w.until(lambda: send() or (taken and not gate.problem()))  # type: ignore[func-returns-value]
        assert np.array_equal(taken[0].hand, np.ones(6))
        w.until(lambda: "no /control/command for" in gate.problem())
        stranger = w.add(ContractNode("stranger")).publisher("/control/command")
        assert stranger is not None
        w.until(lambda: "stranger publishes /control/command as well" in gate.problem())
        count = len(taken)
        for _ in range(20):
            send()
            w.spin_once()
        assert len(taken) == count, "with two voices nobody is obeyed"


def test_a_restarted_arbiter_is_followed_although_the_dead_one_is_still_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DDS lists a killed writer until its lease ends; what is heard tells one from two."""
    now = [1_000 * SECOND]
    monkeypatch.setattr(device_node, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    with world() as w:
        driver = w.add(ContractNode("driver"))
        driver.now_ns = lambda: now[0]  # type: ignore[method-assign]
        listed = ["intervention_arbiter"]
        driver.get_publishers_info_by_topic = lambda _topic: [  # type: ignore[method-assign]
            SimpleNamespace(node_name=name) for name in listed
        ]
        taken: list[Command] = []
        gate = ArbiterCommands(driver, taken.append, 0.3)

        def send(tick: int) -> int:
            gate._on_command(
                driver.messages.control_command(driver.now_ns(), COMMAND, tick, Source.HOLD)
            )
            return len(taken)

        assert send(5_000) == 1
        listed.append("intervention_arbiter")  # the new one; the old one was killed
        now[0] += SECOND // 2
        assert [send(1), send(2)] == [2, 3] and gate.problem() == ""
        assert send(5_001) == 3 and "two nodes called intervention_arbiter" in gate.problem()
        assert send(3) == 3, "both speak: nobody is obeyed"
        now[0] += SECOND // 2
        assert send(4) == 4 and gate.problem() == ""
        listed.append("stranger")
        gate._look_around()
        assert send(5) == 4 and "stranger publishes" in gate.problem()
        listed[:] = ["stranger"]
        now[0] += SECOND // 2
        assert send(1) == 4, "nobody but the arbiter is ever followed, not even once"


def test_arm_and_hand_come_up_without_their_devices() -> None:
    host = loopback()
    with world(f"arm.host:={host}", f"hand.host:={host}") as w:
        for node in (w.add(ArmDriver()), w.add(HandDriver())):
            w.until(lambda n=node: n.judge(n.device.status()).level is Level.ERROR)
            values = node.judge(node.device.status()).values
            assert host in values["where"] and values["hardware"] == "real"
        w.until(lambda: host in node.device.status().message)
        answer = node._on_clear_errors(None, SimpleNamespace())
        assert not answer.success and host in answer.message


def test_speed_and_force_of_the_hand_are_changed_while_it_runs() -> None:
    needs("pymodbus")
    with Emulator("inspire", "--host", "127.0.0.1", "--port", "0") as emulator:
        address = f"hand.port:={emulator.ready['port']}"
        with world("hardware:=emulated", "hand.host:=127.0.0.1", address) as w:
            node = w.add(HandDriver())

            def refusal(name: str, value: Any) -> str:
                result = node.set_parameters([Parameter(name, value=value)])[0]
                return "" if result.successful else str(result.reason)

            def set_there(name: str, value: int) -> bool:
                return bool(emulator.ask("state")[name] == [value] * 6)

            w.until(lambda: node.device.connected, 60.0)
            assert refusal("hand.speed", 300) == "" and refusal("hand.force", 150) == ""
            w.until(lambda: set_there("speed", 300) and set_there("force", 150), 60.0)
            assert "must lie in 0..1000" in refusal("hand.speed", 1001)
            assert "hand.force = 1.5" in refusal("hand.force", 1.5)
            assert "read-only" in refusal("hand.rate_hz", 10.0)
            emulator.ask("unplug")
            w.until(lambda: not node.device.connected, 60.0)
            assert "hand.speed = 400: hand at 127.0.0.1" in refusal("hand.speed", 400)
            assert node.get_parameter("hand.speed").value == 300


# -- calibrations ----------------------------------------------------------------------------------
def test_the_teleoperation_takes_its_calibrations(tmp_path: Any) -> None:
    mounting = calibration.TrackerMounting((0.0, 0.0, 1.0, 0.0))
    calibration.save(tmp_path / "tracker.yaml", "tracker", "LHR-1", mounting)
    with world(f"tracker_calibration:={tmp_path / 'tracker.yaml'}"):
        node = TeleopNode()
        assert node.parameters.calibrated().mounting_quaternion == (0.0, 0.0, 1.0, 0.0)
        node.destroy_node()
    with (
        world(f"glove_calibration:={tmp_path / 'tracker.yaml'}"),
        pytest.raises(ConfigError, match="is a tracker calibration, a glove one is wanted"),
    ):
        TeleopNode()


@pytest.mark.parametrize(
    ("made_for", "parameters"),
    [
        ("LHR-1", ["vive.serial:=LHR-2"]),
        ("cube DICT_4X4_50 0,1,2,3,4,5", ["tracker:=aruco", "cube.ids:=[10, 11, 12, 13, 14, 15]"]),
        ("cube DICT_4X4_50 0,1,2,3,4,5", ["vive.serial:=LHR-2"]),
    ],
)
def test_another_trackers_calibration_is_refused(
    made_for: str, parameters: list[str], tmp_path: Any
) -> None:
    file = tmp_path / "tracker.yaml"
    calibration.save(file, "tracker", made_for, calibration.TrackerMounting((0.0, 0.0, 1.0, 0.0)))
    with (
        world(*parameters, f"calibration:={file}"),
        pytest.raises(ConfigError, match=f"{file}: was made for '{made_for}', not"),
    ):
        TrackerDriver()


def test_the_cubes_own_calibration_is_taken(tmp_path: Any) -> None:
    file = tmp_path / "tracker.yaml"
    mounting = calibration.TrackerMounting((0.0, 0.0, 1.0, 0.0))
    calibration.save(file, "tracker", "cube DICT_4X4_50 0,1,2,3,4,5", mounting)
    with world("tracker:=aruco", f"calibration:={file}") as w:
        w.add(TrackerDriver())
