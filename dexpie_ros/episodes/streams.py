"""Topics of a bag as time-ordered arrays with capture stamps, checked on the way in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import messages
from dexpie_ros.contract import BY_NAME
from dexpie_ros.control.types import Mode, Source
from dexpie_ros.episodes.align import Times, time_order
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.cdr import Columns
from dexpie_ros.episodes.decoding import columns, decode_all
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
    uncounted: int = 0
    """Steps left out because the arbiter, started anew, counted from 1 again."""


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


_POSE = ("position.x", "position.y", "position.z",
         "orientation.x", "orientation.y", "orientation.z", "orientation.w")  # fmt: skip


_FAR = 10.0
"""m; no pose of this cell is farther from its base."""
_OPEN = (-0.1, 1.1)
"""Openings are 0 closed .. 1 open; a sensor may read a little beyond either."""
_FORCE = 1e4
"""N; no finger presses harder."""


def read_poses(bag: BagReader, topic: str) -> Poses:
    table = columns(bag, topic, POSE)
    _in_frame(bag, topic, table)
    stamps = _stamps_of(bag, topic, table)
    order = time_order(stamps)
    rows = _finite(bag, topic, table.table([f"pose.{name}" for name in _POSE]))[order]
    _near(bag, topic, rows[:, :3])
    return Poses(stamps[order], rows[:, :3], _unit(bag, topic, rows[:, 3:]))


def read_hand(bag: BagReader, topic: str, names: Sequence[str]) -> Joints:
    """Openings and forces of the fingers; EpisodeError for values in other units."""
    hand = read_joints(bag, topic, names)
    _openings(bag, topic, hand.position)
    force = hand.effort[~np.isnan(hand.effort)]
    if force.size and np.abs(force).max() > _FORCE:
        raise EpisodeError(
            f"{bag.path}: {topic}: a force of {force[np.abs(force).argmax()]:.3g}, expected N below "
            f"{_FORCE:g}; see to the driver that wrote it, and exclude the episode"
        )
    return hand


def read_joints(bag: BagReader, topic: str, names: Sequence[str]) -> Joints:
    """Joint values in the order of ``names``, found by name in every message."""
    table = columns(bag, topic, JOINT_STATE)
    stamps = _stamps_of(bag, topic, table)
    order = time_order(stamps)
    position = np.full((table.length, len(names)), np.nan)
    effort = position.copy()
    for group in table.groups:
        count = group.counts["name"]
        if group.counts["position"] != count:
            raise EpisodeError(
                f"{bag.path}: {topic}: {group.counts['position']} positions for {count} names"
            )
        every = np.empty(table.length, np.int64)
        every[group.rows] = np.arange(len(group.rows))
        for known, rows in group.texts([f"name.{k}" for k in range(count)]):
            missing = [name for name in names if name not in known]
            if missing:
                raise EpisodeError(
                    f"{bag.path}: {topic}: no {', '.join(missing)} among {list(known)}; check the "
                    "driver's joint names"
                )
            where = [known.index(name) for name in names]
            mine = every[rows]
            position[rows] = group.values("position")[mine][:, where]
            if group.counts["effort"] == count:
                effort[rows] = group.values("effort")[mine][:, where]
    return Joints(stamps[order], _finite(bag, topic, position[order]), effort[order])


def read_steps(bag: BagReader, topic: str, start_ns: int = 0) -> Steps:
    """The control steps from ``start_ns`` on; a step that was said twice is one."""
    table = columns(bag, topic, STEP)
    _in_frame(bag, topic, table)
    stamps, tick = _stamps_of(bag, topic, table), table.scalar("tick", np.int64)
    mine = np.flatnonzero(stamps >= start_ns)
    if not len(mine):
        raise EpisodeError(
            f"{bag.path}: {topic}: its {len(stamps)} control steps all lie before the episode's "
            "start: it was ended before the arbiter began; discard the episode"
        )
    together = _until_counted_anew(stamps[mine], tick[mine])
    uncounted = len(np.unique(stamps[mine[together:]]))
    mine = mine[:together]
    _, first = np.unique(tick[mine], return_index=True)
    order = mine[first]
    stamps = stamps[order]
    if np.any(np.diff(stamps) <= 0):
        raise EpisodeError(
            f"{bag.path}: {topic}: the stamp goes back while the tick goes on: the clock was set "
            "during the episode; exclude it"
        )
    source = table.scalar("command.source", np.uint8)[order]
    mode = table.scalar("mode", np.uint8)[order]
    if source.max() > max(Source) or mode.max() > max(Mode):
        raise EpisodeError(
            f"{bag.path}: {topic}: unknown source or mode; recorded by a newer version?"
        )

    def commands(name: str, there: NDArray[np.bool_]) -> Array:
        fields = [*(f"{name}.tcp.{part}" for part in _POSE), f"{name}.hand"]
        rows = table.table(fields)[order]
        rows[~there] = np.nan
        _finite(bag, topic, rows[there])
        if name == "command":  # limits are on; a proposal may be as wild as its policy
            _near(bag, topic, rows[:, :3])
            _openings(bag, topic, rows[:, 7:])
        _unit(bag, topic, rows[there, 3:7])
        return rows

    always = np.ones(len(order), bool)
    return Steps(
        stamps,
        tick[order],
        mode,
        source,
        table.scalar("stalls", np.int64)[order],
        commands("command", always),
        commands("proposal", table.scalar("has_proposal", np.uint8)[order] != 0),
        commands("human", table.scalar("has_human", np.uint8)[order] != 0),
        uncounted,
    )


def _until_counted_anew(stamps: Times, tick: NDArray[np.int64]) -> int:
    """How many steps, in the order of the file, come before one that is newer than all others but
    has a tick that was there already: another arbiter's. What is said twice is no newer.
    """
    newer = stamps[1:] > np.maximum.accumulate(stamps)[:-1]
    anew = np.flatnonzero(newer & (tick[1:] <= np.maximum.accumulate(tick)[:-1]))
    return int(anew[0]) + 1 if len(anew) else len(tick)


def read_simulation(bag: BagReader, topic: str) -> Simulation:
    table = columns(bag, topic, SIMULATION)
    stamps = _stamps_of(bag, topic, table)
    order = time_order(stamps)
    count = table.groups[0].counts["object_names"]
    named = {
        names
        for group in table.groups
        for names, _ in group.texts(
            [f"object_names.{k}" for k in range(group.counts["object_names"])]
        )
    }
    counts = {group.counts["object_poses"] for group in table.groups}
    if len(named) != 1 or counts != {count}:
        raise EpisodeError(f"{bag.path}: {topic}: the objects change during the episode")
    fields = [f"object_poses.{k}.{part}" for k in range(count) for part in _POSE]
    flat = table.table(fields) if count else np.zeros((table.length, 0))
    poses = _finite(bag, topic, flat[order]).reshape(len(order), count, 7)
    _unit(bag, topic, poses[..., 3:])
    contact = table.scalar("contact", np.uint8)[order] != 0
    return Simulation(stamps[order], named.pop(), poses, contact)


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


def _stamps_of(bag: BagReader, topic: str, table: Columns) -> Times:
    seconds = table.scalar("header.stamp.sec", np.int64)
    nanoseconds = table.scalar("header.stamp.nanosec", np.int64)
    if np.any(nanoseconds >= 1_000_000_000):
        raise EpisodeError(f"{bag.path}: {topic}: a stamp with more than 10^9 ns in a second")
    return seconds * 1_000_000_000 + nanoseconds


def _finite(bag: BagReader, topic: str, values: Array) -> Array:
    if values.size and not np.abs(values).max() <= 1e6:
        raise EpisodeError(
            f"{bag.path}: {topic}: values that are not numbers or absurdly large; exclude the episode"
        )
    return values


def _in_frame(bag: BagReader, topic: str, table: Columns) -> None:
    """EpisodeError where a message is given in another frame than the contract's."""
    expected = BY_NAME[topic].frame
    found = {name for group in table.groups for (name,), _ in group.texts(["header.frame_id"])}
    if found - {expected}:
        raise EpisodeError(
            f"{bag.path}: {topic}: in frame {', '.join(map(repr, sorted(found)))}, expected "
            f"{expected!r}; transform it before it is recorded, and exclude the episode"
        )


def _near(bag: BagReader, topic: str, positions: Array) -> None:
    if positions.size and np.abs(positions).max() > _FAR:
        raise EpisodeError(
            f"{bag.path}: {topic}: a position of {np.abs(positions).max():.3g}, expected metres from "
            f"the base, below {_FAR:g}; see to the publisher that wrote it, and exclude the episode"
        )


def _openings(bag: BagReader, topic: str, values: Array) -> None:
    low, high = _OPEN
    if values.size and not (values.min() >= low and values.max() <= high):
        raise EpisodeError(
            f"{bag.path}: {topic}: openings from {values.min():.3g} to {values.max():.3g}, expected 0 "
            "closed to 1 open; see to the publisher that wrote them, and exclude the episode"
        )


def _unit(bag: BagReader, topic: str, quaternions: Array) -> Array:
    norm = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    if np.any(np.abs(norm - 1) > 1e-3):
        raise EpisodeError(
            f"{bag.path}: {topic}: a quaternion of length {float(norm.min()):.3g}, expected 1; the "
            "publisher left it unfilled"
        )
    return quaternions
