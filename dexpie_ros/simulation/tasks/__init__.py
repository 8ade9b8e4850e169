"""Manipulation tasks of the simulated cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dexpie_ros.simulation.tasks.base import Task
from dexpie_ros.simulation.tasks.bottle import BottleTask
from dexpie_ros.simulation.tasks.box import BoxTask
from dexpie_ros.simulation.tasks.drawer import DrawerTask

if TYPE_CHECKING:
    from dexpie_ros.simulation.cell import CellConfig


def make_task(name: str, config: CellConfig) -> Task:
    """The task that ``config`` names."""
    if name == "bottle":
        return BottleTask(config.bottle)
    if name == "drawer":
        return DrawerTask(config.drawer)
    if name == "box":
        return BoxTask(config.box)
    raise ValueError(f"no task {name!r}; there are bottle, drawer and box")
