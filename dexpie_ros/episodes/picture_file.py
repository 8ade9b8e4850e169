"""Pictures of one camera at network size in one .npy file: written from a recording, then mapped."""

from __future__ import annotations

import os
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.episodes.images import IMAGE_SIZE, Image, RecordedImages, shrink

_BATCH = 8
"""Pictures that a thread decodes in a row."""


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Images of one camera at network size, memory-mapped: (T, size, size, 3)."""

    pixels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image:
        return self.pixels[index]

    def shrunk(self, index: int, size: int = IMAGE_SIZE) -> Image:
        """Row ``index``; the cache's own size costs nothing."""
        return shrink(self.pixels[index], size)


def write_pictures(path: Path, images: RecordedImages, size: int, pool: Executor) -> None:
    """One row per control step, decoded by ``pool``; on the disk when this returns.

    Written at their places rather than through a mapping: a page need not be fetched before it is
    filled, and a full disk is an OSError instead of the end of the process.
    """
    rows = images.rows
    # A picture that is in force for several steps is decoded once.
    first = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    times = np.diff(np.append(first, len(rows)))
    shape, step = (len(rows), size, size, 3), size * size * 3
    with open(path, "wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.flush()
        begin, descriptor = stream.tell(), stream.fileno()

        def fill(part: slice) -> None:
            for index, repeated in zip(first[part].tolist(), times[part].tolist()):
                pixels = np.ascontiguousarray(images.shrunk(index, size))
                for k in range(index, index + repeated):
                    _write_at(descriptor, pixels.data.cast("B"), begin + k * step)

        jobs = [pool.submit(fill, slice(k, k + _BATCH)) for k in range(0, len(first), _BATCH)]
        try:
            for job in jobs:
                job.result()
        finally:
            for job in jobs:
                job.cancel()
            wait(jobs)  # none may write once the file is closed
        os.fsync(descriptor)


def _write_at(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, position)
        data, position = data[written:], position + written
