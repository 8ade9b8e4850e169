"""A terminal taken over for single keys and a redrawn screen, and given back as it was."""

from __future__ import annotations

import atexit
import os
import select
import sys
import termios
from collections.abc import Sequence

from dexpie_ros.config import ConfigError

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"


class TerminalGone(RuntimeError):
    """The other end hung up."""


class Terminal:
    """Keys arrive as they are pressed, Ctrl-C too; works the same over ssh.

    ConfigError where standard input or output is none.
    """

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        if not (os.isatty(self._in) and os.isatty(self._out)):
            raise ConfigError(
                "keyboard: needs a terminal of its own; start it there, not from a launch file: "
                "ros2 run dexpie_ros dexpie-keyboard"
            )
        self._before: list | None = termios.tcgetattr(self._in)
        mode = termios.tcgetattr(self._in)
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSADRAIN, mode)
        atexit.register(self.close)
        self._write(_ENTER)

    def close(self) -> None:
        """Give the terminal back; may be called again."""
        before, self._before = self._before, None
        if before is None:
            return
        atexit.unregister(self.close)
        try:
            self._write(_LEAVE)
            termios.tcsetattr(self._in, termios.TCSAFLUSH, before)
        except (OSError, termios.error, TerminalGone):
            pass  # there is no terminal any more

    def read(self) -> bytes:
        """What has been typed since; does not wait."""
        ready, _, _ = select.select([self._in], [], [], 0)
        if not ready:
            return b""
        try:
            data = os.read(self._in, 1024)
        except OSError as error:
            raise TerminalGone(str(error)) from None
        if not data:
            raise TerminalGone("end of input")
        return data

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        try:
            return os.get_terminal_size(self._out)
        except OSError:
            return 80, 24

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what is on the screen."""
        _, rows = self.size()
        shown = "".join(f"{line}\x1b[K\n" for line in lines[: max(1, rows - 1)])
        self._write(f"\x1b[H{shown}\x1b[J")

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            raise TerminalGone(str(error)) from None
