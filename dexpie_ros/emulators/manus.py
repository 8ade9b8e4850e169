"""Manus emulator: a publisher of glove ergonomics over ZMQ.

    python -m dexpie_ros.emulators.manus --port 8000 --side right

The hand opens and closes slowly, with the sensors' noise; both sides can be sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexpie_ros.command_line import Parser
from dexpie_ros.control.retargeting import ERGONOMICS
from dexpie_ros.emulators.channel import ControlChannel, EventLog, add_control, serve, ticks
from dexpie_ros.realtime import prefer_process

RATE = 120.0
NOISE_DEG = 0.05
BIND_TRIES = 100


class Gloves:
    """The publisher and what is wrong with it."""

    def __init__(self, host: str, port: int, sides: Sequence[str]) -> None:
        import zmq

        self.log = EventLog()
        self._zmq, self._sides = zmq, list(sides)
        self._context = zmq.Context()
        self._host, self._port = host, port
        self._socket: Any = None
        self._random = np.random.default_rng(0)
        self._time = 0.0
        self._pose: float | None = None
        self._last: dict[str, float] | None = None
        self._frozen = self._silent = False
        self._missing: set[str] = set()
        self._garbage = ""

    async def plug(self) -> int:
        """Publish; returns the port. OSError where the port stays taken."""
        if self._socket is None:
            self._socket = self._context.socket(self._zmq.PUB)
            self._socket.setsockopt(self._zmq.LINGER, 0)
            self._socket.setsockopt(self._zmq.SNDHWM, 16)
            await self._bind()
            self.log.add("plug")
        return int(self._port)

    async def _bind(self) -> None:
        if not self._port:
            self._port = self._socket.bind_to_random_port(f"tcp://{self._host}")
            return
        for left in reversed(range(BIND_TRIES)):
            try:
                self._socket.bind(f"tcp://{self._host}:{self._port}")
                return
            except self._zmq.ZMQError as error:
                if not left:
                    self.unplug()
                    raise OSError(f"port {self._port}: {error}") from None
            # ZMQ lets go of a closed socket's port in a thread of its own, some time later.
            await asyncio.sleep(0.05)

    def unplug(self) -> int:
        """The publisher ends."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        return self.log.add("unplug")

    def close(self) -> None:
        self.unplug()
        self._context.term()

    def silence(self, on: bool = True) -> int:
        self._silent = on
        return self.log.add("silence", on=on)

    def freeze(self, on: bool = True) -> int:
        """Repeat the last values for ever."""
        self._frozen = on
        return self.log.add("freeze", on=on)

    def missing(self, names: list[str]) -> None:
        """Leave out some values."""
        self._missing = set(names)

    def sides(self, sides: list[str]) -> None:
        """Which gloves send: left, right, Invalid."""
        self._sides = sides

    def garbage(self, text: str = "") -> None:
        """Send this instead of JSON; "" ends it."""
        self._garbage = text

    def hold(self, closed: float | None = None) -> None:
        """Hold the hand at 0 open .. 1 closed; without a value it moves."""
        self._pose = closed

    def values(self) -> dict[str, float]:
        """Angles in degrees by name."""
        if self._frozen and self._last is not None:
            return self._last
        moving = 0.5 - 0.5 * math.cos(2 * math.pi * self._time / 4.0)
        closed = moving if self._pose is None else self._pose
        angles = {}
        for name in ERGONOMICS:
            opened, shut = (35.0, -5.0) if name == "ThumbMCPSpread" else (0.0, 75.0)
            if name.endswith("Spread") and name != "ThumbMCPSpread":
                opened, shut = 8.0, 2.0
            noise = NOISE_DEG * self._random.standard_normal()
            angles[name] = float(np.float32(opened + closed * (shut - opened) + noise))
        self._last = angles
        return angles

    def send(self) -> None:
        for number, side in enumerate(self._sides):
            entries = [
                {"type": name, "value": value}
                for name, value in self.values().items()
                if name not in self._missing
            ]
            message = {
                "glove_id": number, "side": side.capitalize(), "timestamp": self._time,
                "ergonomics": entries,
            }  # fmt: skip
            text = self._garbage or json.dumps(message)
            self._socket.send_multipart([f"manus_glove_{side.lower()}".encode(), text.encode()])

    async def work(self) -> None:
        async for _ in ticks(RATE):
            self._time += 1.0 / RATE
            if self._socket is not None and not self._silent:
                self.send()

    def handlers(self) -> dict[str, Any]:
        return {
            "plug": self.plug, "unplug": self.unplug, "silence": self.silence,
            "freeze": self.freeze, "missing": self.missing, "sides": self.sides,
            "garbage": self.garbage, "hold": self.hold,
        }  # fmt: skip


async def run(arguments: argparse.Namespace) -> None:
    gloves = Gloves(arguments.host, arguments.port, arguments.side)
    port = await gloves.plug()
    channel = ControlChannel(gloves.log, gloves.handlers())
    ready = {"endpoint": f"tcp://{arguments.host}:{port}"}
    try:
        await serve(channel, arguments.control, ready, gloves.work, arguments.tied)
    finally:
        gloves.close()


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="dexpie emulate manus", description="Manus glove emulator (ZMQ)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 lets the system choose")
    parser.add_argument("--side", nargs="+", default=["right"], choices=["left", "right"])
    add_control(parser)
    prefer_process()  # Manus Core has a computer of its own
    asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
