"""The control channel and the life of an emulator process.

One JSON object per line over TCP on loopback: ``{"do": "freeze"}`` -> ``{"ok": true, "result":
null}``. ``{"do": "help"}`` lists what an emulator can do; ``log`` gives its events with monotonic
stamps (ns, one clock for all processes of a machine); ``quit`` ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Handler = Callable[..., Any]
MAX_LINE = 1 << 16
Address = tuple[str, int]


class EventLog:
    """What happened, with monotonic stamps; keeps the newest ``size`` events."""

    def __init__(self, size: int = 20_000) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=size)

    def add(self, kind: str, **data: Any) -> int:
        """Note an event; returns its stamp in ns."""
        now = time.monotonic_ns()
        self._events.append({"time_ns": now, "kind": kind, **data})
        return now

    def clear(self) -> None:
        self._events.clear()

    def read(self, kind: str = "", since_ns: int = 0) -> list[dict[str, Any]]:
        return [
            event
            for event in self._events
            if event["time_ns"] >= since_ns and kind in ("", event["kind"])
        ]


class ControlChannel:
    """Serves ``handlers`` by name to whoever connects on loopback."""

    def __init__(self, log: EventLog, handlers: Mapping[str, Handler]) -> None:
        self.log = log
        self.finished = asyncio.Event()
        self._handlers: dict[str, Handler] = {
            "help": lambda: {name: _signature(call) for name, call in self._handlers.items()},
            "log": log.read,
            "time": lambda: time.monotonic_ns(),
            "quit": self.finished.set,
            **handlers,
        }
        self._server: asyncio.Server | None = None

    async def open(self, address: Address) -> int:
        """Listen on a loopback address; port 0 lets the system choose. Returns the port."""
        self._server = await asyncio.start_server(self._serve, *address, limit=MAX_LINE)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def answer(self, line: bytes) -> dict[str, Any]:
        """The reply to one request line; mistakes are answered, never raised."""
        try:
            request = json.loads(line)
            handler = self._handlers[request.pop("do")]
            inspect.signature(handler).bind(**request)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}; try do=help"}
        try:
            result = handler(**request)
            if inspect.isawaitable(result):
                result = await result
        except (ValueError, TypeError, OSError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}
        return {"ok": True, "result": result}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):  # ValueError: a line over the limit
            while line := await reader.readline():
                writer.write(json.dumps(await self.answer(line)).encode() + b"\n")
                await writer.drain()
        writer.close()


def _signature(call: Handler) -> str:
    return str(inspect.signature(call))


def control_address(text: str) -> Address:
    """``7100`` or ``127.0.0.2:7100`` of a command line; ValueError for anything else."""
    host, _, port = text.rpartition(":")
    host = host or "127.0.0.1"
    known = port.isascii() and port.isdigit() and int(port) < 65536
    if not host.startswith("127.") or not known:
        raise ValueError(f"{text!r} is no port on loopback")
    return host, int(port)


def add_control(parser: argparse.ArgumentParser) -> None:
    """The options that all emulators have."""
    parser.add_argument(
        "--control", type=control_address, default=("127.0.0.1", 0), metavar="[HOST:]PORT",
        help="of the control channel, on loopback; 0 (default) lets the system choose",
    )  # fmt: skip
    parser.add_argument("--tied", action="store_true", help="end when stdin ends")


async def serve(
    channel: ControlChannel,
    address: Address,
    ready: Mapping[str, Any],
    work: Callable[[], Awaitable[None]],
    tied: bool,
) -> None:
    """Announce readiness and run ``work`` until told to quit, a signal, or (tied) the parent ends.

    ``ready`` is printed as one JSON line with the control port added.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_quiet_end)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, channel.finished.set)
    if tied:
        # The parent holds the other end of stdin: its end, of whatever kind, is an end of file.
        def on_stdin() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin)
                channel.finished.set()

        loop.add_reader(sys.stdin, on_stdin)
    chosen = await channel.open(address)
    print(json.dumps({"ready": True, "control": chosen, **ready}), flush=True)
    task = asyncio.ensure_future(work())
    waiter = asyncio.ensure_future(channel.finished.wait())
    done, _ = await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    channel.close()
    for pending in (task, waiter):
        pending.cancel()
    if task in done:
        task.result()


def _quiet_end(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """asyncio's streams (3.11) complain about their own tasks being cancelled at the end."""
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


async def ticks(frequency: float) -> Any:
    """Yield at a fixed rate; after a long delay it goes on from now instead of catching up."""
    due = time.monotonic()
    while True:
        yield
        due += 1.0 / frequency
        delay = due - time.monotonic()
        if delay < -0.05:
            due = time.monotonic()
        await asyncio.sleep(max(delay, 0.0))
