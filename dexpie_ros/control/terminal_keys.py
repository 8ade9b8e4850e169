"""Bytes of a terminal -> keys, whole escape sequences at a time.

The escape key is the emergency stop, and it is also how arrow and function keys begin. So an escape
counts as a key only when nothing that could be a sequence follows it in time; sequences as such are
bound to nothing and dropped. Where it is unclear, it was the escape key: that side is the safe one.
"""

from __future__ import annotations

import codecs
import re

ESCAPE = "\x1b"
_WHOLE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_BEGINNING = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")


class KeyParser:
    """Keeps the beginning of a sequence until its end arrives, or ``escape_ns`` are over."""

    def __init__(self, escape_ns: int = 100_000_000) -> None:
        """A slow line may tear a sequence apart by up to ``escape_ns``."""
        self._escape_ns = escape_ns
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._rest = ""
        self._since_ns = 0

    def feed(self, data: bytes, now_ns: int) -> list[str]:
        """Keys that are complete with ``data``, read at ``now_ns`` (any monotonic clock)."""
        found = self.idle(now_ns)
        self._rest += self._decoder.decode(data)
        while self._rest:
            whole = _WHOLE.match(self._rest)
            if whole:
                self._rest = self._rest[whole.end() :]
            elif _BEGINNING.match(self._rest):
                self._since_ns = now_ns
                break
            else:
                found.append(self._rest[0])
                self._rest = self._rest[1:]
        return found

    def idle(self, now_ns: int) -> list[str]:
        """Nothing came until ``now_ns``: a lone escape has become a key."""
        if not self._rest or now_ns - self._since_ns < self._escape_ns:
            return []
        rest, self._rest = self._rest, ""
        return list(rest)
