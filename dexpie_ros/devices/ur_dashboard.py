"""The UR dashboard server: lines of text on port 29999, with timeouts on everything.

Plain sockets rather than ur_rtde's DashboardClient, because its constructor and connect hold the
GIL for as long as the kernel tries to reach an absent host.
"""

from __future__ import annotations

import socket

PORT = 29999


class DashboardError(RuntimeError):
    """The dashboard cannot be reached or did not answer."""


def ask(host: str, question: str, timeout: float = 1.0) -> str:
    """One question on a connection of its own; the answer line without its end."""
    try:
        with socket.create_connection((host, PORT), timeout) as link:
            link.settimeout(timeout)
            lines = link.makefile("rb")
            if not lines.readline(1000):
                raise DashboardError(f"dashboard {host}:{PORT}: closed before its greeting")
            link.sendall(question.encode() + b"\n")
            answer = lines.readline(1000)
    except OSError as error:
        raise DashboardError(f"dashboard {host}:{PORT}: {error}; is the robot on?") from None
    if not answer:
        raise DashboardError(f"dashboard {host}:{PORT}: no answer to {question!r}")
    return answer.decode("utf-8", "replace").strip()


def reachable(host: str, port: int, timeout: float) -> str:
    """Empty when a TCP port accepts a connection, else why not."""
    try:
        with socket.create_connection((host, port), timeout):
            return ""
    except OSError as error:
        return f"{host}:{port}: {error}"
