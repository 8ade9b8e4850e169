"""Closed-loop experts: what a skilled operator does in each task."""

from __future__ import annotations

import numpy as np

from dexpie_ros.simulation.skills.base import Skill, StyleConfig
from dexpie_ros.simulation.skills.bottle import BottleSkill
from dexpie_ros.simulation.skills.box import BoxSkill
from dexpie_ros.simulation.skills.drawer import DrawerSkill
from dexpie_ros.simulation.tasks.base import Task
from dexpie_ros.simulation.tasks.bottle import BottleTask
from dexpie_ros.simulation.tasks.box import BoxTask
from dexpie_ros.simulation.tasks.drawer import DrawerTask


def make_skill(task: Task, style: StyleConfig, rng: np.random.Generator) -> Skill:
    """The skill that does ``task``."""
    if isinstance(task, BottleTask):
        return BottleSkill(task, style, rng)
    if isinstance(task, DrawerTask):
        return DrawerSkill(task, style, rng)
    if isinstance(task, BoxTask):
        return BoxSkill(task, style, rng)
    raise ValueError(f"no skill for task {task.name!r}")
