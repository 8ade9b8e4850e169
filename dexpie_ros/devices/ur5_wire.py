"""What passes between the arm client and its child process: packets on a SEQPACKET socket pair.

Packets keep their borders, the newest can be read by draining, a full socket never blocks the
servo loop (the packet is dropped), and the death of either side is an end of file on the other.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.geometry import Array, Pose

MAX_PACKET = 4096


class Phase(IntEnum):
    """Where the child process is."""

    CONNECTING = 0
    SERVOING = 1
    """Follows commands or holds its last target."""
    STOPPED = 2
    """The robot stopped (protective stop, program halted, not powered): waits for a recovery."""


class Exit(IntEnum):
    """Exit codes of the child process."""

    DONE = 0
    REFUSED = 64
    """The configuration cannot work with this robot; trying again would not help."""
    UNREACHABLE = 69
    LOST = 75
    """Connection or data lost: exit at once, since ur_rtde would reconnect and crash by itself."""
    RECOVERED = 80
    """The stop has been cleared on request; start again."""


class WireError(ValueError):
    """A packet that is no packet of this protocol."""


@dataclass(frozen=True, eq=False)
class ArmSample:
    """One state of the arm, captured at ``time_ns`` (ROS time)."""

    time_ns: int
    robot_time: float
    """Controller clock, s."""
    joints: Array
    """(6,) rad"""
    joint_velocities: Array
    """(6,) rad/s"""
    tcp: Pose
    """Measured, in the controller's base frame."""
    tcp_velocity: Array
    """(6,) m/s and rad/s"""
    wrench: Array
    """(6,) N and Nm at the TCP, base axes."""
    target: Pose
    """What was sent to the controller last."""
    phase: Phase
    robot_mode: int
    safety_mode: int
    cycles: int
    missed: int
    """Servo cycles that began more than one period late."""
    sequence: int
    """Number of the newest command that was taken."""
    refused: int
    """Commands that the limits refused."""


_STATE = struct.Struct("<cqd6d6d7d6d6d7dBiiqqqq")
_COMMAND = struct.Struct("<cq7d")


def pack_state(sample: ArmSample) -> bytes:
    return _STATE.pack(
        b"S", sample.time_ns, sample.robot_time, *sample.joints, *sample.joint_velocities,
        *sample.tcp.position, *sample.tcp.quaternion, *sample.tcp_velocity, *sample.wrench,
        *sample.target.position, *sample.target.quaternion, sample.phase, sample.robot_mode,
        sample.safety_mode, sample.cycles, sample.missed, sample.sequence, sample.refused,
    )  # fmt: skip


def unpack_state(packet: bytes) -> ArmSample:
    """Inverse of :func:`pack_state`; WireError for anything else."""
    if len(packet) != _STATE.size or packet[:1] != b"S":
        raise WireError(f"not a state packet: {len(packet)} bytes, expected {_STATE.size}")
    fields = _STATE.unpack(packet)
    v = np.array(fields[3:41], np.float64)
    if not np.all(np.abs(v) < 1e9) or fields[41] not in Phase.__members__.values():
        raise WireError("state packet with impossible values")
    return ArmSample(
        fields[1], fields[2], v[0:6], v[6:12], Pose(v[12:15], v[15:19]), v[19:25], v[25:31],
        Pose(v[31:34], v[34:38]), Phase(fields[41]), *fields[42:],
    )  # fmt: skip


def pack_command(sequence: int, pose: Pose) -> bytes:
    return _COMMAND.pack(b"C", sequence, *pose.position, *pose.quaternion)


def unpack_command(packet: bytes) -> tuple[int, Array]:
    """Sequence number and target (4, 4); WireError for anything else."""
    if len(packet) != _COMMAND.size or packet[:1] != b"C":
        raise WireError(f"not a command packet: {len(packet)} bytes, expected {_COMMAND.size}")
    fields = _COMMAND.unpack(packet)
    values = np.array(fields[2:], np.float64)
    if not np.all(np.abs(values) < 1e6) or not 0.9 < np.linalg.norm(values[3:]) < 1.1:
        raise WireError("command packet without a finite pose and a unit quaternion")
    return fields[1], geometry.Pose(values[:3], values[3:]).matrix()


def pack_event(phase: Phase, message: str) -> bytes:
    """The child's state in words, sent when it changes."""
    text = json.dumps({"phase": int(phase), "message": message[:1000]})
    return b"E" + text.encode()


def unpack_event(packet: bytes) -> tuple[Phase, str]:
    try:
        event = json.loads(packet[1:])
        return Phase(event["phase"]), str(event["message"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"not an event packet: {error}") from None


RECOVER = b"R"
QUIT = b"Q"


def drain(link: socket.socket) -> list[bytes]:
    """All packets that wait on a non-blocking ``link``; EOFError when the other side is gone."""
    packets: list[bytes] = []
    while True:
        try:
            packet = link.recv(MAX_PACKET)
        except BlockingIOError:
            return packets
        except ConnectionError:
            packet = b""
        if not packet:
            if packets:  # the end of file is still there at the next call
                return packets
            raise EOFError
        packets.append(packet)


def send(link: socket.socket, packet: bytes) -> bool:
    """Send without blocking; False when it was dropped; EOFError when the other side is gone."""
    try:
        link.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return False
    except ConnectionError:
        raise EOFError from None
    return True
