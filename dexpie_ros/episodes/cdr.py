"""Thousands of serialized messages of one type -> columns of numbers, without making objects.

Messages of one topic nearly always have the same shape: the same lengths of strings and sequences,
hence every field at the same byte. One message is walked through by its definition; all others of
that shape are then read as one array. Equal, bit for bit, to reading them one by one (a test holds
the two together), and some thirty times faster.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Nodetype

Bytes = NDArray[np.uint8]

_PRIMITIVES = {
    "bool": "<u1", "byte": "<u1", "char": "<u1", "octet": "<u1", "int8": "<i1", "uint8": "<u1",
    "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4", "int64": "<i8",
    "uint64": "<u8", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_HEADER = 4
_SLACK = 8
"""rclpy's serializer may leave that many bytes of rubbish behind a message."""
_MOST_SHAPES = 2000


class CdrError(ValueError):
    """Bytes that are not the message they should be."""


@dataclass(frozen=True)
class Leaf:
    """Where a field lies: ``count`` values of ``dtype`` from byte ``offset`` on."""

    dtype: str
    offset: int
    count: int
    text: bool = False


@dataclass(frozen=True, eq=False)
class Group:
    """Messages of one shape."""

    rows: NDArray[np.int64]
    """Which of the messages."""
    data: Bytes
    """(messages, bytes)"""
    leaves: dict[str, Leaf]
    counts: dict[str, int]
    """Lengths of the sequences, by path."""

    def values(self, path: str) -> NDArray:
        """(messages, count) values of a field; CdrError if this shape has no such field."""
        leaf = self._leaf(path)
        size = np.dtype(leaf.dtype).itemsize * leaf.count
        part = np.ascontiguousarray(self.data[:, leaf.offset : leaf.offset + size])
        return part.view(leaf.dtype) if size else np.zeros((len(part), 0), leaf.dtype)

    def texts(self, paths: Sequence[str]) -> list[tuple[tuple[str, ...], NDArray[np.int64]]]:
        """The different values of text fields taken together, with the rows that hold them."""
        leaves = [self._leaf(path) for path in paths]
        columns = [np.arange(leaf.offset, leaf.offset + leaf.count) for leaf in leaves]
        part = self.data[:, np.concatenate([*columns, np.zeros(0, np.int64)]).astype(np.int64)]
        if not len(part) or (part == part[0]).all():
            return [(self._texts(leaves, 0), self.rows)] if len(part) else []
        _, first, which = np.unique(part, axis=0, return_index=True, return_inverse=True)
        which = which.reshape(-1)
        return [
            (self._texts(leaves, int(row)), self.rows[which == number])
            for number, row in enumerate(first)
        ]

    def _texts(self, leaves: Sequence[Leaf], row: int) -> tuple[str, ...]:
        found = []
        for leaf in leaves:
            raw = bytes(self.data[row, leaf.offset : leaf.offset + leaf.count])
            try:
                found.append(raw.decode())
            except UnicodeDecodeError:
                raise CdrError("a text is not UTF-8") from None
        return tuple(found)

    def _leaf(self, path: str) -> Leaf:
        try:
            return self.leaves[path]
        except KeyError:
            raise CdrError(f"no field {path}") from None


@dataclass(frozen=True, eq=False)
class Columns:
    """All messages of a topic."""

    length: int
    groups: list[Group]

    def scalar(self, path: str, dtype: type) -> NDArray:
        """(messages,) one number of every message."""
        return self.table([path], dtype)[:, 0]

    def table(self, paths: Sequence[str], dtype: type = np.float64) -> NDArray:
        """(messages, sum of the counts): the fields of every message side by side."""
        result: NDArray | None = None
        for group in self.groups:
            part = np.concatenate([group.values(path) for path in paths], axis=1)
            if result is None:
                result = np.empty((self.length, part.shape[1]), dtype)
            if part.shape[1] != result.shape[1]:
                raise CdrError(f"{paths[0]}: the number of values changes from message to message")
            result[group.rows] = part
        return np.empty((0, len(paths)), dtype) if result is None else result


