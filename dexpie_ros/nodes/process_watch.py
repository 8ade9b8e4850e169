"""Whether another node's process has ended, known at once where it runs on the same machine.

A node that is killed says nothing more, and DDS lists it for another 20 s. The kernel knows it at
once: a pidfd can be read from when its process has ended. Elsewhere (another machine or container,
no pidfds) nothing is known, and only silence tells.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

PROCESS = "process"
"""Key of a status' value."""


def own_process() -> str:
    """This process, for a status: its number, and where that number means it."""
    return f"{os.getpid()} {_place()}"


def _place() -> str:
    """The running kernel and the numbering of processes that this one sees."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


class ProcessWatch:
    """The newest process of each of some nodes."""

    def __init__(self) -> None:
        self._place = _place()
        self._open: dict[str, tuple[str, int]] = {}
        """What the node said of its process, and the pidfd; -1 where that is not known here."""

    def close(self) -> None:
        for _, fd in self._open.values():
            if fd >= 0:
                os.close(fd)
        self._open.clear()

    def said(self, node: str, process: str) -> None:
        """A status of ``node`` came with what :func:`own_process` gives there."""
        before, fd = self._open.get(node, ("", -1))
        if process == before:
            return
        if fd >= 0:
            os.close(fd)
        number, _, place = process.partition(" ")
        fd = -1
        if place == self._place != "unknown" and number.isdigit():
            try:
                fd = os.pidfd_open(int(number))
            except (OSError, AttributeError):  # gone already; or an old kernel, or not Linux
                fd = -1
        self._open[node] = process, fd

    def ended(self) -> list[str]:
        """Nodes whose process has ended since; each is told once."""
        poll = select.poll()
        for _, fd in self._open.values():
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(0)}
        nodes = [node for node, (_, fd) in self._open.items() if fd in ready]
        for node in nodes:
            process, fd = self._open[node]
            os.close(fd)
            self._open[node] = process, -1
        return nodes
