"""The operator's motion, anchored where they took over (paper, human-as-follower).

    T_ee(t) = T_cmd(t0) F(t0)^-1 F(t)

with F(t) = T_v(t) X the follower in the tracker's own world and T_cmd(t0) the last command, so that
nothing jumps. The hand goes from its last command to the retargeted glove on a smooth curve.
"""

from __future__ import annotations

from dataclasses import dataclass

from dexpie_ros.control.quaternions import blend, compose, inverse
from dexpie_ros.control.types import Command
from dexpie_ros.geometry import Array, Pose


@dataclass(frozen=True, eq=False)
class Goal:
    """What the operator asks for at one step."""

    human: Command
    """anchored pose and the glove's own openings"""
    executed: Command
    """the same with the hand (and in absolute mode the pose) still blending in"""
    blending: bool


def wrong_frame(follow: str, frame: str) -> str:
    """Why a follower given in ``frame`` must not be followed, or "".

    Relative motion is the same in any world; a pose to go to must be one in `base`.
    """
    if follow == "absolute" and frame != "base":
        return (
            f"absolute mode, but /teleop/command is in {frame!r}, not in 'base': nobody is followed; "
            "set follow: absolute for teleop as well"
        )
    return ""


def smoothstep(s: float) -> float:
    """0 .. 1 with zero slope at both ends."""
    s = min(max(s, 0.0), 1.0)
    return s * s * (3.0 - 2.0 * s)


class Takeover:
    """Anchor of one takeover; :meth:`reset` lets the next goal be anchored anew."""

    def __init__(
        self, blend_seconds: float, reanchor_seconds: float, approach_seconds: float | None = None
    ) -> None:
        self._blend_ns = round(blend_seconds * 1e9)
        self._reanchor_ns = round(reanchor_seconds * 1e9)
        self._approach_ns = None if approach_seconds is None else round(approach_seconds * 1e9)
        self._anchor: Pose | None = None
        self._hand: Array | None = None
        self._start_ns = 0
        self._seen_ns = 0

    def reset(self) -> None:
        """Forget the anchor."""
        self._anchor = None

    def goal(self, time_ns: int, follower: Command, last: Command) -> Goal:
        """The goal at ``time_ns``; ``last`` is the last command, the anchor of a new takeover.

        After a silence of more than ``reanchor_seconds`` the operator is anchored anew: where his
        hand went meanwhile is not where the robot should go.
        """
        if self._anchor is not None and time_ns - self._seen_ns > self._reanchor_ns:
            self._anchor = None
        if self._anchor is None or self._hand is None:
            self._anchor = compose(last.tcp, inverse(follower.tcp))
            self._hand = last.hand
            self._start_ns = time_ns
        self._seen_ns = time_ns
        elapsed = time_ns - self._start_ns
        tcp = wanted = compose(self._anchor, follower.tcp)
        approaching = False
        if self._approach_ns is not None:
            wanted = follower.tcp
            share = smoothstep(elapsed / self._approach_ns)
            approaching = share < 1.0
            tcp = blend(tcp, follower.tcp, share) if approaching else follower.tcp
        human = Command(wanted, follower.hand)
        if elapsed < self._blend_ns:
            share = smoothstep(elapsed / self._blend_ns)
            hand = self._hand + share * (follower.hand - self._hand)
            return Goal(human, Command(tcp, hand), True)
        return Goal(human, Command(tcp, follower.hand), approaching)
