"""A skill driving the cell directly: for starts at later stages, and to measure the skill alone.

No tracker, glove or person in between; whoever wants those uses :mod:`.operator`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dexpie_ros.control.types import Command
from dexpie_ros.simulation.cell import Cell, CellState
from dexpie_ros.simulation.kinematics import matrix_of, pose_of, rotation_matrix
from dexpie_ros.simulation.robot_model import HAND_RANGE
from dexpie_ros.simulation.skills import make_skill
from dexpie_ros.simulation.skills.base import Mover, StyleConfig, View

HAND_STEP = 0.08 / HAND_RANGE
"""(6,) largest change of each opening in one control step that a person makes (2 rad/s)."""


class Expert:
    """Commands from a skill that knows the state exactly."""

    def __init__(self, cell: Cell, style: StyleConfig, seed: int):
        state = cell.state
        self.skill = make_skill(cell.task, style, np.random.default_rng([seed, 7]))
        self._mover = Mover(self.skill.speed)
        self._tcp = matrix_of(state.robot.tcp)
        self._hand = state.robot.hand.copy()
        self.skill.begin(self._view(state))

    def command(self, state: CellState) -> Command:
        """Command for the step that begins at ``state``."""
        intent = self.skill.plan(self._view(state))
        translation, turn = self._mover.advance(self._tcp, intent)
        self._tcp[:3, 3] += translation
        self._tcp[:3, :3] = rotation_matrix(turn) @ self._tcp[:3, :3]
        self._hand = self._hand + np.clip(intent.hand - self._hand, -HAND_STEP, HAND_STEP)
        return Command(pose_of(self._tcp[:3, 3], self._tcp[:3, :3]), self._hand.copy())

    def _view(self, state: CellState) -> View:
        objects = {name: matrix_of(pose) for name, pose in state.objects.items()}
        seen = matrix_of(state.robot.tcp)
        return View(self._tcp, seen, self._hand, state.robot.hand, objects, state.contact)


def run_expert(
    cell: Cell,
    style: StyleConfig,
    seed: int,
    limit: int = 400,
    until: Callable[[CellState, str], bool] = lambda state, phase: False,
) -> CellState:
    """Step from the present state until success, failure, ``until(state, phase)`` or ``limit``."""
    expert = Expert(cell, style, seed)
    state = cell.state
    for _ in range(limit):
        state = cell.step(expert.command(state))
        if state.success or state.failure or until(state, expert.skill.phase):
            break
    return state
