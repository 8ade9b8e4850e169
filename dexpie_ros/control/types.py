"""What flows around the control loop: plain values, no ROS, no torch.

Everything here has a message twin in ``dexpie_msgs`` or a standard package; `dexpie_ros.messages`
converts without loss, so a step computed in lockstep and one computed on the graph are equal bit
for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.geometry import Array, Pose

CONTROL_RATE_HZ = 25
STEP_NS = 40_000_000
"""One control step: 40 ms (25 Hz)."""

ARM_JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)
HAND_JOINTS = ("little", "ring", "middle", "index", "thumb_bend", "thumb_rotation")
"""The Inspire hand's own order; openings are 0 closed .. 1 open."""

Kind = Literal["demonstration", "deployment", "correction", "evaluation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Of episodes; all but a demonstration have a policy."""


class Source(IntEnum):
    """Who decided the executed command."""

    HOLD = 0
    POLICY = 1
    HUMAN = 2
    BLEND = 3


class Mode(IntEnum):
    """State of the intervention arbiter."""

    HOLD = 0
    POLICY = 1
    ALIGNING = 2
    HUMAN = 3
    HANDING_BACK = 4
    FAULT = 5


@dataclass(frozen=True, eq=False)
class Command:
    """Where the TCP and the fingers shall be: pose in ``base``, openings (6,) 0 closed .. 1 open."""

    tcp: Pose
    hand: Array


@dataclass(frozen=True, eq=False)
class RobotState:
    """What was measured at ``time_ns`` (ROS time): joints (6,) rad, TCP in ``base``, openings (6,)."""

    time_ns: int
    joints: Array
    joint_velocities: Array
    tcp: Pose
    hand: Array
    hand_force: Array = field(default_factory=lambda: np.zeros(6))
    """Force at each finger in N."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What a policy may look at, all of it captured at ``time_ns``.

    ``objects`` are named poses in ``base`` that only a simulator knows; ``images`` are uint8
    (height, width, 3) RGB by camera name. Either may be empty.
    """

    time_ns: int
    robot: RobotState
    objects: dict[str, Pose] = field(default_factory=dict)
    images: dict[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Chunk:
    """H commands in absolute poses; command k is due at ``time_ns + k * step_ns``.

    The first ``prefix_length`` of them repeat what was already being executed when the observation
    of ``time_ns`` was taken.
    """

    time_ns: int
    positions: Array
    """(H, 3) m, base frame."""
    quaternions: Array
    """(H, 4) x y z w."""
    hand: Array
    """(H, 6) openings."""
    prefix_length: int = 0
    step_ns: int = STEP_NS
    latency_ns: int = 0
    """From the observation being at hand to the chunk being ready."""
    policy_id: str = ""

    def __len__(self) -> int:
        return len(self.positions)

    def command(self, index: int) -> Command:
        return Command(Pose(self.positions[index], self.quaternions[index]), self.hand[index])

    def due_ns(self, index: int) -> int:
        return self.time_ns + index * self.step_ns

    def index_at(self, time_ns: int) -> int:
        """Index of the action due at ``time_ns`` (nearest step); may lie outside 0..H-1."""
        return round((time_ns - self.time_ns) / self.step_ns)


@dataclass(frozen=True, eq=False)
class ControlStep:
    """One decision of the arbiter, with everything an episode must remember of it."""

    time_ns: int
    tick: int
    """Counts control steps of this arbiter; never goes back."""
    command: Command
    source: Source
    mode: Mode
    proposal: Command | None = None
    """What the policy wanted for this step, whoever drove."""
    human: Command | None = None
    """What the operator's hand asked for at this step, anchored, whoever drove."""
    upcoming: tuple[Command, ...] = ()
    """What will be executed at this and the following steps unless something intervenes: the prefix
    of an inference that starts from this step's observation. Starts with ``command``."""
    remaining: int = 0
    """Actions of the executing chunk that are due at this step or later."""
    chunk_time_ns: int = 0
    """Observation stamp of the executing chunk; 0 without one."""
    stalls: int = 0
    """Steps since the episode began at which the policy drove but had no action due."""
