"""The UR dashboard server: lines of text on port 29999, with timeouts on everything.

Plain sockets rather than ur_rtde's DashboardClient, because its constructor and connect hold the
GIL for as long as the kernel tries to reach an absent host.
"""

from __future__ import annotations

import socket
import time

PORT = 29999
LONGEST = 1000
"""Bytes of a line; no answer is longer."""


class DashboardError(RuntimeError):
    """The dashboard cannot be reached or did not answer."""


def ask(host: str, question: str, timeout: float = 1.0) -> str:
    """One question on a connection of its own; the answer line without its end.

    ``timeout`` s each for the connection, the greeting and the answer, however slowly they trickle.
    """
    try:
        with socket.create_connection((host, PORT), timeout) as link:
            waiting = bytearray()
            if not _line(link, waiting, timeout):
                raise DashboardError(f"dashboard {host}:{PORT}: closed before its greeting")
            link.sendall(question.encode() + b"\n")
            answer = _line(link, waiting, timeout)
    except OSError as error:
        raise DashboardError(f"dashboard {host}:{PORT}: {error}; is the robot on?") from None
    if not answer:
        raise DashboardError(f"dashboard {host}:{PORT}: no answer to {question!r}")
    return answer.decode("utf-8", "replace").strip()


def _line(link: socket.socket, waiting: bytearray, timeout: float) -> bytes:
    """The next line, or what there is of it at the end or at ``LONGEST``."""
    deadline = time.monotonic() + timeout
    while b"\n" not in waiting and len(waiting) < LONGEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        link.settimeout(left)
        piece = link.recv(LONGEST)
        if not piece:
            break
        waiting += piece
    end = min(waiting.find(b"\n") + 1 or len(waiting), LONGEST)
    line = bytes(waiting[:end])
    del waiting[:end]
    return line


def reachable(host: str, port: int, timeout: float) -> str:
    """Empty when a TCP port accepts a connection, else why not."""
    try:
        with socket.create_connection((host, port), timeout):
            return ""
    except OSError as error:
        return f"{host}:{port}: {error}"
