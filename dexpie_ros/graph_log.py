"""Where the merged lines of a graph's processes go."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

Log = Callable[[str, str], None]
"""Called with the name of a node (or ``launch``) and one line without its end."""


def describe(code: int | None) -> str:
    """Exit code of a shell in words."""
    if code is None:
        return "still running"
    if code > 128:
        try:
            return f"exit code {code}, {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"exit code {code}"


def console_log(width: int = 0) -> Log:
    """Print lines with the node's name in front, padded to ``width``."""

    def log(name: str, line: str) -> None:
        print(f"{f'[{name}]':{width + 2}} {line}", flush=True)

    return log


class FileLog:
    """Appends lines with local time and name to ``path``, opened at once; passes them on to ``also``."""

    def __init__(self, path: str | Path, also: Log | None = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = file.open("a", encoding="utf-8", buffering=1)
        self._also = also

    def __call__(self, name: str, line: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} [{name}] {line}\n")
        if self._also is not None:
            self._also(name, line)

    def close(self) -> None:
        """Close the file; what could not be written has been reported before."""
        with contextlib.suppress(OSError):
            self._stream.close()
