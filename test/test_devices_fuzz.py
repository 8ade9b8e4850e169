"""At least ten thousand inputs that no device would send, for each parser that has no test elsewhere.

The packets of the arm's process and RTDE are in test_devices_arm_motion, EB90, Modbus RTU and the
registers in test_devices_inspire, frames of cameras in test_devices_realsense, JSON of gloves in
test_devices_gloves, requests to emulators in test_devices_probe.
"""

import asyncio
import io
import socket
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from emulated import needs
from test_devices_arm_motion import sample

from dexpie_ros.control.retargeting import ERGONOMICS
from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.devices import ur5_wire as wire
from dexpie_ros.devices import ur_dashboard
from dexpie_ros.devices.aruco_cube import CubeConfig, CubeDetector
from dexpie_ros.devices.device import DeviceError
from dexpie_ros.devices.inspire_transport import ModbusTransport
from dexpie_ros.devices.manus_glove import GloveError, ManusConfig, ManusGlove, parse_message
from dexpie_ros.devices.ur5_state import ImpossibleState, StateReader

TRIALS = 12_000
ODD = (None, True, "", "x", b"\xff", float("nan"), float("inf"), -1e300, 10**400, [], {}, object())


def test_fuzzed_ros_messages_of_gloves_only_raise_glove_error():
    rng = np.random.default_rng(20)

    def odd():
        return ODD[rng.integers(len(ODD))]

    def value(usual):
        return odd() if rng.random() < 0.1 else usual

    glove, accepted = ManusGlove(ManusConfig()), 0
    for _ in range(TRIALS):
        entries = [
            SimpleNamespace(type=value(name), value=value(float(rng.normal(20, 5))))
            for name in ERGONOMICS[: rng.integers(0, 6)]
        ]
        if rng.random() < 0.1:
            entries.append(odd())
        message = SimpleNamespace(
            side=value("Right"), ergonomics=odd() if rng.random() < 0.05 else entries
        )
        try:
            side, values = parse_message(message)
            accepted += 1
            assert side in ("left", "right") and all(np.isfinite(list(values.values())))
        except GloveError:
            pass
        except (AttributeError, TypeError):  # no message of this type at all: offer() knows
            pass
        glove.offer(message, 1)
    assert 1000 < accepted < TRIALS - 1000
    assert glove.malformed == TRIALS - accepted


def test_fuzzed_modbus_replies_only_raise_device_error():
    """Through the framer and the decoder of pymodbus itself, with its socket in our hands."""
    needs("pymodbus")
    from pymodbus.client import ModbusTcpClient

    rng = np.random.default_rng(21)
    pieces = []

    class Client(ModbusTcpClient):
        """Whatever is asked, what is in ``pieces`` comes."""

        def connect(self):
            return True

        def send(self, request, addr=None):
            return len(request)

        def recv(self, size):
            return pieces.pop(0) if pieces else b""

        def close(self):
            pass

    transport = ModbusTransport(
        "nowhere", 1, lambda: Client("127.0.0.1", timeout=0.1, retries=0), lambda _: 0.1
    )
    transport.open()
    transaction, read, refused = transport._client.transaction, 0, 0
    for trial in range(TRIALS):
        number = transaction.next_tid % 0xFFFF + 1  # of the request that follows
        body = bytes([3, 12]) + bytes(12) if trial % 2 else struct.pack(">BHH", 16, 1486, 6)
        reply = bytearray(struct.pack(">HHHB", number, 0, len(body) + 1, 1) + body)
        for _ in range(rng.integers(0, 4)):
            reply[rng.integers(len(reply))] = rng.integers(256)
        if rng.random() < 0.2:
            reply = reply[: rng.integers(len(reply) + 1)]
        cut = int(rng.integers(len(reply) + 1))
        pieces[:] = [bytes(reply[:cut]), bytes(reply[cut:])] if cut else [bytes(reply)]
        try:
            if trial % 2:
                data = transport.read(reg.ANGLE_ACT.address, 12)
                assert len(data) == 12
                read += 1
            else:
                transport.write(reg.ANGLE_SET.address, bytes(12))
        except DeviceError:
            refused += 1
    assert read > 500 and refused > 1000


def test_fuzzed_dashboards_answer_or_raise_dashboard_error(monkeypatch):
    rng = np.random.default_rng(22)
    good = b"Connected: Universal Robots Dashboard Server\nSafetystatus: NORMAL\n"

    class Link(io.BytesIO):
        def settimeout(self, seconds):
            assert 0 < seconds <= 1.0

        def recv(self, size):
            return self.read(int(rng.integers(1, size)))

        def sendall(self, data):
            if rng.random() < 0.05:
                raise ConnectionResetError("by peer")

    line = bytearray()
    monkeypatch.setattr(socket, "create_connection", lambda *_: Link(bytes(line)))
    answers = 0
    for _ in range(TRIALS):
        line[:] = good
        for _ in range(rng.integers(0, 5)):
            line[rng.integers(len(line))] = rng.integers(256)
        del line[rng.integers(len(line) + 1) if rng.random() < 0.2 else len(line) :]
        if rng.random() < 0.05:
            line[:] = line.replace(b"\n", b"") * 40  # one long line
        try:
            answer = ur_dashboard.ask("192.0.2.1", "safetystatus")
            assert isinstance(answer, str) and len(answer) <= 1000 and "\n" not in answer
            answers += 1
        except ur_dashboard.DashboardError as error:
            assert "192.0.2.1" in str(error)
    assert 1000 < answers < TRIALS


