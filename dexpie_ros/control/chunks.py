"""Execution of action chunks by absolute time (paper, asynchronous inference).

Every action of a chunk carries the time at which it is due. At a control step the action due then
is executed, whatever happened before: a chunk that comes late loses exactly the actions whose time
has passed, and a chunk that ran out yields nothing, so that the caller holds. Nothing here waits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from dexpie_ros.control.quaternions import distance_and_angle
from dexpie_ros.control.types import STEP_NS, Chunk, Command
from dexpie_ros.geometry import Array


@dataclass(frozen=True)
class Seam:
    """Difference between the new and the old chunk's action at the step of the switch.

    With an exact future-state-referenced prefix it is the policy's own change of mind, and zero
    where the switch falls on a prefix action.
    """

    time_ns: int
    distance: float
    """m"""
    angle: float
    """rad"""
    hand: float
    """largest difference of an opening"""


@dataclass(frozen=True, eq=False)
class Steps:
    """Differences from one action to the next: m, rad, largest of the openings; (K,) each."""

    distance: Array
    angle: Array
    hand: Array


@dataclass
class ChunkStatistics:
    """What happened to the chunks since the last reset."""

    accepted: int = 0
    """Chunks that took over."""
    outdated: int = 0
    """Chunks refused because a newer observation's chunk is already executing."""
    expired: int = 0
    """Chunks refused because all their actions' time had passed."""
    trimmed: int = 0
    """Actions whose time had passed when their chunk came, prefixes included."""
    late: int = 0
    """Of those, actions behind the prefix: what the policy planned and nobody executed."""
    seams: deque[Seam] = field(default_factory=lambda: deque(maxlen=1000))
    entries: deque[Steps] = field(default_factory=lambda: deque(maxlen=200))
    """The step (K = 1) onto the first action that a chunk planned freely: from the last of its
    prefix, or from the old chunk's action where that has passed already."""
    inside: deque[Steps] = field(default_factory=lambda: deque(maxlen=200))
    """The steps between the actions after it: what the entry must not stand out from."""

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for an episode's record; largest seam in m, rad and opening."""
        return {
            "chunks": self.accepted,
            "chunks_outdated": self.outdated,
            "chunks_expired": self.expired,
            "actions_trimmed": self.trimmed,
            "actions_late": self.late,
            "seam_distance_max": max((s.distance for s in self.seams), default=0.0),
            "seam_angle_max": max((s.angle for s in self.seams), default=0.0),
            "seam_hand_max": max((s.hand for s in self.seams), default=0.0),
            **_percentiles("seam_step", self.entries),
            **_percentiles("chunk_step", self.inside),
        }


def _percentiles(name: str, steps: deque[Steps]) -> dict[str, float]:
    """95th percentiles, in mm, degrees and opening."""
    units = (("distance", "mm", 1e3), ("angle", "deg", 180.0 / np.pi), ("hand", "opening", 1.0))
    out = {}
    for part, unit, factor in units:
        values = [getattr(s, part) for s in steps]
        p95 = np.percentile(np.concatenate(values), 95) if values else 0.0
        out[f"{name}_{unit}_p95"] = factor * float(p95)
    return out


def check_chunk(chunk: Chunk) -> str:
    """Why ``chunk`` must not be executed, or an empty string."""
    length = len(chunk)
    shapes = (chunk.positions.shape, chunk.quaternions.shape, chunk.hand.shape)
    if length == 0 or shapes != ((length, 3), (length, 4), (length, 6)):
        return f"positions, quaternions, hand have the shapes {shapes}; expected (H, 3), (H, 4), (H, 6)"
    if chunk.step_ns <= 0:
        return f"step_ns is {chunk.step_ns}; expected the ns between two actions"
    if not 0 <= chunk.prefix_length <= length:
        return f"prefix_length is {chunk.prefix_length} in a chunk of {length}"
    for name, values in (
        ("positions", chunk.positions),
        ("quaternions", chunk.quaternions),
        ("hand", chunk.hand),
    ):
        if not np.isfinite(values).all():
            return f"{name} holds NaN or infinity"
    if np.any(np.abs(np.linalg.norm(chunk.quaternions, axis=1) - 1.0) > 1e-3):
        return "a quaternion is not of unit length"
    return ""


