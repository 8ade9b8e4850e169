"""The keyboard node behind a pseudo terminal, as a person or an ssh connection would have it."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

_STYLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


class PtyKeyboard:
    """Types keys, reads the screen; use as a context manager."""

    def __init__(self, log: Path) -> None:
        self.master, self._slave = pty.openpty()
        ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
        self.before = termios.tcgetattr(self._slave)
        self._text = ""
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dexpie_ros.nodes.keyboard"],
                stdin=self._slave, stdout=self._slave, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> PtyKeyboard:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def screen(self) -> str:
        """The newest whole screen."""
        while select.select([self.master], [], [], 0)[0]:
            self._text = (self._text + os.read(self.master, 65536).decode(errors="replace"))[
                -50000:
            ]
        screens = self._text.split("\x1b[H")
        whole = [s for s in screens if s.rstrip().endswith("\x1b[J")]
        return _STYLE.sub("", whole[-1]) if whole else ""

    @property
    def raw(self) -> bool:
        """Whether keys arrive one by one."""
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    @property
    def restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def wait(self, timeout: float = 60.0) -> int:
        """Exit status; reads on, so that the process is never blocked by a full terminal."""
        end = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < end:
            self.screen()
            time.sleep(0.02)
        return self.process.wait(10)
