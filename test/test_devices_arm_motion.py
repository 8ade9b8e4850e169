"""Kinematics, limits and packets of the arm client: everything that needs no robot."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexpie_ros import geometry
from dexpie_ros.devices import ur5_state
from dexpie_ros.devices import ur5_wire as wire
from dexpie_ros.devices import ur_kinematics as kin
from dexpie_ros.devices.clock import ClockMap, ClockWatch
from dexpie_ros.devices.ur5_state import ImpossibleState, StateReader, vector_from_pose
from dexpie_ros.devices.ur5_wire import ArmSample, Phase
from dexpie_ros.emulators import rtde
from dexpie_ros.geometry import Pose

PERIOD = 0.008
START = np.array([0.3, -1.4, 1.7, -1.9, -1.5, 0.4])
angles = st.floats(-3.1, 3.1)


def test_forward_of_the_zero_pose_by_hand():
    # Stretched along -x: x = a2 + a3, y = -(d4 + d6), z = d1 - d5.
    pose = kin.forward(kin.UR5, np.zeros(6))
    assert np.allclose(pose[:3, 3], [-0.81725, -0.19145, -0.005491], atol=1e-12)
    assert np.allclose(pose[:3, :3], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-12)


@pytest.mark.parametrize("model", [kin.UR5, kin.UR5E])
@given(joints=st.tuples(*[angles] * 6))
@settings(max_examples=100, deadline=None)
def test_inverse_finds_every_pose_that_forward_makes(model, joints):
    pose = kin.forward(model, joints)
    solutions = kin.inverse(model, pose, wrist_3=joints[5])
    if abs(np.sin(joints[4])) < 1e-3 or abs(np.sin(joints[2])) < 1e-3:
        return  # singular: a continuum of solutions
    assert 0 < len(solutions) <= 8
    for solution in solutions:
        assert np.allclose(kin.forward(model, solution), pose, atol=1e-6)
    near = kin.nearest(model, pose, joints)
    assert np.allclose(near, joints, atol=1e-5)


def test_nearest_continues_over_pi():
    joints = START + np.array([0, 0, 0, 0, 0, 2 * np.pi])
    assert np.allclose(kin.nearest(kin.UR5, kin.forward(kin.UR5, joints), joints), joints)


def test_out_of_reach_has_no_solution_and_the_margin_counts():
    far = geometry.make_pose(np.eye(3), [1.2, 0.0, 0.3])
    assert len(kin.inverse(kin.UR5, far)) == 0
    stretched = kin.forward(kin.UR5, [0.2, -1.0, 0.05, 0.5, 1.0, 0.0])
    assert len(kin.inverse(kin.UR5, stretched)) > 0
    kept = kin.inverse(kin.UR5, stretched, margin=0.02)
    assert np.abs(kept[:, 2]).min() > 0.3  # only solutions with a bent elbow are left
    above = geometry.make_pose(np.eye(3), [0.0, 0.05, 0.9])
    assert len(kin.inverse(kin.UR5, above)) == 0


def test_jacobian_is_the_derivative():
    step = 1e-6
    base = kin.forward(kin.UR5, START)
    for joint in range(6):
        q = START.copy()
        q[joint] += step
        pose = kin.forward(kin.UR5, q)
        numeric = np.r_[
            (pose[:3, 3] - base[:3, 3]) / step,
            geometry.rotation_log(pose[:3, :3] @ base[:3, :3].T) / step,
        ]
        assert np.allclose(kin.jacobian(kin.UR5, START)[:, joint], numeric, atol=1e-5)


def test_clock_map_takes_the_sample_that_was_delayed_least():
    clock = ClockMap()
    assert clock(10.0, 1000.010) == pytest.approx(1000.010)
    assert clock(10.008, 1000.009) == pytest.approx(1000.009)
    assert clock(10.016, 1000.050) == pytest.approx(1000.017, abs=1e-5)  # 33 ms late, not 33 ms new
    assert clock(0.5, 1001.0) == pytest.approx(1001.0)  # the controller started again


@pytest.mark.parametrize("moved", [0.05, 0.3, 0.9, 3.0, -0.3])
def test_a_host_clock_that_was_set_is_followed_at_once_and_lateness_is_not(moved):
    """Arrivals of a steady 8 ms and, from the middle on, of 150 ms, which is no clock that was set."""
    clock, worst = ClockMap(), 0.0
    for step in range(2000):
        device = 10.0 + 0.008 * step
        late = 0.002 if step < 1000 else 0.15
        shift = moved if step >= 500 else 0.0
        stamp = clock(device, 1000.0 + device + shift + late, 50.0 + device + late)
        worst = max(worst, abs(stamp - (1000.002 + device + shift)))
    assert worst < 0.005


def test_a_status_says_for_a_minute_that_the_clock_was_set():
    now = [1000.0, 50.0]
    watch = ClockWatch(lambda: (now[0], now[1]))
    said = []
    for moved, passed in (
        (0.0, 1.0),
        (0.0005, 1.0),
        (0.3, 0.05),
        (0.0, 50.0),
        (0.0, 20.0),
        (-2.0, 1.0),
    ):
        now = [now[0] + passed + moved, now[1] + passed]
        said.append(watch.said())
    assert said[:2] == ["", ""] and said[4] == ""
    assert said[2] == said[3] == "; this computer's clock was set forward by 0.300 s"
    assert said[5].endswith("set back by 2.000 s")


class FakeReceive:
    """The getters of RTDEReceiveInterface."""

    def __init__(self):
        self.time, self.value = 1.0, 0.1

    def getTimestamp(self):  # noqa: N802
        return self.time

    def getRobotMode(self):  # noqa: N802
        return 7

    def getSafetyMode(self):  # noqa: N802
        return 1

    def __getattr__(self, name):
        return lambda: [self.value] * 6


def test_only_an_advancing_controller_clock_is_news():
    receive = FakeReceive()
    reader = StateReader(receive)
    assert reader.read() is not None
    assert reader.read() is None
    receive.time = 1.008
    assert reader.read().robot_time == 1.008
    receive.time, receive.value = 1.016, float("nan")
    with pytest.raises(ImpossibleState):
        reader.read()


def test_a_state_is_stamped_right_after_the_host_clock_was_set(monkeypatch):
    receive, host = FakeReceive(), [1000.0, 50.0]
    monkeypatch.setattr(ur5_state, "host_times", lambda: (host[0], host[1]))
    reader = StateReader(receive)
    reader.read()
    receive.time, host[:] = 1.008, [1000.308, 50.008]
    assert reader.read().time_ns == pytest.approx(1000.308e9, abs=1e5)


def sample(**changes):
    values = {
        "time_ns": 1_700_000_000_123_456_789, "robot_time": 12.5, "joints": START,
        "joint_velocities": START / 7, "tcp": Pose(np.array([0.1, 0.2, 0.3]), np.array([0, 0, 0, 1.0])),
        "tcp_velocity": START / 3, "wrench": START * 9,
        "target": Pose(np.array([0.4, 0.5, 0.6]), np.array([1.0, 0, 0, 0])),
        "phase": Phase.SERVOING, "robot_mode": -1, "safety_mode": 3, "cycles": 5, "missed": 1,
        "sequence": 7, "refused": 2,
    }  # fmt: skip
    return ArmSample(**(values | changes))


def test_state_and_command_packets_are_lossless():
    there = sample()
    back = wire.unpack_state(wire.pack_state(there))
    for name in ("joints", "joint_velocities", "tcp_velocity", "wrench"):
        assert np.array_equal(getattr(there, name), getattr(back, name))
    assert np.array_equal(there.tcp.position, back.tcp.position)
    assert np.array_equal(there.target.quaternion, back.target.quaternion)
    assert (back.time_ns, back.phase, back.robot_mode, back.refused) == (
        there.time_ns, Phase.SERVOING, -1, 2,
    )  # fmt: skip
    number, target = wire.unpack_command(wire.pack_command(9, there.target))
    assert number == 9
    assert np.allclose(target, there.target.matrix())


def test_fuzzed_packets_never_do_more_than_raise_wire_error():
    rng = np.random.default_rng(1)
    good = [
        wire.pack_state(sample()),
        wire.pack_command(1, sample().tcp),
        wire.pack_event(Phase.STOPPED, "why"),
    ]
    parsers = [wire.unpack_state, wire.unpack_command, wire.unpack_event]
    parsed = 0
    for trial in range(12_000):
        packet = bytearray(good[trial % 3])
        for _ in range(rng.integers(1, 6)):
            packet[rng.integers(len(packet))] = rng.integers(256)
        if rng.random() < 0.2:
            packet = packet[: rng.integers(len(packet) + 1)]
        try:
            parsers[trial % 3](bytes(packet))
            parsed += 1
        except wire.WireError:
            pass
    assert 0 < parsed < 12_000


def test_fuzzed_rtde_frames_never_do_more_than_raise_rtde_error():
    rng = np.random.default_rng(2)
    received = []
    session = rtde.Session((3, 15, 8, 1), 125.0, received.append, lambda: False)
    set_up = struct.pack(">d", 125.0) + b"timestamp,actual_q,"
    assert session.handle("O", set_up) == rtde.frame("O", b"\1DOUBLE,VECTOR6D")
    assert session.handle("I", b"input_int_register_0,") == rtde.frame("I", b"\1INT32")
    session.handle("U", b"\1" + struct.pack(">i", 24))
    assert received == [{"input_int_register_0": 24}]
    frames = [("O", set_up), ("I", b"input_int_register_0,"), ("U", b"\1\0\0\0\5"), ("V", b"\0\2")]
    for trial in range(12_000):
        kind, payload = frames[trial % 4]
        broken = bytearray(payload)
        broken[rng.integers(len(broken))] = rng.integers(256)
        broken = broken[: rng.integers(len(broken) + 1)]
        if rng.random() < 0.1:
            kind = chr(rng.integers(256))
        try:
            session.handle(kind, bytes(broken))
        except rtde.RtdeError:
            pass
    session.handle("O", set_up)
    assert len(session.data({"timestamp": 1.0})) == 3 + 1 + 8 + 48


def test_pose_vectors_round_trip():
    pose = kin.forward(kin.UR5, START)
    vector = vector_from_pose(pose)
    assert np.allclose(geometry.rotation_exp(np.array(vector[3:])), pose[:3, :3])
