"""An operator alone with the cell: relative wrist motion and linear retargeting, nothing else.

The shortest loop that a demonstration can be made in; it shows what the simulated person can do by
itself. (Recording goes through the arbiter, with limits, blending and takeover.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dexpie_ros.control.types import Command, Mode
from dexpie_ros.geometry import Array
from dexpie_ros.simulation.cell import Cell, CellState
from dexpie_ros.simulation.kinematics import matrix_of, pose_of
from dexpie_ros.simulation.operator import Operator, OperatorOutput
from dexpie_ros.simulation.person import GLOVE_CHANNELS


@dataclass
class Attempt:
    """How one practised episode went."""

    outcome: str
    cause: str
    ticks: int
    takeovers: int
    states: list[CellState] = field(default_factory=list)
    outputs: list[OperatorOutput] = field(default_factory=list)


def retarget(ergonomics: dict[str, float]) -> Array:
    """Openings (6,) from glove readings, linear per channel."""
    degrees = np.array([ergonomics[name] for name, _, _ in GLOVE_CHANNELS])
    opened = np.array([channel[1] for channel in GLOVE_CHANNELS])
    closed = np.array([channel[2] for channel in GLOVE_CHANNELS])
    return np.clip((degrees - closed) / (opened - closed), 0.0, 1.0)


def practise(
    cell: Cell,
    operator: Operator,
    seed: int,
    stage: str = "",
    policy: Callable[[CellState], Command] | None = None,
    limit: int = 1000,
) -> Attempt:
    """One episode of ``seed``. Without a ``policy`` the robot holds until the operator takes over.

    The wrist relation is T_ee(t) = T_cmd(t0) F(t0)^-1 F(t), F the tracker's pose.
    """
    state = cell.reset(seed, stage)
    operator.reset(state, seed)
    command = Command(state.robot.tcp, state.robot.hand)
    anchor: Array | None = None
    attempt = Attempt("", "", 0, 0)
    for _ in range(limit):
        idle = Mode.HOLD if policy is None else Mode.POLICY
        output = operator.observe(state, Mode.HUMAN if anchor is not None else idle)
        attempt.states.append(state)
        attempt.outputs.append(output)
        tracker = matrix_of(output.tracker)
        if output.toggle and anchor is None:
            attempt.takeovers += 1
            anchor = matrix_of(command.tcp) @ np.linalg.inv(tracker)
        elif output.toggle:
            anchor = None
        if output.outcome:
            attempt.outcome, attempt.cause = output.outcome, output.cause
            break
        if anchor is not None:
            pose = anchor @ tracker
            command = Command(pose_of(pose[:3, 3], pose[:3, :3]), retarget(output.ergonomics))
        elif policy is not None:
            command = policy(state)
        state = cell.step(command)
    attempt.ticks = state.scene_tick
    return attempt
