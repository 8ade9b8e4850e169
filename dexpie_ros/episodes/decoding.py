"""Messages of a bag as values: with the definitions that the bag itself carries.

A bag of an older version is read with its own definitions; what it lacks is an error that names
topic and field, never a value read from the wrong place.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore

from dexpie_ros import messages
from dexpie_ros.control.types import Source
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.cdr import CdrError, Columns, read_columns
from dexpie_ros.episodes.episode import EpisodeError

_STAMP = struct.Struct("<iI")
Decode = Callable[[memoryview], Any]


def decoder(bag: BagReader, topic: str, expected: str) -> Decode:
    """A function CDR -> message for ``topic``; EpisodeError where the type is another."""
    store = _checked_store(bag, topic, expected)

    def decode(cdr: memoryview) -> Any:
        try:
            return store.deserialize_cdr(cdr, expected)
        except _BROKEN as error:
            raise EpisodeError(
                f"{bag.path}: {topic}: a message of {len(cdr)} bytes is no {expected} ({error!r:.200}); "
                "exclude the episode, or find the publisher that wrote it"
            ) from None

    return decode


def decode_all(bag: BagReader, topic: str, expected: str) -> list[Any]:
    """All messages of a topic in the order of the file."""
    stream = bag.messages[topic]
    decode = decoder(bag, topic, expected)
    return [decode(cdr) for cdr in stream.payloads]


def columns(bag: BagReader, topic: str, expected: str) -> Columns:
    """All messages of a topic as columns; EpisodeError where they are not of the expected type."""
    store = _checked_store(bag, topic, expected)
    try:
        return read_columns(store, expected, bag.messages[topic].payloads)
    except CdrError as error:
        raise EpisodeError(
            f"{bag.path}: {topic}: not all messages are {expected} ({error}); exclude the episode, or "
            "find the publisher that wrote them"
        ) from None


def decode_own(cdr: memoryview, kind: str, where: str) -> Any:
    """A message by the definitions of this version; EpisodeError naming ``where`` for other bytes."""
    try:
        return messages.bag_typestore().deserialize_cdr(cdr, kind)
    except _BROKEN as error:
        raise EpisodeError(f"{where}: {len(cdr)} bytes are no {kind} ({error!r:.200})") from None


def header_stamp_ns(cdr: bytes | memoryview, otherwise: int = 0) -> int:
    """Stamp of a serialized message whose first field is a header; ``otherwise`` if it is too short."""
    if len(cdr) < 12:
        return otherwise
    sec, nanosec = _STAMP.unpack_from(cdr, 4)
    return int(sec * 1_000_000_000 + nanosec)


def has_header(kind: str) -> bool:
    """Whether messages of this type begin with a header, so that they carry a stamp."""
    store = messages.bag_typestore()
    if kind not in store.types:
        return False
    fields = store.get_msgdef(kind).fields
    return bool(fields) and fields[0][1][1] == "std_msgs/msg/Header"


def is_human_step(cdr: bytes | memoryview) -> bool:
    """Whether a serialized ControlStep was driven by the operator; False for bytes that are none."""
    store = messages.bag_typestore()
    try:
        step = store.deserialize_cdr(cdr, "dexpie_msgs/msg/ControlStep")
    except _BROKEN:
        return False
    return step.command.source in (Source.HUMAN, Source.BLEND)


# What rosbags' generated code raises on bytes that are not the message.
_BROKEN = (SerdeError, struct.error, ValueError, IndexError, OverflowError, MemoryError)


def _checked_store(bag: BagReader, topic: str, expected: str) -> Any:
    kind = bag.messages[topic].type
    if kind != expected:
        raise EpisodeError(
            f"{bag.path}: {topic}: holds {kind}, expected {expected}: another program published it "
            "under this name; remap that one, and exclude the episode"
        )
    return _store(bag, topic, expected)


def _store(bag: BagReader, topic: str, kind: str) -> Any:
    schema = bag.schemas[kind]
    if schema.encoding != "ros2msg":
        raise EpisodeError(
            f"{bag.path}: {topic}: its definition is {schema.encoding or 'missing'}, expected ros2msg; "
            "record with dexpie_ros or `ros2 bag record -s mcap`"
        )
    own = messages.bag_typestore()
    if schema.data.decode(errors="replace") == own.generate_msgdef(kind, ros_version=2)[0]:
        return own
    try:
        store = _foreign_store(schema.data, kind)
    except (TypesysError, SyntaxError, ValueError, KeyError, RecursionError) as error:
        raise EpisodeError(
            f"{bag.path}: {topic}: its definition of {kind} cannot be read: {error}"
        ) from None
    missing = [name for name in _field_names(own, kind) if name not in _field_names(store, kind)]
    if missing:
        raise EpisodeError(
            f"{bag.path}: {topic}: {kind} lacks {', '.join(missing)}: recorded by another version of "
            "dexpie_ros; read it with that version or convert it"
        )
    return store


@lru_cache(maxsize=16)
def _foreign_store(data: bytes, kind: str) -> Any:
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(data.decode(), kind))
    store.get_msgdef(kind)
    return store


def _field_names(store: Any, kind: str, prefix: str = "") -> list[str]:
    """Dotted names of all fields, into nested messages."""
    names = []
    for name, (node, detail) in store.get_msgdef(kind).fields:
        names.append(prefix + name)
        inner = detail if node is Nodetype.NAME else detail[0][1] if node > Nodetype.NAME else None
        if isinstance(inner, str):
            names += _field_names(store, inner, f"{prefix}{name}.")
    return names