def test_fuzzed_states_of_the_controller_are_impossible_or_can_be_passed_on():
    """The bytes of doubles and integers, as a controller's packet may hold them."""
    rng = np.random.default_rng(23)

    class Receive:
        def __getattr__(self, name):
            if name in ("getRobotMode", "getSafetyMode"):
                return lambda: int(values[name])
            return lambda: values[name]

    vectors = (
        "getActualQ", "getActualQd", "getActualTCPPose", "getActualTCPSpeed", "getActualTCPForce",
    )  # fmt: skip
    reader, time_s, taken = StateReader(Receive()), 1.0, 0
    values = {}
    for _ in range(TRIALS):
        time_s += 0.008
        values.update({name: list(rng.normal(0, 1, 6)) for name in vectors})
        values.update({"getTimestamp": time_s, "getRobotMode": 7, "getSafetyMode": 1})
        for _ in range(rng.integers(0, 3)):
            odd = struct.unpack("<d", rng.bytes(8))[0]
            if rng.random() < 0.3:
                odd = [float("nan"), float("inf"), -1e30, 9e5, 0.0][rng.integers(5)]
            name = (*vectors, "getTimestamp")[rng.integers(6)]
            if name == "getTimestamp":
                values[name] = odd
            else:
                values[name][rng.integers(6)] = odd
        if rng.random() < 0.2:
            values["getRobotMode"] = struct.unpack("<i", rng.bytes(4))[0]
            values["getSafetyMode"] = struct.unpack("<i", rng.bytes(4))[0]
        try:
            data = reader.read()
        except ImpossibleState:
            continue
        if data is None:  # the controller's clock stood still
            continue
        taken += 1
        assert isinstance(data.problem(), str)
        state = sample(
            time_ns=data.time_ns, robot_time=data.robot_time, joints=data.joints,
            joint_velocities=data.joint_velocities, robot_mode=data.robot_mode,
            safety_mode=data.safety_mode,
        )  # fmt: skip
        assert wire.unpack_state(wire.pack_state(state)).time_ns == data.time_ns
        assert np.isfinite(data.tcp).all()
    assert 3000 < taken < TRIALS - 1000


def test_fuzzed_images_give_a_pose_or_a_reason():
    """Ten thousand images of their own, of noise and of pieces of markers; not patches of a few."""
    needs("cv2")
    from dexpie_ros import geometry
    from dexpie_ros.emulators.cube_view import render_cube

    rng = np.random.default_rng(24)
    k = np.array([[615.0, 0, 320], [0, 615.0, 240], [0, 0, 1]])
    settings = CubeConfig()
    pose = geometry.make_pose(geometry.rotation_exp([2.4, 0.5, 0.6]), [0.02, -0.03, 0.35])
    view = render_cube(pose, settings, k)[100:280, 260:440]
    detector = CubeDetector(settings, k - [[0, 0, 260], [0, 0, 100], [0, 0, 0]])
    found = 0
    for trial in range(10_000):
        if trial % 20:
            image = rng.integers(0, 256, rng.integers(1, 25, 2), np.uint8)
        else:
            image = view.copy()
            y, x, height, width = rng.integers(1, 180, 4)
            image[y : y + height // 2, x : x + width // 2] = rng.integers(256)
        made, reason = detector.detect(image)
        found += made is not None
        assert (made is None) == bool(reason)
        assert made is None or np.isfinite(made).all()
    assert 0 < found < 500


def test_a_dashboard_that_trickles_is_given_up(monkeypatch):
    """Its caller has a watchdog to feed, or is one."""
    now = [0.0]
    monkeypatch.setattr(ur_dashboard, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Link(io.BytesIO):
        def settimeout(self, seconds):
            pass

        def recv(self, size):
            now[0] += 0.3
            return b"."

    monkeypatch.setattr(socket, "create_connection", lambda *_: Link())
    with pytest.raises(ur_dashboard.DashboardError, match="timed out"):
        ur_dashboard.ask("192.0.2.1", "robotmode")
    assert 1.0 <= now[0] < 1.5


@pytest.mark.parametrize("line", [b"[" * 60_000, b'{"do": ' * 9000, b"\x00" * 1000, b"\xff\n"])
def test_requests_that_are_too_deep_are_answered(line):
    from dexpie_ros.emulators.channel import ControlChannel, EventLog

    answer = asyncio.run(ControlChannel(EventLog(), {}).answer(line))
    assert not answer["ok"]
