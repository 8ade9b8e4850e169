"""SteamVR emulator: one or more Vive trackers for the unmodified openvr package.

    python -m dexpie_ros.emulators.vive --serial LHR-0A1B2C3D

Builds a client library (:mod:`dexpie_ros.emulators.vive_runtime`) into a temporary folder; the ready
line names the path registry that the driver must be given (``path_registry``).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import mmap
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.command_line import Parser
from dexpie_ros.emulators import vive_runtime as runtime
from dexpie_ros.emulators.channel import ControlChannel, EventLog, add_control, serve, ticks
from dexpie_ros.geometry import Array

RATE = 250.0
TRACKER, LIGHTHOUSE = 3, 4
ACTIVATED, DEACTIVATED, QUIT = 100, 101, 700
RUNNING_OK, OUT_OF_RANGE = 200, 201
NOISE_M = 4e-7
"""Of the position, uniform: far less than a tracker has, and yet no two poses are the same."""


class World:
    """The devices in the shared file."""

    def __init__(self, shared: Path, serials: Sequence[str]) -> None:
        self.log = EventLog()
        with shared.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._events = 0
        self._index = {serial: 3 + k for k, serial in enumerate(serials)}
        self._result, self._valid, self._connected = RUNNING_OK, True, True
        self._fixed: Array | None = None
        self._offset = np.zeros(3)
        self._time = 0.0
        self._random = np.random.default_rng(0)
        self._garbage = self._frozen = False
        self.run(True)
        self._write(1, LIGHTHOUSE, "LHB-00000001", np.eye(4))

    def run(self, on: bool = True) -> int:
        """Start SteamVR, or let it quit."""
        if not on:
            self._event(QUIT, 0)
        self._header(running=on)
        return self.log.add("run", on=on)

    def tracking(self, result: int = RUNNING_OK, valid: bool = True, connected: bool = True) -> int:
        """Tracking result (201: out of range), validity and radio connection from now on."""
        self._result, self._valid, self._connected = result, valid, connected
        return self.log.add("tracking", result=result, valid=valid, connected=connected)

    def pair_again(self) -> int:
        """All trackers get another index, as after turning them off and on."""
        for serial, index in list(self._index.items()):
            self._write(index, 0, "", np.eye(4))
            self._event(DEACTIVATED, index)
            self._index[serial] = (index - 3 + 7) % 50 + 3
        for index in self._index.values():
            self._event(ACTIVATED, index)
        self.step(0.0)
        return self.log.add("pair_again")

    def swap_silently(self) -> int:
        """Another index without any event."""
        for serial, index in list(self._index.items()):
            self._write(index, 0, "", np.eye(4))
            self._index[serial] = (index - 3 + 7) % 50 + 3
        self.step(0.0)
        return self.log.add("swap_silently")

    def place(self, matrix: list[list[float]] | None = None) -> None:
        """Hold the trackers at a pose (4, 4); without one they move in circles."""
        self._fixed = None if matrix is None else np.array(matrix, np.float64).reshape(4, 4)

    def jump(self, x: float, y: float, z: float) -> int:
        """Shift the world, as when tracking locks on a reflection."""
        self._offset = np.array([x, y, z])
        return self.log.add("jump")

    def garbage(self, on: bool = True) -> int:
        """Poses that are none, marked valid."""
        self._garbage = on
        return self.log.add("garbage", on=on)

    def freeze(self, on: bool = True) -> int:
        """SteamVR hangs: its client goes on reading the last poses, and they count as valid."""
        self._frozen = on
        return self.log.add("freeze", on=on)

    def pose(self) -> Array:
        """Where the trackers are now (4, 4)."""
        if self._fixed is not None:
            pose = self._fixed.copy()
        else:
            phase = 2 * math.pi * self._time / 8.0
            place = [0.1 * math.cos(phase), 1.2 + 0.05 * math.sin(2 * phase), -0.3]
            pose = geometry.make_pose(geometry.rotation_exp([0.0, 0.3 * math.sin(phase), 0]), place)
        pose[:3, 3] += self._offset
        return pose

    def step(self, period: float) -> None:
        if self._frozen:
            return
        self._time += period
        for index, serial in ((i, s) for s, i in self._index.items()):
            matrix = self.pose()
            matrix[:3, 3] += self._random.uniform(-NOISE_M, NOISE_M, 3)
            if self._garbage:
                matrix[:3, :] = np.nan if int(self._time * RATE) % 2 else 7.0
            self._write(index, TRACKER, serial, matrix)

    async def work(self) -> None:
        async for _ in ticks(RATE):
            self.step(1.0 / RATE)

    def handlers(self) -> dict[str, Any]:
        return {
            "run": self.run, "tracking": self.tracking, "pair_again": self.pair_again,
            "swap_silently": self.swap_silently, "place": self.place, "jump": self.jump,
            "garbage": self.garbage, "freeze": self.freeze,
            "pose": lambda: self.pose().tolist(),
        }  # fmt: skip

    def _header(self, step: int = 0, running: bool | None = None) -> None:
        sequence, _, was, _ = runtime.HEADER.unpack_from(self._memory)
        runs = was if running is None else int(running)
        runtime.HEADER.pack_into(self._memory, 0, sequence + step, self._events, runs, 0)

    def _event(self, kind: int, index: int) -> None:
        slot = runtime.EVENTS_AT + self._events % runtime.MAX_EVENTS * runtime.EVENT.size
        runtime.EVENT.pack_into(self._memory, slot, kind, index)
        self._events += 1
        self._header()

    def _write(self, index: int, kind: int, serial: str, matrix: Array) -> None:
        self._header(step=1)  # odd: being written
        runtime.DEVICE.pack_into(
            self._memory, runtime.DEVICES_AT + index * runtime.DEVICE.size, kind,
            serial.encode(), b"VIVE Tracker 3.0 (emulated)", 0.8, *matrix[:3].ravel(),
            *(0.0,) * 6, self._result, self._valid, self._connected,
        )  # fmt: skip
        self._header(step=1)


async def run(arguments: argparse.Namespace) -> None:
    with contextlib.ExitStack() as cleanup:
        folder = arguments.folder
        if folder is None:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="vive_")))
        else:
            shutil.rmtree(folder, ignore_errors=True)  # what a killed emulator left
            folder.mkdir(parents=True)
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            registry, shared = runtime.build(folder)
        except runtime.NoCompiler as error:
            sys.exit(str(error))
        world = World(shared, arguments.serial)
        world.step(0.0)
        channel = ControlChannel(world.log, world.handlers())
        ready = {"path_registry": str(registry), "serials": arguments.serial}
        await serve(channel, arguments.control, ready, world.work, arguments.tied)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="dexpie emulate vive", description="SteamVR emulator with Vive trackers")
    parser.add_argument("--serial", nargs="+", default=["LHR-0A1B2C3D"])
    parser.add_argument(
        "--folder", type=Path, help="of the client library, made anew; default: a temporary one"
    )
    add_control(parser)
    asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
