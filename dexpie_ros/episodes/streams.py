"""Topics of a bag as time-ordered arrays with capture stamps, checked on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import messages
from dexpie_ros.control.types import Command, Mode, Source
from dexpie_ros.episodes.align import Times, time_order
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.decoding import decode_all
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.geometry import Array

JOINT_STATE, POSE = "sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped"
STEP, SIMULATION = "dexpie_msgs/msg/ControlStep", "dexpie_msgs/msg/SimulationState"
COMPRESSED, IMAGE, STRING = (
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/Image",
    "std_msgs/msg/String",
)


@dataclass(frozen=True, eq=False)
class Poses:
    """Positions (n, 3) and unit quaternions (n, 4)."""

    stamps: Times
    position: Array
    quaternion: Array


@dataclass(frozen=True, eq=False)
class Joints:
    """Joint values (n, joints)."""

    stamps: Times
    position: Array
    effort: Array
    """NaN where none was sent."""


@dataclass(frozen=True, eq=False)
class Steps:
    """Control steps; absent proposals and human commands are NaN."""

    stamps: Times
    tick: NDArray[np.int64]
    mode: NDArray[np.uint8]
    source: NDArray[np.uint8]
    stalls: NDArray[np.int64]
    command: Array
    """(n, 13): position, quaternion x y z w, hand."""
    proposal: Array
    human: Array


@dataclass(frozen=True, eq=False)
class Simulation:
    """What only a simulator knows."""

    stamps: Times
    names: tuple[str, ...]
    poses: Array
    """(n, objects, 7)"""
    contact: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded pictures, or rgb8 pixels of ``raw_shape``."""

    stamps: Times
    encoded: Sequence[memoryview]
    raw_shape: tuple[int, int] | None


def read_poses(bag: BagReader, topic: str) -> Poses:
    items = decode_all(bag, topic, POSE)
    stamps, order = _stamps(bag, topic, items)
    p = _table(
        bag, topic, [[m.pose.position.x, m.pose.position.y, m.pose.position.z] for m in items], 3
    )
    q = _table(
        bag,
        topic,
        [[o.x, o.y, o.z, o.w] for o in (m.pose.orientation for m in items)],
        4,
    )
    return Poses(stamps, p[order], _unit(bag, topic, q[order]))


def read_joints(bag: BagReader, topic: str, names: Sequence[str]) -> Joints:
    """Joint values in the order of ``names``, found by name in every message."""
    items = decode_all(bag, topic, JOINT_STATE)
    stamps, order = _stamps(bag, topic, items)
    position, effort = np.empty((len(items), len(names))), np.empty((len(items), len(names)))
    known: tuple[str, ...] = ()
    columns: list[int] = []
    for row, item in enumerate(items):
        if tuple(item.name) != known:
            known = tuple(item.name)
            missing = [name for name in names if name not in known]
            if missing:
                raise EpisodeError(
                    f"{bag.path}: {topic}: no {', '.join(missing)} among {list(known)}; "
                    "check the driver's joint names"
                )
            columns = [known.index(name) for name in names]
        if len(item.position) != len(known):
            raise EpisodeError(
                f"{bag.path}: {topic}: {len(item.position)} positions for {len(known)} names"
            )
        position[row] = item.position[columns]
        effort[row] = item.effort[columns] if len(item.effort) == len(known) else np.nan
    return Joints(stamps, _finite(bag, topic, position[order]), effort[order])


def read_steps(bag: BagReader, topic: str) -> Steps:
    items = decode_all(bag, topic, STEP)
    stamps = np.array([messages.stamp_ns(m.header.stamp) for m in items], np.int64)
    tick = np.array([m.tick for m in items], np.int64)
    _, order = np.unique(tick, return_index=True)
    stamps = stamps[order]
    if np.any(np.diff(stamps) <= 0):
        raise EpisodeError(
            f"{bag.path}: {topic}: the stamp goes back while the tick goes on: the clock was set "
            "during the episode; exclude it"
        )
    chosen = [items[i] for i in order]
    command = np.array([_command(messages.read_command(m.command)) for m in chosen])
    nothing = np.full(13, np.nan)

    def optional(name: str) -> Array:
        return np.array(
            [
                _command(messages.read_command(getattr(m, name)))
                if getattr(m, f"has_{name}")
                else nothing
                for m in chosen
            ]
        )

    source = np.array([m.command.source for m in chosen], np.uint8)
    mode = np.array([m.mode for m in chosen], np.uint8)
    if source.max() > max(Source) or mode.max() > max(Mode):
        raise EpisodeError(
            f"{bag.path}: {topic}: unknown source or mode; recorded by a newer version?"
        )
    parts = [command, optional("proposal"), optional("human")]
    for part in parts:
        there = ~np.isnan(part[:, 0]) if part is not command else np.ones(len(part), bool)
        _finite(bag, topic, part[there])
        part[there, 3:7] = _unit(bag, topic, part[there, 3:7])
    stalls = np.array([m.stalls for m in chosen], np.int64)
    return Steps(stamps, tick[order], mode, source, stalls, *parts)