class ChunkExecutor:
    """Executes the newest chunk; one object for the ROS graph and for lockstep.

    When a fresh one is wanted is decided by `policy.AsyncPolicy`, from ``remaining``.
    """

    def __init__(self) -> None:
        self.statistics = ChunkStatistics()
        self._chunk: Chunk | None = None
        self._now_ns: int | None = None

    @property
    def chunk(self) -> Chunk | None:
        """The executing chunk."""
        return self._chunk

    def add(self, chunk: Chunk, record_seam: bool = True) -> bool:
        """Let ``chunk`` take over from the next step on; False where it comes too late for that.

        ``record_seam`` False keeps the switch out of the seam statistics (nobody executes it).
        Raises ValueError on a chunk that could not be executed.
        """
        problem = check_chunk(chunk)
        if problem:
            raise ValueError(f"action chunk of policy {chunk.policy_id!r}: {problem}")
        if self._chunk is not None and chunk.time_ns < self._chunk.time_ns:
            self.statistics.outdated += 1
            return False
        past = 0 if self._now_ns is None else max(0, chunk.index_at(self._now_ns))
        self.statistics.trimmed += min(past, len(chunk))
        self.statistics.late += max(0, min(past, len(chunk)) - chunk.prefix_length)
        if past >= len(chunk):
            self.statistics.expired += 1
            return False
        if record_seam and self._now_ns is not None:
            self._record_seam(chunk, self._now_ns)
            self._record_steps(chunk, past, self._now_ns)
        self._chunk = chunk
        self.statistics.accepted += 1
        return True

    def command(self, time_ns: int) -> Command | None:
        """The action due at this step, or None where there is none: the caller holds."""
        self._now_ns = time_ns + STEP_NS
        return self._at(self._chunk, time_ns)

    def upcoming(self, time_ns: int, n: int) -> tuple[Command, ...]:
        """The actions due at ``time_ns`` and the steps after it: at most ``n``, fewer at the end."""
        found: list[Command] = []
        for k in range(n):
            command = self._at(self._chunk, time_ns + k * STEP_NS)
            if command is None:
                break
            found.append(command)
        return tuple(found)

    def remaining(self, time_ns: int) -> int:
        """Actions of the executing chunk that are due at ``time_ns`` or later."""
        if self._chunk is None:
            return 0
        return max(0, len(self._chunk) - max(0, self._chunk.index_at(time_ns)))

    def clear(self) -> None:
        """Forget the executing chunk; statistics stay."""
        self._chunk = None

    def reset(self) -> None:
        """Forget the chunk and the statistics: a new episode begins."""
        self._chunk = None
        self._now_ns = None
        self.statistics = ChunkStatistics()

    @staticmethod
    def _at(chunk: Chunk | None, time_ns: int) -> Command | None:
        if chunk is None:
            return None
        index = chunk.index_at(time_ns)
        return chunk.command(index) if 0 <= index < len(chunk) else None

    def _record_seam(self, new: Chunk, time_ns: int) -> None:
        before, after = self._at(self._chunk, time_ns), self._at(new, time_ns)
        if before is None or after is None:
            return
        distance, angle = distance_and_angle(before.tcp, after.tcp)
        hand = float(np.max(np.abs(after.hand - before.hand)))
        self.statistics.seams.append(Seam(time_ns, distance, angle, hand))

    def _record_steps(self, new: Chunk, past: int, time_ns: int) -> None:
        """Steps onto and between the free actions of ``new`` from index ``past`` (due at ``time_ns``)."""
        first = max(past, new.prefix_length)
        if first >= len(new):
            return
        positions, quaternions, hand = (
            values[first:] for values in (new.positions, new.quaternions, new.hand)
        )
        if past < first:
            before: Command | None = new.command(first - 1)
        else:
            before = self._at(self._chunk, time_ns - STEP_NS)
        if before is not None:
            after = new.command(first)
            distance, angle = distance_and_angle(before.tcp, after.tcp)
            change = np.abs(after.hand - before.hand).max()
            one = (np.array([float(value)]) for value in (distance, angle, change))
            self.statistics.entries.append(Steps(*one))
        if len(positions) > 1:
            cosine = np.abs(np.sum(quaternions[1:] * quaternions[:-1], axis=1))
            self.statistics.inside.append(
                Steps(
                    np.linalg.norm(np.diff(positions, axis=0), axis=1),
                    2.0 * np.arccos(np.minimum(cosine, 1.0)),
                    np.abs(np.diff(hand, axis=0)).max(axis=1),
                )
            )
