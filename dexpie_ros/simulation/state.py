"""What the simulated cell says of itself: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from dexpie_ros.control.types import RobotState
from dexpie_ros.geometry import Array, Pose
from dexpie_ros.simulation import disturbances


@dataclass(frozen=True, eq=False)
class CellState:
    """What is true after a control step."""

    tick: int
    """Counts control steps since the cell was made; never goes back, also over resets."""
    time_ns: int
    robot: RobotState
    objects: dict[str, Pose]
    success: bool
    """The goal was reached and held; stays true until the next reset."""
    failure: bool
    reason: str
    """Of the failure."""
    contact: bool
    resets: int
    task: str = ""
    stage: str = ""
    seed: int = 0
    scene_tick: int = 0
    """Control steps since the last reset."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that decides how a scene goes on: physics, controller memory, judge, disturbances."""

    task: str
    physics: Array
    arm_command: Array
    hand_command: Array
    fulfilled: int
    """Steps for which the goal has held."""
    events: tuple[disturbances.Event, ...]
    state: CellState
