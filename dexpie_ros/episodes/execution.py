"""The commands of a recording, made ready to be executed again: `dexpie episodes replay --execute`.

They go to the arbiter as action chunks, like a policy's, so that every limit and the operator's
right to take over hold for them too. Before them comes a slow approach to the first pose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from dexpie_ros import config, geometry
from dexpie_ros.control.types import STEP_NS, Chunk, Command, ControlStep, Mode, Source
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.geometry import Pose

POLICY_ID = "replay"
"""In the place of a policy's, where a recording drives."""


@config.config
class ApproachConfig:
    """How fast the robot goes to where the recording begins."""

    speed: float = Field(0.05, gt=0)
    """m/s"""
    turn: float = Field(0.3, gt=0)
    """rad/s"""
    hand: float = Field(0.5, gt=0)
    """openings per second"""


def recorded_commands(episode: Episode) -> list[Command]:
    """The executed commands, one per control step. EpisodeError where one was lost: what the robot
    did there is not known, and a guess is not sent to a robot.
    """
    lost = np.flatnonzero(~np.isfinite(episode.command_hand).all(axis=1))
    if len(lost) or not len(episode):
        raise EpisodeError(
            f"{episode.path}: the commands of {len(lost)} of {len(episode)} steps are lost (first at "
            f"step {lost[0] if len(lost) else 0}); this recording cannot be executed"
        )
    return [
        Command(Pose.from_matrix(tcp), hand.copy())
        for tcp, hand in zip(episode.command_tcp, episode.command_hand)
    ]


def approach(now: Command, goal: Command, settings: ApproachConfig | None = None) -> list[Command]:
    """Commands from ``now`` (excluded) to ``goal`` (included), evenly, within the speeds."""
    settings = settings or ApproachConfig()
    a, b = now.tcp.matrix(), goal.tcp.matrix()
    seconds = max(
        float(np.linalg.norm(b[:3, 3] - a[:3, 3])) / settings.speed,
        float(geometry.rotation_angle(a[:3, :3], b[:3, :3])) / settings.turn,
        float(np.abs(goal.hand - now.hand).max()) / settings.hand,
    )
    steps = math.ceil(seconds * 1e9 / STEP_NS - 1e-9)
    between = [
        Command(
            Pose.from_matrix(geometry.interpolate(a, b, k / steps)),
            now.hand + (goal.hand - now.hand) * (k / steps),
        )
        for k in range(1, steps)
    ]
    return [*between, goal] if steps else []


@dataclass
class Deviation:
    """By how much executed commands differed from the recorded ones at most: what limits changed."""

    position: float = 0.0
    """m"""
    turn: float = 0.0
    """rad"""
    hand: float = 0.0
    """openings"""

    def note(self, command: Command, recorded: Command) -> None:
        a, b = command.tcp.matrix(), recorded.tcp.matrix()
        self.position = max(self.position, float(np.linalg.norm(a[:3, 3] - b[:3, 3])))
        self.turn = max(self.turn, float(geometry.rotation_angle(a[:3, :3], b[:3, :3])))
        self.hand = max(self.hand, float(np.abs(command.hand - recorded.hand).max()))

    def __str__(self) -> str:
        return (
            f"{1e3 * self.position:.1f} mm, {math.degrees(self.turn):.1f} degrees and "
            f"{self.hand:.2f} of an opening"
        )


class Execution:
    """Answers control steps with chunks of a recording, as a policy server would.

    Stands still for ``lead`` steps (a chunk needs time to take effect), approaches the first
    command slowly, then goes on at the recorded speed. Where the arbiter held for want of a chunk,
    it goes on from there in the same careful way. It ends for good when anybody or anything but the
    recording drives: nothing is sent after a takeover, a hold or a fault.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        settings: ApproachConfig | None = None,
        *,
        size: int = 32,
        horizon: int = 20,
        lead: int = 8,
    ) -> None:
        if not lead <= size - horizon < size:
            raise ValueError(f"size {size} must exceed horizon {horizon} by at least lead {lead}")
        self.stopped = ""
        """Why it ended before its end; empty: it did not."""
        self.deviation = Deviation()
        self._commands, self._settings = list(commands), settings
        self._size, self._horizon, self._lead = size, horizon, lead
        self._executed = 0
        self._way: list[Command] = []
        self._way_ns = 0
        self._planned_row = 0

    def __len__(self) -> int:
        return len(self._commands)

    @property
    def begun(self) -> bool:
        return bool(self._way)

    @property
    def executed(self) -> int:
        """Recorded commands that have been executed."""
        return self._executed

    @property
    def done(self) -> bool:
        """Every recorded command has been executed."""
        return self._executed == len(self._commands)

    def answer(self, step: ControlStep) -> Chunk | None:
        """What is to be executed from ``step`` on, where the arbiter has to be told."""
        if self.stopped or self.done:
            return None
        if step.mode is not Mode.POLICY:
            if self.begun:
                self.stopped = f"the arbiter went to {step.mode.name}"
            return None
        if not self.begun:
            return self._plan(step)
        row = round((step.time_ns - self._way_ns) / STEP_NS)
        if step.source is not Source.POLICY:
            return self._plan(step) if row >= self._lead else None
        self._note(step.command, row)
        if self.done or row - self._planned_row < self._horizon:
            return None
        self._planned_row = row
        return self._chunk(step.time_ns, row, self._size - self._horizon)

    def _plan(self, step: ControlStep) -> Chunk:
        """From where the robot is held to the next command that was not executed, and on."""
        rest = self._commands[self._executed :]
        way = approach(step.command, rest[0], self._settings) or [rest[0]]
        self._way = [step.command] * self._lead + way[:-1] + rest
        self._way_ns, self._planned_row = step.time_ns, 0
        return self._chunk(step.time_ns, 0, self._lead)

    def _note(self, command: Command, row: int) -> None:
        index = len(self._commands) - len(self._way) + row
        if not self._executed <= index < len(self._commands):
            return
        self._executed = index + 1
        self.deviation.note(command, self._commands[index])

    def _chunk(self, time_ns: int, row: int, prefix: int) -> Chunk:
        rows = self._way[row : row + self._size]
        return Chunk(
            time_ns=time_ns,
            positions=np.stack([command.tcp.position for command in rows]),
            quaternions=np.stack([command.tcp.quaternion for command in rows]),
            hand=np.stack([command.hand for command in rows]),
            prefix_length=min(prefix, len(rows)),
            policy_id=POLICY_ID,
        )
