"""Inspire hand emulator: Modbus TCP, Modbus RTU and EB90 at once, over one hand.

    python -m dexpie_ros.emulators.inspire --host 127.0.0.3 --port 6000

The serial protocols are served on pseudo terminals; the ready line names stable links to them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import struct
import tempfile
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dexpie_ros.command_line import Parser
from dexpie_ros.devices import inspire_eb90 as eb90
from dexpie_ros.devices import inspire_registers as reg
from dexpie_ros.emulators import modbus
from dexpie_ros.emulators.channel import ControlChannel, EventLog, add_control, serve, ticks
from dexpie_ros.emulators.inspire_hand import HandModel
from dexpie_ros.realtime import prefer_process

RATE = 200.0
BYTES = (reg.ERROR, reg.STATUS, reg.TEMP)


class SerialLine:
    """A pseudo terminal under a link that stays the same when it is unplugged and plugged in."""

    def __init__(self, link: Path, respond: Callable[[bytes], bytes]) -> None:
        self.link, self._respond = link, respond
        self.delay = 0.0
        """s from a request to its reply."""
        self._ends: tuple[int, int] | None = None

    def plug(self) -> None:
        if self._ends is not None:
            return
        # This side keeps the client's end open too, or reading would fail when the client leaves.
        master, slave = os.openpty()
        tty.setraw(master)
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._ends = master, slave
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(slave))
        asyncio.get_running_loop().add_reader(master, self._on_data)

    def unplug(self) -> None:
        if self._ends is None:
            return
        asyncio.get_running_loop().remove_reader(self._ends[0])
        for end in self._ends:
            os.close(end)
        self._ends = None
        self.link.unlink(missing_ok=True)

    def _on_data(self) -> None:
        if self._ends is None:
            return
        try:
            reply = self._respond(os.read(self._ends[0], 4096))
        except (BlockingIOError, OSError):
            return
        if reply and self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._answer, self._ends, reply)
        elif reply:
            self._answer(self._ends, reply)

    def _answer(self, ends: tuple[int, int], reply: bytes) -> None:
        if ends != self._ends:
            return  # unplugged meanwhile
        with contextlib.suppress(OSError):  # a client that does not read: it finds an empty line
            os.write(ends[0], reply)


class Server:
    """One hand on three transports, with faults on the line."""

    def __init__(self, host: str, port: int, folder: Path, hand_id: int) -> None:
        self.log = EventLog()
        self.hand = HandModel(self.log)
        self._host, self._port, self._id = host, port, hand_id
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._eb90, self._rtu = eb90.Parser(eb90.REQUEST), modbus.RtuParser()
        self.lines = {
            "eb90": SerialLine(folder / "eb90", self._respond_eb90),
            "rtu": SerialLine(folder / "rtu", self._respond_rtu),
        }
        self._fault, self._delay = "", 0.0
        self._high_byte_first = False

    async def open(self) -> int:
        """Serve; returns the TCP port."""
        for line in self.lines.values():
            line.plug()
        return await self._listen()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve_tcp, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def work(self) -> None:
        async for _ in ticks(RATE):
            self.hand.step(1.0 / RATE)

    def line_fault(self, kind: str = "") -> int:
        """From now on: silence, checksum (broken replies), refuse (error replies); "" ends it."""
        if kind not in ("", "silence", "checksum", "refuse", "garbage"):
            raise ValueError(f"line fault {kind!r}; known: silence, checksum, refuse, garbage")
        self._fault = kind
        return self.log.add("line_fault", what=kind)

    def slow(self, seconds: float = 0.0) -> int:
        """Answers come so late; 0 ends it. A real hand takes 3 to 6 ms beside the line's time."""
        if not 0 <= seconds <= 10:
            raise ValueError(f"seconds = {seconds}: must lie in 0..10")
        self._delay = seconds
        for line in self.lines.values():
            line.delay = seconds
        return self.log.add("slow", seconds=seconds)

    def drop(self) -> int:
        """Close the TCP connections."""
        for writer in list(self._writers):
            writer.transport.abort()
        return self.log.add("drop")

    async def unplug(self) -> int:
        """The adapter or network cable is pulled."""
        for line in self.lines.values():
            line.unplug()
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        return self.log.add("unplug")

    async def plug(self) -> int:
        for line in self.lines.values():
            line.plug()
        if self._server is None:
            await self._listen()
        return self.log.add("plug")

    def high_byte_first(self, on: bool = True) -> int:
        """Another firmware: byte registers come the other way round over Modbus."""
        self._high_byte_first = on
        return self.log.add("high_byte_first", on=on)

    def state(self) -> dict[str, Any]:
        hand = self.hand
        return {
            "transactions": hand.transactions, "writes": hand.writes,
            "speed": hand.value(reg.SPEED_SET), "force": hand.value(reg.FORCE_SET),
        }  # fmt: skip

    def handlers(self) -> dict[str, Any]:
        return {
            "line_fault": self.line_fault, "slow": self.slow, "drop": self.drop, "unplug": self.unplug,
            "plug": self.plug, "state": self.state, "stall": self.hand.stall,
            "heat": self.hand.heat, "hold_object": self.hand.hold_object,
            "power_cut": self.hand.power_cut,
            "high_byte_first": self.high_byte_first,
        }  # fmt: skip

    def _pdu(self, request: bytes) -> bytes:
        if self._fault == "refuse" and request:
            return bytes([request[0] | 0x80, modbus.DEVICE_FAILURE])
        return modbus.answer(request, self._read, self.hand.write)

    def _read(self, address: int, size: int) -> bytes | None:
        data = self.hand.read(address, size)
        if data is None or not self._high_byte_first:
            return data
        turned = bytearray(data)
        for k in range(0, size - 1, 2):
            if any(r.address <= address + k < r.address + r.size for r in BYTES):
                turned[k : k + 2] = data[k : k + 2][::-1]
        return bytes(turned)

    def _on_line(self, reply: bytes) -> bytes:
        """What the fault makes of a reply."""
        if self._fault == "silence":
            return b""
        if self._fault == "checksum" and reply:
            return reply[:-1] + bytes([reply[-1] ^ 0x5A])
        if self._fault == "garbage":
            return os.urandom(len(reply))
        return reply

    def _respond_rtu(self, data: bytes) -> bytes:
        replies = b""
        for unit, request in self._rtu.feed(data):
            if unit == self._id:  # other units do not answer: silence
                body = bytes([unit]) + self._pdu(request)
                replies += self._on_line(body + modbus.crc(body))
        return replies

    def _respond_eb90(self, data: bytes) -> bytes:
        replies = b""
        for frame in self._eb90.feed(data):
            if frame.hand_id != self._id or self._fault == "refuse":
                continue
            if frame.command == eb90.READ and len(frame.data) == 1:
                answer = self.hand.read(frame.address, frame.data[0])
            elif frame.command == eb90.WRITE:
                answer = b"\x01" if self.hand.write(frame.address, frame.data) else None
            else:
                answer = None
            if answer is not None and len(answer) <= eb90.MAX_DATA:
                reply = eb90.Frame(self._id, frame.command, frame.address, answer)
                replies += self._on_line(eb90.build(eb90.REPLY, reply))
        return replies

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                transaction, protocol, size, unit = struct.unpack(
                    ">HHHB", await reader.readexactly(7)
                )
                if protocol != 0 or not 2 <= size <= 260:
                    break
                request = await reader.readexactly(size - 1)
                if unit != self._id:
                    continue
                reply = self._pdu(request)
                if self._fault == "checksum":  # TCP has none: answer another transaction
                    transaction ^= 0x5A5A
                elif self._fault:
                    reply = self._on_line(reply)
                if not reply:
                    continue
                frame = struct.pack(">HHHB", transaction, 0, len(reply) + 1, unit) + reply
                if self._delay:
                    asyncio.get_running_loop().call_later(self._delay, writer.write, frame)
                else:
                    writer.write(frame)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def run(arguments: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        folder = arguments.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="inspire_")))
        folder.mkdir(parents=True, exist_ok=True)
        server = Server(arguments.host, arguments.port, folder, arguments.id)
        port = await server.open()
        ready = {
            "host": arguments.host, "port": port,
            **{name: str(line.link) for name, line in server.lines.items()},
        }  # fmt: skip
        channel = ControlChannel(server.log, server.handlers())
        await serve(channel, arguments.control, ready, server.work, arguments.tied)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="dexpie emulate inspire", description="Inspire hand emulator (Modbus TCP, RTU, EB90)"
    )
    parser.add_argument("--host", default="127.0.0.3", help="loopback address for Modbus TCP")
    parser.add_argument("--port", type=int, default=6000, help="0 lets the system choose")
    parser.add_argument("--id", type=int, default=1, help="hand id (Modbus unit)")
    parser.add_argument(
        "--folder", type=Path, help="for the links eb90 and rtu to the serial lines; else a new one"
    )
    add_control(parser)
    prefer_process()  # a hand has a processor of its own
    asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
