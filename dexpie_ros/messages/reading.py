"""ROS messages -> values and arrays. By attribute: it does not matter which world they are of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.control.types import (
    HAND_JOINTS,
    Chunk,
    Command,
    ControlStep,
    Mode,
    RobotState,
    Source,
)
from dexpie_ros.geometry import Pose

_SECOND = 1_000_000_000


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces Time or Duration -> int ns."""
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def read_pose(message: Any) -> Pose:
    p, q = message.position, message.orientation
    return Pose(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))


def read_command(message: Any) -> Command:
    return Command(read_pose(message.tcp), np.array(message.hand, np.float64))


def read_control_step(message: Any) -> ControlStep:
    return ControlStep(
        time_ns=stamp_ns(message.header.stamp),
        tick=int(message.tick),
        command=read_command(message.command),
        source=Source(message.command.source),
        mode=Mode(message.mode),
        proposal=read_command(message.proposal) if message.has_proposal else None,
        human=read_command(message.human) if message.has_human else None,
        upcoming=tuple(read_command(command) for command in message.upcoming),
        remaining=int(message.remaining),
        chunk_time_ns=stamp_ns(message.chunk_stamp),
        stalls=int(message.stalls),
    )


def read_chunk(message: Any) -> Chunk:
    """ActionChunk -> Chunk; ValueError where the lengths disagree."""
    length = len(message.tcp)
    hand = np.asarray(message.hand, np.float64)
    if length == 0 or hand.size != 6 * length or int(message.prefix_length) > length:
        raise ValueError(
            f"/policy/chunk: {length} poses, {hand.size} hand values and a prefix of "
            f"{message.prefix_length} do not fit together (expected 6 values a pose)"
        )
    poses = [read_pose(pose) for pose in message.tcp]
    return Chunk(
        time_ns=stamp_ns(message.header.stamp),
        positions=np.stack([pose.position for pose in poses]),
        quaternions=np.stack([pose.quaternion for pose in poses]),
        hand=hand.reshape(length, 6),
        prefix_length=int(message.prefix_length),
        step_ns=stamp_ns(message.step),
        latency_ns=stamp_ns(message.latency),
        policy_id=message.policy_id,
    )


def read_robot_state(joints: Any, tcp: Any, hand: Any) -> RobotState:
    """JointState, PoseStamped and hand JointState -> RobotState at the pose's stamp.

    Hand values are put in the order of HAND_JOINTS by name; a missing finger is a ValueError.
    """
    by_name = {name: i for i, name in enumerate(hand.name)}
    missing = [name for name in HAND_JOINTS if name not in by_name]
    if missing:
        raise ValueError(f"/hand/joint_states: no {', '.join(missing)} among {list(hand.name)}")
    order = [by_name[name] for name in HAND_JOINTS]
    effort = np.asarray(hand.effort, np.float64)
    velocity = np.asarray(joints.velocity, np.float64)
    position = np.asarray(joints.position, np.float64)
    return RobotState(
        time_ns=stamp_ns(tcp.header.stamp),
        joints=position,
        joint_velocities=velocity if velocity.size else np.zeros_like(position),
        tcp=read_pose(tcp.pose),
        hand=np.asarray(hand.position, np.float64)[order],
        hand_force=effort[order] if effort.size == len(hand.name) else np.zeros(6),
    )


def read_objects(message: Any) -> dict[str, Pose]:
    """SimulationState -> poses by name, in the message's order."""
    return {
        name: read_pose(pose)
        for name, pose in zip(message.object_names, message.object_poses, strict=True)
    }


def read_image(message: Any) -> NDArray[np.uint8]:
    """Image with encoding rgb8 -> view (height, width, 3); ValueError for any other encoding."""
    if message.encoding != "rgb8" or message.step != 3 * message.width:
        raise ValueError(
            f"{message.header.frame_id}: image is {message.encoding} with step {message.step}; "
            "expected packed rgb8, set the camera's format accordingly"
        )
    data = np.frombuffer(message.data, np.uint8)
    return data.reshape(message.height, message.width, 3)
