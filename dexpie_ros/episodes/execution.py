"""The commands of a recording, made ready to be executed again: `dexpie episodes replay --execute`.

They go to the arbiter as action chunks, like a policy's, so that every limit and the operator's
right to take over hold for them too. Before them comes a slow approach to the first pose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from dexpie_ros import config, geometry
from dexpie_ros.control.types import STEP_NS, Chunk, Command
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.geometry import Pose

POLICY_ID = "replay"


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


def as_chunks(
    commands: Sequence[Command], start_ns: int, size: int = 24, overlap: int = 4
) -> list[Chunk]:
    """Chunks of ``size`` actions, command 0 due at ``start_ns``.

    Each begins ``overlap`` steps before the end of the one before it, with the same commands: there
    is that much time to hand it over. A chunk must not be handed over before its own time.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap {overlap} must be smaller than size {size}")
    positions = np.stack([command.tcp.position for command in commands])
    quaternions = np.stack([command.tcp.quaternion for command in commands])
    hand = np.stack([command.hand for command in commands])
    chunks = []
    for first in range(0, max(1, len(commands) - overlap), size - overlap):
        rows = slice(first, first + size)
        chunks.append(
            Chunk(
                time_ns=start_ns + first * STEP_NS,
                positions=positions[rows],
                quaternions=quaternions[rows],
                hand=hand[rows],
                prefix_length=overlap if first else 0,
                policy_id=POLICY_ID,
            )
        )
    return chunks
