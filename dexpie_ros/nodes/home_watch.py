"""Notices that nobody carries out a request to move home.

The arbiter answers when the robot has arrived, which may take a minute. An arbiter that ended
meanwhile, or was started anew and knows nothing of the request, never answers; its diagnostics,
once a second, tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from dexpie_ros.nodes.process_watch import PROCESS


class HomeWatch:
    """What the arbiter says of itself."""

    def __init__(self, silence_s: float) -> None:
        """``silence_s``: an arbiter that said nothing for so long is gone."""
        self._silence_s = silence_s
        self._process, self._heard_s = "", 0.0

    def hear(self, status: Any) -> None:
        """Take the arbiter's DiagnosticStatus."""
        self._process = next((v.value for v in status.values if v.key == PROCESS), "")
        self._heard_s = time.monotonic()

    def asked(self) -> Callable[[], str]:
        """A request is made now. What comes back says why it will not be answered any more, or ""."""
        began, process = time.monotonic(), self._process

        def lost() -> str:
            if process and self._process != process:
                return "the arbiter was started anew on the way home; the robot holds where it is"
            silence = time.monotonic() - max(began, self._heard_s)
            if silence > self._silence_s:
                return f"the arbiter is silent for {silence:.0f} s; is it running?"
            return ""

        return lost
