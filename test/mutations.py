"""Ways in which a recorded episode can be broken: bytes, records, messages, files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mutations_bytes import Mutation, byte_cases, length_cases

from dexpie_ros import messages
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.bag_writer import BagWriter

STEP, TCP, JOINTS, HAND = (
    "/control/step",
    "/arm/tcp_pose",
    "/arm/joint_states",
    "/hand/joint_states",
)
WORLD, EVENTS = "/simulation/state", "/simulation/events"
FRONT = "/camera/front/color/image_raw/compressed"
TOPICS = (STEP, TCP, JOINTS, HAND, WORLD, FRONT)
SECOND = 1_000_000_000


@dataclasses.dataclass
class Message:
    topic: str
    log: int
    publish: int
    cdr: bytes


def cases(source: Path) -> Iterator[tuple[str, Mutation]]:
    """(name, function that breaks a copy of ``source`` in place); always the same ones."""
    yield from byte_cases(source)
    yield from length_cases(source)
    yield from _messages()
    yield from _stamps()
    yield from _types()
    yield from _descriptions()
    yield from _files()


def rewrite(
    change: Callable[[list[Message]], list[Message]],
    types: dict[str, str] | None = None,
    definitions: dict[str, str] | None = None,
) -> Mutation:
    """A whole bag, index and all, whose content is wrong."""

    def mutate(path: Path) -> None:
        bag = BagReader(find_bag(path))
        items = sorted(
            (
                Message(topic, log, publish, bytes(payload))
                for topic, s in bag.messages.items()
                for log, publish, payload in zip(
                    s.log_time_ns, s.publish_time_ns, s.payloads, strict=True
                )
            ),
            key=lambda m: m.log,
        )
        find_bag(path).unlink()
        with BagWriter(path, durable=False) as writer:
            store = messages.bag_typestore()
            for topic, channel in bag.channels.items():
                kind = (types or {}).get(topic, bag.messages[topic].type)
                text = (definitions or {}).get(topic) or store.generate_msgdef(kind, ros_version=2)[
                    0
                ]
                writer.add_topic(topic, kind, text, "", channel.metadata["offered_qos_profiles"])
            for name, record in bag.metadata:
                writer.add_metadata(name, record)
            for m in change(items):
                writer.write(m.topic, m.cdr, m.log, m.publish)
            writer.finish({})

    return mutate


def _messages() -> Iterator[tuple[str, Mutation]]:
    def each(topic: str, change: Callable[[bytes], bytes], every: int = 4) -> Mutation:
        def change_all(items: list[Message]) -> list[Message]:
            mine = [m for m in items if m.topic == topic][1::every]
            for m in mine:
                m.cdr = change(m.cdr)
            return items

        return rewrite(change_all)

    for topic in TOPICS:
        yield f"{topic} missing", rewrite(lambda items, t=topic: [m for m in items if m.topic != t])
        yield f"{topic} empty payloads", each(topic, lambda cdr: b"")
        yield f"{topic} header only", each(topic, lambda cdr: cdr[:4])
        yield f"{topic} half payloads", each(topic, lambda cdr: cdr[: len(cdr) // 2])
        yield f"{topic} rubbish", each(topic, lambda cdr: bytes(4) + b"\x7f" * (len(cdr) - 4))
        yield (
            f"{topic} huge frame id",
            each(topic, lambda cdr: cdr[:12] + b"\xff\xff\xff\x7f" + cdr[16:]),
        )
        yield f"{topic} trailing bytes", each(topic, lambda cdr: cdr + bytes(64))
        yield (
            f"{topic} every third lost",
            rewrite(lambda items, t=topic: _drop(items, t, lambda i, n: i % 3 == 1)),
        )
        yield (
            f"{topic} second half lost",
            rewrite(lambda items, t=topic: _drop(items, t, lambda i, n: i >= n // 2)),
        )
        yield (
            f"{topic} all but one lost",
            rewrite(lambda items, t=topic: _drop(items, t, lambda i, n: i > 0)),
        )
    for topic, kind in ((TCP, "geometry_msgs/msg/PoseStamped"), (STEP, "dexpie_msgs/msg/ControlStep"),
                        (WORLD, "dexpie_msgs/msg/SimulationState")):  # fmt: skip
        for name, value in (("NaN", float("nan")), ("infinite", float("inf")), ("huge", 1e300)):
            yield (
                f"{topic} {name}",
                each(topic, lambda cdr, k=kind, v=value: _pose(cdr, k, "position", x=v)),
            )
        yield (
            f"{topic} zero quaternion",
            each(topic, lambda cdr, k=kind: _pose(cdr, k, "orientation", **_NOTHING)),
        )
    yield (
        f"{JOINTS} NaN",
        each(JOINTS, lambda cdr: _with(cdr, "sensor_msgs/msg/JointState", _nan_joint)),
    )
    yield (
        f"{JOINTS} too few positions",
        each(JOINTS, lambda cdr: _with(cdr, "sensor_msgs/msg/JointState", _short_joint)),
    )
    yield (
        f"{JOINTS} other names",
        each(JOINTS, lambda cdr: _with(cdr, "sensor_msgs/msg/JointState", _rename_joint)),
    )
    hand, state = "sensor_msgs/msg/JointState", "dexpie_msgs/msg/ControlStep"
    for name, factor in (("in 0..1000", 1000.0), ("in percent", 100.0), ("negative", -1.0)):
        yield f"{HAND} {name}", each(HAND, lambda cdr, f=factor: _with(cdr, hand, _scale(f)))
        yield f"{STEP} hand {name}", each(STEP, lambda cdr, f=factor: _with(cdr, state, _grip(f)))
    for name, value in (("huge", 1e300), ("infinite", float("inf")), ("in millinewton", 1e5)):
        yield f"{HAND} {name} effort", each(HAND, lambda cdr, v=value: _with(cdr, hand, _press(v)))
    for frame in ("world", "", "tcp"):
        for topic, kind in ((TCP, "geometry_msgs/msg/PoseStamped"), (STEP, state)):
            yield (
                f"{topic} in frame {frame!r}",
                each(topic, lambda cdr, k=kind, f=frame: _with(cdr, k, _frame(f))),
            )
    yield (
        f"{TCP} in mm",
        each(TCP, lambda cdr: _pose(cdr, "geometry_msgs/msg/PoseStamped", "position", x=400.0)),
    )
    yield "/arm/joint_states huge name list", each(JOINTS, lambda cdr: _word(cdr, 20, 0x7FFFFFFF))
    yield "nothing recorded", rewrite(lambda items: [])
    yield (
        "log times far in the future",
        rewrite(lambda items: [dataclasses.replace(m, log=m.log + (1 << 62)) for m in items]),
    )


_NOTHING = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 0.0}


def _with(cdr: bytes, kind: str, change: Callable[[Any], None]) -> bytes:
    store = messages.bag_typestore()
    message = store.deserialize_cdr(cdr, kind)
    change(message)
    return bytes(store.serialize_cdr(message, kind))


def _pose(cdr: bytes, kind: str, part: str, **values: float) -> bytes:
    def change(message: Any) -> None:
        if kind.endswith("PoseStamped"):
            pose = message.pose
        else:
            step = kind.endswith("ControlStep")
            pose = message.command.tcp if step else message.object_poses[0]
        for name, value in values.items():
            setattr(getattr(pose, part), name, value)

    return _with(cdr, kind, change)


def _nan_joint(message: Any) -> None:
    message.position = message.position * float("nan")


def _short_joint(message: Any) -> None:
    message.position = message.position[:-1]


def _rename_joint(message: Any) -> None:
    message.name[0] = "knee_joint"


def _scale(factor: float) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.position = message.position * factor

    return change


def _grip(factor: float) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.command.hand = message.command.hand * factor

    return change


def _press(value: float) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.effort = message.effort * 0 + value

    return change


def _frame(name: str) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.header.frame_id = name

    return change


def _drop(items: list[Message], topic: str, lost: Callable[[int, int], bool]) -> list[Message]:
    mine = [id(m) for m in items if m.topic == topic]
    gone = {m for i, m in enumerate(mine) if lost(i, len(mine))}
    return [m for m in items if id(m) not in gone]


def _word(cdr: bytes, at: int, value: int) -> bytes:
    return cdr[:at] + struct.pack("<I", value) + cdr[at + 4 :]


def _stamps() -> Iterator[tuple[str, Mutation]]:
    def shift(topic: str, offset: Callable[[int, int], int]) -> Mutation:
        def change(items: list[Message]) -> list[Message]:
            mine = [m for m in items if m.topic == topic]
            for i, m in enumerate(mine):
                sec, nanosec = struct.unpack_from("<iI", m.cdr, 4)
                stamp = sec * SECOND + nanosec + offset(i, len(mine))
                head = struct.pack("<iI", *divmod(max(0, stamp), SECOND))
                m.cdr = m.cdr[:4] + head + m.cdr[12:]
            return items

        return rewrite(change)

    for topic in TOPICS:
        yield f"{topic} clock an hour off", shift(topic, lambda i, n: 3600 * SECOND)
        yield f"{topic} clock jumps ahead", shift(topic, lambda i, n: 60 * SECOND * (i >= n // 2))
        yield f"{topic} clock jumps back", shift(topic, lambda i, n: -60 * SECOND * (i >= n // 2))
        yield f"{topic} no stamps", shift(topic, lambda i, n: -(1 << 62))
    for topic in (TCP, JOINTS, STEP, FRONT):
        yield (
            f"{topic} duplicates",
            rewrite(
                lambda items, t=topic: [m for x in items for m in ([x, x] if x.topic == t else [x])]
            ),
        )
        yield (
            f"{topic} backwards",
            rewrite(
                lambda items, t=topic: (
                    [m for m in items if m.topic != t]
                    + [m for m in reversed(items) if m.topic == t]
                )
            ),
        )


def _types() -> Iterator[tuple[str, Mutation]]:
    def keep(items: list[Message]) -> list[Message]:
        return items

    for topic in TOPICS:
        for kind in ("std_msgs/msg/String", "sensor_msgs/msg/Image"):
            yield f"{topic} as {kind}", rewrite(keep, {topic: kind})
    yield "joint states as wrench", rewrite(keep, {JOINTS: "geometry_msgs/msg/WrenchStamped"})
    for name, text in (
        ("empty", " "),
        ("no definition", "this is ( not a definition"),
        ("other fields", "int32 x"),
        ("unknown type inside", "foo_msgs/Bar bar"),
        ("itself inside", "dexpie_msgs/ControlStep inner"),
    ):
        yield f"definition: {name}", rewrite(keep, None, {STEP: text})


def _descriptions() -> Iterator[tuple[str, Mutation]]:
    def text(name: str, content: str) -> Mutation:
        return lambda path: (path / name).write_text(content) and None

    def value(key: str, content: object) -> Mutation:
        def mutate(path: Path) -> None:
            values = json.loads((path / "episode.json").read_text())
            (values["info"] if key in values["info"] else values)[key] = content
            (path / "episode.json").write_text(json.dumps(values))

        return mutate

    for content in ("", "{", "null", "[1]", '{"info": {}}', "\ud7ff" * 9, "[" * 100_000):
        yield f"episode.json {content[:12]!r}", text("episode.json", content)
    for key, content in (
        ("format", 99), ("format", None), ("status", "won"), ("steps", -1), ("steps", "many"),
        ("episode_id", "../x"), ("episode_id", 7), ("kind", "party"), ("outcome", "maybe"),
        ("seed", "x"), ("note", 3), ("statistics", []), ("surprise", 1), ("use_for_critic", "?"),
    ):  # fmt: skip
        yield f"episode.json {key} = {content!r}", value(key, content)
    for content in ("", "{}", '{"format": 1}', '{"format": 1, "revisions": [{"revision": 1}]}'):
        yield f"annotations.json {content!r}", text("annotations.json", content)
    yield "no episode.json", lambda path: (path / "episode.json").unlink()
    yield "no metadata.yaml", lambda path: (path / "metadata.yaml").unlink()


def _files() -> Iterator[tuple[str, Mutation]]:
    def bag(change: Callable[[Path], object]) -> Mutation:
        def mutate(path: Path) -> None:
            change(find_bag(path))

        return mutate

    yield "no bag", bag(lambda file: file.unlink())
    yield "empty bag", bag(lambda file: file.write_bytes(b""))
    yield "text bag", bag(lambda file: file.write_text("hello " * 100))
    yield "sqlite bag", bag(lambda file: file.rename(file.with_suffix(".db3")))
    yield "two bags", bag(lambda file: shutil.copy(file, file.with_name("b_1.mcap")))
    yield "a directory as bag", bag(lambda file: (file.unlink(), file.mkdir()))
    yield "zeros", bag(lambda file: file.write_bytes(bytes(file.stat().st_size)))
    yield "magic only", bag(lambda file: file.write_bytes(b"\x89MCAP0\r\n" * 2))
