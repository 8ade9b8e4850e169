"""Start an emulator process and talk to its control channel."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from dexpie_ros.realtime import make_ordinary

NAMES = ("ur5", "inspire", "realsense", "vive", "manus")


class EmulatorError(RuntimeError):
    """An emulator that did not start, refused a request or went away."""


class Control:
    """A connection to the control channel of an emulator that runs already."""

    def __init__(self, host: str, port: int, name: str = "", timeout: float = 5.0) -> None:
        self._name = name or f"{host}:{port}"
        try:
            self._link = socket.create_connection((host, port), timeout)
        except OSError as error:
            raise EmulatorError(f"emulator {self._name}: no control channel: {error}") from None
        self._lines = self._link.makefile("rb")

    def ask(self, do: str, **arguments: Any) -> Any:
        """One request over the control channel; EmulatorError when it is refused."""
        self._link.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise EmulatorError(f"emulator {self._name}: went away during {do!r}")
        answer = json.loads(line)
        if not answer["ok"]:
            raise EmulatorError(f"emulator {self._name}: {do}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        self._lines.close()
        self._link.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Emulator:
    """A running emulator; a context manager that never leaves a process behind."""

    def __init__(
        self,
        name: str,
        *arguments: str,
        timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if name not in NAMES:
            raise EmulatorError(f"no emulator {name!r}; there are {', '.join(NAMES)}")
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"dexpie_ros.emulators.{name}", "--tied", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        make_ordinary(self._process.pid)
        try:
            self.ready: dict[str, Any] = self._read_ready(timeout)
            self._control = Control("127.0.0.1", self.ready["control"], name)
        except BaseException:
            self.close()
            raise

    def _read_ready(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline, line = time.monotonic() + timeout, b""
        stdout = self._process.stdout.fileno()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stdout], [], [], left)[0]:
                raise EmulatorError(f"emulator {self.name}: not ready after {timeout} s")
            piece = os.read(stdout, 4096)
            if not piece:
                raise EmulatorError(
                    f"emulator {self.name}: ended with code {self._process.wait()} at its start"
                )
            line += piece
        ready: dict[str, Any] = json.loads(line)
        return ready

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> Any:
        """One request over the control channel; EmulatorError when it is refused."""
        return self._control.ask(do, **arguments)

    def events(self, kind: str = "", since_ns: int = 0) -> list[dict[str, Any]]:
        """Its log; stamps are those of ``time.monotonic_ns`` here as well."""
        events: list[dict[str, Any]] = self.ask("log", kind=kind, since_ns=since_ns)
        return events

    def close(self) -> None:
        """End the process; waits until it is gone."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()  # the end of its stdin tells a tied emulator to end
        control = getattr(self, "_control", None)
        if control is not None:
            control.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