def read_simulation(bag: BagReader, topic: str) -> Simulation:
    items = decode_all(bag, topic, SIMULATION)
    stamps, order = _stamps(bag, topic, items)
    names = tuple(items[0].object_names)
    rows = []
    for item in items:
        if tuple(item.object_names) != names or len(item.object_poses) != len(names):
            raise EpisodeError(f"{bag.path}: {topic}: the objects change during the episode")
        read = [messages.read_pose(pose) for pose in item.object_poses]
        rows.append([np.concatenate([p.position, p.quaternion]) for p in read])
    poses = np.array(rows, np.float64).reshape(len(items), len(names), 7)[order]
    _finite(bag, topic, poses)
    poses[..., 3:] = _unit(bag, topic, poses[..., 3:])
    contact = np.array([m.contact for m in items], bool)[order]
    return Simulation(stamps, names, poses, contact)


def read_pictures(bag: BagReader, topic: str) -> Pictures:
    """CompressedImage or Image (rgb8); the pixels stay where they are in the file."""
    if bag.messages[topic].type == COMPRESSED:
        items = decode_all(bag, topic, COMPRESSED)
        stamps, order = _stamps(bag, topic, items)
        return Pictures(stamps, [memoryview(items[i].data) for i in order], None)
    items = decode_all(bag, topic, IMAGE)
    stamps, order = _stamps(bag, topic, items)
    shape = (int(items[0].height), int(items[0].width))
    for item in items:
        size = 3 * shape[0] * shape[1]
        if item.encoding != "rgb8" or (item.height, item.width) != shape or len(item.data) != size:
            raise EpisodeError(
                f"{bag.path}: {topic}: {item.height}x{item.width} {item.encoding} of "
                f"{len(item.data)} bytes; expected packed rgb8 of one size"
            )
    return Pictures(stamps, [memoryview(items[i].data) for i in order], shape)


def read_texts(bag: BagReader, topic: str) -> list[tuple[int, str]]:
    """std_msgs/String has no stamp of its own: the time at which it was logged."""
    items = decode_all(bag, topic, STRING)
    return [(t, m.data) for t, m in zip(bag.messages[topic].log_time_ns, items, strict=True)]


def _stamps(bag: BagReader, topic: str, items: Sequence[Any]) -> tuple[Times, NDArray[np.int64]]:
    stamps = np.array([messages.stamp_ns(m.header.stamp) for m in items], np.int64)
    order = time_order(stamps)
    return stamps[order], order


def _command(command: Command) -> Array:
    return np.concatenate([command.tcp.position, command.tcp.quaternion, command.hand])


def _table(bag: BagReader, topic: str, rows: list[list[float]], width: int) -> Array:
    return _finite(bag, topic, np.array(rows, np.float64).reshape(len(rows), width))


def _finite(bag: BagReader, topic: str, values: Array) -> Array:
    if not np.all(np.isfinite(values)) or np.any(np.abs(values) > 1e6):
        raise EpisodeError(
            f"{bag.path}: {topic}: values that are not numbers or absurdly large; exclude the episode"
        )
    return values


def _unit(bag: BagReader, topic: str, quaternions: Array) -> Array:
    norm = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    if np.any(np.abs(norm - 1) > 1e-3):
        raise EpisodeError(
            f"{bag.path}: {topic}: a quaternion of length {float(norm.min()):.3g}, expected 1; the "
            "publisher left it unfilled"
        )
    return quaternions
