"""Ways in which the bytes of a bag can be broken, whatever they mean."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from dexpie_ros.episodes.bag_reader import find_bag

Mutation = Callable[[Path], None]


def byte_cases(source: Path) -> Iterator[tuple[str, Mutation]]:
    size = find_bag(source).stat().st_size
    rng = random.Random(7)

    def edit(change: Callable[[bytearray], None]) -> Mutation:
        def mutate(path: Path) -> None:
            file = find_bag(path)
            data = bytearray(file.read_bytes())
            change(data)
            file.write_bytes(data)

        return mutate

    for at in [0, 1, 7, 8, 9, 20, *sorted(rng.sample(range(30, size), 34))]:
        yield f"cut at {at}", edit(lambda data, at=at: data.__delitem__(slice(at, None)))
    for at in sorted(rng.sample(range(size), 60)):
        bit = rng.randrange(8)

        def flip(data: bytearray, at: int = at, bit: int = bit) -> None:
            data[at] ^= 1 << bit

        yield f"bit {bit} of {at} flipped", edit(flip)
    for value in (0, 0xFF):
        for at in sorted(rng.sample(range(size - 600), 12)):

            def fill(data: bytearray, at: int = at, value: int = value) -> None:
                data[at : at + 600] = bytes([value]) * 600

            yield f"600 bytes of {value:#x} at {at}", edit(fill)
    for at in sorted(rng.sample(range(100, size - 100), 8)):
        yield (
            f"50 bytes missing at {at}",
            edit(lambda data, at=at: data.__delitem__(slice(at, at + 50))),
        )
        yield (
            f"50 bytes too many at {at}",
            edit(lambda data, at=at: data.__setitem__(slice(at, at), b"\x05" * 50)),
        )


def length_cases(source: Path) -> Iterator[tuple[str, Mutation]]:
    """Every kind of record claims to be enormous, or nothing."""
    data = find_bag(source).read_bytes()
    position, seen = 8, {}
    while position < len(data) - 8:
        code, length = struct.unpack_from("<BQ", data, position)
        seen.setdefault(code, position)
        position += 9 + length
    for code, at in seen.items():
        for value in (0, 1 << 20, 1 << 40, (1 << 64) - 1):

            def mutate(path: Path, at: int = at, value: int = value) -> None:
                with open(find_bag(path), "r+b") as stream:
                    stream.seek(at + 1)
                    stream.write(struct.pack("<Q", value))

            yield f"record {code:#x} of {value} bytes", mutate
    chunk = seen[0x06]
    for offset, name in ((9 + 16, "uncompressed size"), (9 + 32, "records size")):
        for value in (1, 1 << 34, (1 << 64) - 1):

            def mutate_chunk(path: Path, at: int = chunk + offset, value: int = value) -> None:
                with open(find_bag(path), "r+b") as stream:
                    stream.seek(at)
                    stream.write(struct.pack("<Q", value))

            yield f"chunk with {name} {value}", mutate_chunk
