"""RealSense emulator: a camera whose frames come over TCP into a librealsense software device.

    python -m dexpie_ros.emulators.realsense --serial 823112061234 --port 7001

The picture is a gradient with a square that moves around, or an ArUco cube where one was put before
the camera; the frame's number stands in its first eight bytes. See :class:`dexpie_ros.devices.realsense_discovery.RemoteDiscovery` for the other side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.command_line import Parser
from dexpie_ros.devices.aruco_cube import CubeConfig
from dexpie_ros.devices.realsense_discovery import DOMAINS, FRAME, MAGIC
from dexpie_ros.emulators.channel import ControlChannel, EventLog, add_control, serve, ticks
from dexpie_ros.emulators.cube_view import render_cube

SQUARE = 40


class Camera:
    """One camera and whoever is connected to it."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.log = EventLog()
        self.width, self.height, self.fps = arguments.width, arguments.height, arguments.fps
        self._host, self._port = arguments.host, arguments.port
        focal = 615.0 * self.width / 640
        self._description = {
            "serial": arguments.serial, "name": "Intel RealSense D415 (emulated)",
            "width": self.width, "height": self.height, "fps": self.fps, "fx": focal, "fy": focal,
            "ppx": self.width / 2, "ppy": self.height / 2,
        }  # fmt: skip
        x = np.linspace(0, 255, self.width)[None, :, None]
        y = np.linspace(0, 255, self.height)[:, None, None]
        self._background = (0.5 * x + 0.5 * y + np.zeros((1, 1, 3))).astype(np.uint8)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._stalled = False
        self._domain, self._offset_ms = "global_time", 0.0
        self._number = 0
        self._cube: NDArray[np.uint8] | None = None

    async def plug(self) -> int:
        """Plug in: accept connections. Returns the port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self._host, self._port)
            self._port = self._server.sockets[0].getsockname()[1]
            self.log.add("plug")
        return int(self._port)

    def unplug(self) -> int:
        """The cable is pulled: connections end and none is accepted."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        return self.log.add("unplug")

    def stall(self, on: bool = True) -> int:
        """Stay connected but send no frames."""
        self._stalled = on
        return self.log.add("stall", on=on)

    def clock(self, domain: str, offset_ms: float = 0.0) -> None:
        """Stamp frames in another clock domain."""
        if domain not in DOMAINS:
            raise ValueError(f"domain {domain!r}; known: {', '.join(DOMAINS)}")
        self._domain, self._offset_ms = domain, offset_ms

    def skip(self, frames: int) -> None:
        """Lose some frames."""
        self._number += frames

    def garbage(self) -> int:
        """Send bytes that are no frame."""
        for writer in self._writers:
            writer.write(bytes(range(256)) * 40)
        return self.log.add("garbage")

    def picture(self, number: int) -> NDArray[np.uint8]:
        """The image of frame ``number`` (height, width, 3) RGB."""
        if self._cube is not None:
            return self._numbered(self._cube.copy(), number)
        image = self._background.copy()
        left = 4 * number % (self.width - SQUARE)
        top = 2 * number % (self.height - SQUARE)
        image[top : top + SQUARE, left : left + SQUARE] = (255, 40, 40)
        return self._numbered(image, number)

    @staticmethod
    def _numbered(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
        image.reshape(-1)[:8] = np.frombuffer(struct.pack("<q", number), np.uint8)
        return image

    def cube(self, matrix: list[list[float]] | None = None) -> int:
        """Put an ArUco cube before the camera, ``matrix`` (4, 4) in its optical frame; or take it away."""
        self._cube = None
        if matrix is not None:
            pose = np.array(matrix, np.float64)
            if pose.shape != (4, 4) or not np.isfinite(pose).all() or pose[2, 3] < 0.1:
                raise ValueError("matrix: expected 4 rows of 4 numbers, at least 0.1 m ahead")
            d = self._description
            k = np.array([[d["fx"], 0, d["ppx"]], [0, d["fy"], d["ppy"]], [0, 0, 1]], np.float64)
            grey = render_cube(pose, CubeConfig(), k, (self.height, self.width))
            self._cube = np.repeat(grey[..., None], 3, axis=2)
        return self.log.add("cube", shown=matrix is not None)

    async def work(self) -> None:
        async for _ in ticks(self.fps):
            self._number += 1
            if self._stalled or not self._writers:
                continue
            stamp = time.time() * 1e3 + self._offset_ms
            header = FRAME.pack(MAGIC, self._number, stamp, DOMAINS.index(self._domain))
            data = self.picture(self._number).tobytes()
            for writer in self._writers:
                # A slow reader loses frames, as on USB; it must not stop the camera.
                if writer.transport.get_write_buffer_size() < len(data):
                    writer.write(header + data)

    def handlers(self) -> dict[str, Any]:
        return {
            "plug": self.plug, "unplug": self.unplug, "stall": self.stall, "clock": self.clock,
            "skip": self.skip, "garbage": self.garbage, "cube": self.cube,
        }  # fmt: skip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(self._description).encode() + b"\n")
        self._writers.add(writer)
        self.log.add("connect")
        try:
            await reader.read()  # until the client leaves
        except ConnectionError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def run(arguments: argparse.Namespace) -> None:
    camera = Camera(arguments)
    port = await camera.plug()
    channel = ControlChannel(camera.log, camera.handlers())
    ready = {"host": arguments.host, "port": port, "serial": arguments.serial}
    await serve(channel, arguments.control, ready, camera.work, arguments.tied)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="dexpie emulate realsense", description="RealSense colour camera emulator")
    parser.add_argument("--serial", default="823112061234")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7001, help="0 lets the system choose")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--fps", type=int, default=60)
    add_control(parser)
    asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
