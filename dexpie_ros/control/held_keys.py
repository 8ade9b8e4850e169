"""A key that is held down, or a pedal that bounces, asks once.

A terminal knows no key being let go of: one that is held down sends its byte again and again, first
after a pause and then about 25 times a second. For a key that takes over and gives back, each of
them would be the opposite of the one before.
"""

from __future__ import annotations

from dexpie_ros.control.keys import Action

NOT_TWICE = frozenset(
    {
        Action.TOGGLE, Action.CLUTCH, Action.START, Action.NEXT_STAGE, Action.MARK_STAGE,
        Action.FAILURE,
    }
)  # fmt: skip
"""What is something else when it is asked for twice. The others may be hammered on, and the stop is
among them."""

BOUNCE_NS = 300_000_000
"""A contact bounces for some 10 ms, and nobody steps on a pedal three times a second."""


class HeldKeys:
    """Remembers when each of those actions was asked for last; times of any monotonic clock."""

    def __init__(self, quiet_ns: int = BOUNCE_NS) -> None:
        """``quiet_ns`` without the same action and it counts again."""
        self._quiet_ns = quiet_ns
        self._last_ns: dict[Action, int] = {}

    def counts(self, action: Action, now_ns: int) -> bool:
        """Whether this is a request of its own and not more of the last one."""
        if action not in NOT_TWICE:
            return True
        last = self._last_ns.get(action)
        self._last_ns[action] = now_ns
        return last is None or now_ns - last >= self._quiet_ns