def read_columns(store: Any, kind: str, payloads: Sequence[bytes | memoryview]) -> Columns:
    """Read messages of type ``kind``; CdrError if one of them is not such a message."""
    by_length: dict[int, list[int]] = {}
    for row, payload in enumerate(payloads):
        by_length.setdefault(len(payload), []).append(row)
    groups: list[Group] = []
    for length, rows in by_length.items():
        if length < _HEADER:
            raise CdrError(f"a message of {length} bytes")
        data = np.frombuffer(b"".join(payloads[row] for row in rows), np.uint8)
        for group in _shapes(store, kind, data.reshape(len(rows), length)):
            groups.append(Group(np.array(rows)[group.rows], group.data, group.leaves, group.counts))
            if len(groups) > _MOST_SHAPES:
                raise CdrError(f"messages of more than {_MOST_SHAPES} different shapes")
    return Columns(len(payloads), groups)


def _shapes(store: Any, kind: str, data: Bytes) -> Iterator[Group]:
    if not (data[:, 0] == 0).all() or not (data[:, 1] == 1).all():
        raise CdrError("not little-endian CDR")
    pending = np.arange(len(data))
    while len(pending):
        first = data[pending[0]]
        walk = _Walk(store, first.tobytes())
        walk.message(kind, "")
        if not 0 <= len(first) - walk.position <= _SLACK:
            raise CdrError(f"{len(first)} bytes where the message has {walk.position}")
        same = np.ones(len(pending), bool)
        if walk.lengths:
            where = (np.array(walk.lengths)[:, None] + np.arange(4)).reshape(-1)
            same = (data[np.ix_(pending, where)] == first[where]).all(axis=1)
        ends = np.array(walk.ends, np.int64)
        if len(ends) and data[np.ix_(pending[same], ends)].any():
            raise CdrError("a text without its end")
        rows = pending[same]
        yield Group(rows, data[rows], walk.leaves, walk.counts)
        pending = pending[~same]


@dataclass
class _Walk:
    """Goes through one message by its definition and notes where everything lies."""

    store: Any
    data: bytes
    position: int = _HEADER
    leaves: dict[str, Leaf] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    """Where lengths of strings and sequences lie: what makes the shape."""
    ends: list[int] = field(default_factory=list)
    """Where strings must end with a zero byte."""

    def message(self, kind: str, prefix: str) -> None:
        for name, description in self.store.get_msgdef(kind).fields:
            self.field(description, prefix + name)

    def field(self, description: Any, path: str) -> None:
        node, detail = description
        if node is Nodetype.NAME:
            self.message(detail, path + ".")
        elif node is Nodetype.BASE:
            self.primitive(detail[0], path, 1)
        elif node is Nodetype.ARRAY:
            self.many(detail[0], path, detail[1])
        else:
            count = self.length()
            self.counts[path] = count
            self.many(detail[0], path, count)

    def many(self, description: Any, path: str, count: int) -> None:
        node, detail = description
        if node is Nodetype.BASE and detail[0] in _PRIMITIVES:
            self.primitive(detail[0], path, count)
            return
        if count > len(self.data):
            raise CdrError(f"{path}: {count} elements in {len(self.data)} bytes")
        for index in range(count):
            self.field(description, f"{path}.{index}")

    def primitive(self, name: str, path: str, count: int) -> None:
        if name == "string":
            size = self.length()
            self.take(size, 1)
            if size < 1:
                raise CdrError(f"{path}: a text of no bytes")
            self.ends.append(self.position - 1)
            self.leaves[path] = Leaf("<u1", self.position - size, size - 1, text=True)
            return
        if name not in _PRIMITIVES:
            raise CdrError(f"{path}: a field of type {name} cannot be read here")
        dtype = np.dtype(_PRIMITIVES[name])
        if count:
            self.take(count * dtype.itemsize, dtype.itemsize)
        offset = self.position - count * dtype.itemsize
        self.leaves[path] = Leaf(_PRIMITIVES[name], offset, count)

    def length(self) -> int:
        self.take(4, 4)
        self.lengths.append(self.position - 4)
        return int(struct.unpack_from("<I", self.data, self.position - 4)[0])

    def take(self, size: int, alignment: int) -> None:
        position = self.position + (_HEADER - self.position) % alignment + size
        if position > len(self.data):
            raise CdrError(f"{len(self.data)} bytes, too few for the message")
        self.position = position
