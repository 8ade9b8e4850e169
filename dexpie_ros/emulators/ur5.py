"""UR controller emulator: RTDE (30004), dashboard (29999) and script ports (30001..30003).

    python -m dexpie_ros.emulators.ur5 --host 127.0.0.2

The ports are those of the real controller and hard-coded in ur_rtde, so every emulator takes a
loopback address of its own. It must be a process apart from its client: ur_rtde's constructors hold
the GIL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import re
import socket
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexpie_ros.command_line import Parser
from dexpie_ros.devices.ur_kinematics import MODELS
from dexpie_ros.emulators import rtde
from dexpie_ros.emulators.channel import ControlChannel, EventLog, add_control, serve, ticks
from dexpie_ros.emulators.ur_robot import HOME, PLAYING, Robot
from dexpie_ros.realtime import prefer_process

VERSIONS = {"ur5": (3, 15, 8, 106339), "ur5e": (5, 11, 1, 108318)}
RTDE_PORT, DASHBOARD_PORT, SCRIPT_PORTS = 30004, 29999, (30001, 30002, 30003)
MAX_SCRIPT = 1 << 20


class Controller:
    """The three servers around one :class:`Robot`."""

    def __init__(self, host: str, model: str, unlock_delay: float) -> None:
        self.host, self.version = host, VERSIONS[model]
        self.log = EventLog()
        frequency = 125.0 if model == "ur5" else 500.0
        self.robot = Robot(MODELS[model], frequency, self.log, unlock_delay)
        self.frozen = False
        self.inputs_in_use = False
        self.remote_control = True
        self._name = model.upper()
        self._sessions: dict[asyncio.StreamWriter, rtde.Session] = {}
        self._servers: list[asyncio.Server] = []
        self._nan_packets = 0
        self._dashboard_delay = self._data_delay = 0.0
        self._last_due = 0.0

    async def open(self) -> None:
        serving = [(RTDE_PORT, self._serve_rtde), (DASHBOARD_PORT, self._serve_dashboard)]
        serving += [(port, self._serve_script) for port in SCRIPT_PORTS]
        for port, handler in serving:
            self._servers.append(await asyncio.start_server(handler, self.host, port))

    async def work(self) -> None:
        """The controller's cycle."""
        cycle = 0
        async for _ in ticks(self.robot.frequency):
            self.robot.step()
            cycle += 1
            if not self.frozen:
                self._send_data(cycle)

    def _send_data(self, cycle: int) -> None:
        due = {
            writer: session
            for writer, session in self._sessions.items()
            if session.started
            and session.outputs
            and cycle % max(1, round(self.robot.frequency / session.frequency)) == 0
        }
        if not due:
            return
        state = self.robot.sample()
        if self._nan_packets:
            self._nan_packets -= 1
            state["actual_q"] = state["actual_TCP_pose"] = (math.nan,) * 6
        loop = asyncio.get_running_loop()
        # in order, also while the delay becomes shorter: this is one TCP stream
        self._last_due = max(self._last_due, loop.time() + self._data_delay)
        late = self._last_due > loop.time()
        for writer, session in due.items():
            if late:
                loop.call_at(self._last_due, self._write, writer, session.data(state))
            else:
                self._write(writer, session.data(state))

    @staticmethod
    def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    async def _serve_rtde(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link: socket.socket = writer.get_extra_info("socket")
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = rtde.Session(
            self.version, self.robot.frequency, self.robot.receive, lambda: self.inputs_in_use
        )
        self._sessions[writer] = session
        self.log.add("connect", sessions=len(self._sessions))
        try:
            while True:
                writer.write(session.handle(*await rtde.read_frame(reader)))
                await writer.drain()
        except rtde.RtdeError as error:
            self.log.add("protocol_error", error=str(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._sessions.pop(writer, None)
            self.log.add("disconnect", sessions=len(self._sessions))
            writer.close()

    async def _serve_script(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        text = ""
        with contextlib.suppress(ConnectionError):
            while (piece := await reader.read(65536)) and len(text) < MAX_SCRIPT:
                text += piece.decode("utf-8", "replace")
                while end := re.search(r"^end\s*$", text, re.MULTILINE):
                    program, text = text[: end.end()], text[end.end() :].lstrip("\n")
                    self.robot.upload(program)
        writer.close()

    async def _serve_dashboard(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"Connected: Universal Robots Dashboard Server\n")
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                question = line.decode("utf-8", "replace").strip()
                await asyncio.sleep(self._dashboard_delay)
                writer.write(self.dashboard(question).encode() + b"\n")
                await writer.drain()
        writer.close()

    def dashboard(self, question: str) -> str:
        """The dashboard server's answer to one line."""
        robot, asked = self.robot, question.lower()
        running = robot.runtime == PLAYING
        if asked == "stop":
            robot.halt("dashboard stop")
            return "Stopped"
        if asked == "unlock protective stop":
            return robot.unlock()
        version = "{}.{}.{}.{}".format(*self.version)
        names = {1: "NORMAL", 3: "PROTECTIVE_STOP", 7: "ROBOT_EMERGENCY_STOP"}
        safety = names.get(robot.safety, "NORMAL")
        answers = {
            "polyscopeversion": f"URSoftware {version} (Jan 01 2024)",
            "get serial number": "2017355000",
            "get robot model": self._name,
            "is in remote control": str(self.remote_control).lower(),
            "robotmode": "Robotmode: " + {7: "RUNNING", 5: "IDLE"}.get(robot.mode, "POWER_OFF"),
            "safetymode": f"Safetymode: {safety}",
            "safetystatus": f"Safetystatus: {safety}",
            "running": f"Program running: {str(running).lower()}",
            "programstate": ("PLAYING" if running else "STOPPED") + " rtde_control",
            "close safety popup": "closing safety popup",
            "play": "Failed to execute: play",
        }
        return answers.get(asked, f'could not understand: "{question}"')

    def drop(self) -> int:
        """Close every RTDE connection."""
        now = self.log.add("drop")
        for writer in list(self._sessions):
            writer.transport.abort()
        return now

    async def refuse(self, seconds: float) -> int:
        """The controller is gone: connections closed and refused for a while."""
        now = self.log.add("refuse", seconds=seconds)
        for server in self._servers:
            server.close()
        self._servers = []
        self.drop()

        async def come_back() -> None:
            await asyncio.sleep(seconds)
            await self.open()
            self.log.add("back")

        self._return = asyncio.ensure_future(come_back())
        return now

    def freeze(self, on: bool = True) -> int:
        """Stop (or resume) sending data, as with a pulled cable."""
        self.frozen = on
        return self.log.add("freeze", on=on)

    def malformed(self, kind: str) -> int:
        """Send broken bytes to every data session: garbage, short, unknown, or NaN values."""
        frames = {
            "garbage": np.random.default_rng(0).bytes(300),
            "short": struct.pack(">HB", 10, ord("U")) + bytes(7),
            "unknown": rtde.frame("?", b"what"),
            "text": rtde.frame("M", b"\x05hello\x02me\x02"),
        }
        if kind == "nan":
            self._nan_packets = 3
        elif kind not in frames:
            raise ValueError(f"malformed kind {kind!r}; known: nan, {', '.join(frames)}")
        else:
            for writer in self._sessions:
                writer.write(frames[kind])
        return self.log.add("malformed", what=kind)

    def reset(self) -> None:
        """Everything in order again: no faults, robot running at its start, empty log."""
        self.frozen = self.inputs_in_use = False
        self.remote_control, self._nan_packets = True, 0
        self._dashboard_delay = self._data_delay = 0.0
        self.robot.reset()
        self.log.clear()

    def script_starts(self, on: bool) -> None:
        self.robot.script_starts = on

    def fail_ik(self) -> int:
        """The next servo target has no inverse kinematics."""
        self.robot.fail_ik = True
        return self.log.add("fail_ik")

    def speed(self, share: float) -> int:
        """The pendant's speed slider, 0..1: the arm follows its targets more slowly."""
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share}: must lie in 0..1")
        self.robot.speed_share = share
        return self.log.add("speed", share=share)

    def set_inputs_in_use(self, on: bool) -> None:
        self.inputs_in_use = on

    def set_remote_control(self, on: bool) -> None:
        self.remote_control = on

    def slow_dashboard(self, seconds: float) -> int:
        """The dashboard answers that late."""
        self._dashboard_delay = seconds
        return self.log.add("slow_dashboard", seconds=seconds)

    def slow(self, seconds: float = 0.0) -> int:
        """Its data arrive so late, as over a bad network; 0 ends it."""
        if not 0 <= seconds <= 10:
            raise ValueError(f"seconds = {seconds}: must lie in 0..10")
        self._data_delay = seconds
        return self.log.add("slow", seconds=seconds)

    def state(self) -> dict[str, Any]:
        robot = self.robot
        return {
            "runtime": robot.runtime, "safety": robot.safety, "mode": robot.mode,
            "uploads": robot.uploads, "sessions": len(self._sessions),
            "servo_count": robot.servo_count, "target_changed_ns": robot.target_changed_ns,
            "joints": robot.joints.tolist(), "tcp": robot.pose().tolist(),
        }  # fmt: skip

    def trace(self, since_ns: int = 0) -> list[Any]:
        """(time_ns, fastest joint, servo targets so far, TCP xyz, last change of the target in ns)."""
        return [entry for entry in self.robot.trace if entry[0] >= since_ns]

    def handlers(self) -> dict[str, Any]:
        robot = self.robot
        return {
            "drop": self.drop, "refuse": self.refuse, "freeze": self.freeze,
            "malformed": self.malformed, "script_starts": self.script_starts,
            "fail_ik": self.fail_ik, "inputs_in_use": self.set_inputs_in_use,
            "remote_control": self.set_remote_control, "speed": self.speed, "state": self.state,
            "trace": self.trace, "slow": self.slow, "slow_dashboard": self.slow_dashboard, "dashboard": self.dashboard,
            "protective_stop": robot.protective_stop, "emergency_stop": robot.emergency_stop,
            "power": robot.power, "halt": robot.halt, "reset": self.reset,
        }  # fmt: skip


async def run(arguments: argparse.Namespace) -> None:
    controller = Controller(arguments.host, arguments.model, arguments.unlock_delay)
    controller.robot.home = arguments.joints
    controller.robot.reset()
    await controller.open()
    channel = ControlChannel(controller.log, controller.handlers())
    ready = {"host": arguments.host, "model": arguments.model}
    await serve(channel, arguments.control, ready, controller.work, arguments.tied)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="dexpie emulate ur5", description="UR controller emulator (RTDE, dashboard, script)"
    )
    parser.add_argument("--host", default="127.0.0.2", help="loopback address of its own")
    parser.add_argument("--model", choices=sorted(VERSIONS), default="ur5")
    parser.add_argument("--unlock-delay", type=float, default=5.0, help="s after a protective stop")
    parser.add_argument("--joints", type=float, nargs=6, default=HOME, help="rad at the start")
    add_control(parser)
    arguments = parser.parse_args(argv)
    prefer_process()  # a controller has a computer of its own
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
