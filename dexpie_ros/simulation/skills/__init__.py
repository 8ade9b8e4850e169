"""Closed-loop experts: what a skilled operator does in each task."""

from __future__ import annotations

import numpy as np

from dexpie_ros.simulation.skills.base import Skill, StyleConfig
from dexpie_ros.simulation.skills.bottle import BottleSkill
from dexpie_ros.simulation.tasks.base import Task
from dexpie_ros.simulation.tasks.bottle import BottleTask


def make_skill(task: Task, style: StyleConfig, rng: np.random.Generator) -> Skill:
    """The skill that does ``task``."""
    if isinstance(task, BottleTask):
        return BottleSkill(task, style, rng)
    raise ValueError(f"no skill for task {task.name!r}")
