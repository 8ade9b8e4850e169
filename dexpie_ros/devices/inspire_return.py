"""How a hand that was away comes to what it is commanded, without a person being surprised.

While its line is away the arbiter holds and goes on saying its last command. A hand that lost its power
meanwhile may be anywhere, and would snap there at full speed beside a person who looks at its plug.
"""

from __future__ import annotations

import numpy as np

from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

APART = 0.1
"""Opening by which a finger may be away from its command and go there at once."""
SPEED = 0.5
"""Openings per s at which it goes from further away, once it is commanded something new."""


class Return:
    """From where the fingers are to the command: not before it changes, and then slowly."""

    def __init__(self, kept: Array) -> None:
        """``kept`` (6,): what was commanded when the hand came back."""
        self._kept = kept
        self._sent: Array | None = None
        self._then = 0.0
        self.done = False
        self.said = ""
        """What a status says of it."""

    def next(self, wanted: Array, measured: Array, now: float) -> Array:
        """What to write at ``now`` (s); NaN leaves a finger alone, as in ``wanted``."""
        goal = np.clip(wanted, 0.0, 1.0)
        if self._sent is None:
            start = np.clip(measured, 0.0, 1.0)
            apart = np.nan_to_num(np.abs(goal - start))
            if apart.max() <= APART:
                return self._end(wanted)
            if np.array_equal(wanted, self._kept, equal_nan=True):
                worst = int(np.argmax(apart))
                self.said = (
                    f"came back elsewhere than commanded ({HAND_JOINTS[worst]} by "
                    f"{apart[worst]:.2f}): holds until the command changes"
                )
                return np.full(6, np.nan)
            self._sent, self._then = start, now
            self.said = "moves slowly from where it came back to what is commanded"
        reach, self._then = SPEED * (now - self._then), now
        self._sent = self._sent + np.clip(np.nan_to_num(goal - self._sent), -reach, reach)
        if not np.nan_to_num(goal - self._sent).any():
            return self._end(wanted)
        return np.where(np.isnan(wanted), np.nan, self._sent)

    def _end(self, wanted: Array) -> Array:
        self.done, self.said = True, ""
        return wanted
