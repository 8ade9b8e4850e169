"""A skill driving the robot directly: for starts at later stages, and to measure the skill alone.

No tracker, glove or person in between; whoever wants those uses :mod:`.operator`.
"""

from __future__ import annotations

import numpy as np

from dexpie_ros.control.types import Command
from dexpie_ros.simulation.kinematics import matrix_of, pose_of, rotation_matrix
from dexpie_ros.simulation.robot_model import HAND_RANGE
from dexpie_ros.simulation.skills import make_skill
from dexpie_ros.simulation.skills.base import Mover, StyleConfig, View
from dexpie_ros.simulation.state import CellState
from dexpie_ros.simulation.tasks.base import Task

HAND_STEP = 0.08 / HAND_RANGE
"""(6,) largest change of each opening in one control step that a person makes (2 rad/s)."""


class Expert:
    """Commands from a skill that knows the state exactly."""

    def __init__(
        self, task: Task, style: StyleConfig, seed: int, state: CellState, held: Command
    ) -> None:
        """``held``: the command that the robot is holding, where the motion goes on from."""
        self.skill = make_skill(task, style, np.random.default_rng([seed, 7]))
        self._mover = Mover(self.skill.speed)
        self._tcp = matrix_of(held.tcp)
        self._hand = held.hand.copy()
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
