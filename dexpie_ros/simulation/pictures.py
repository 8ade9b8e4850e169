"""Pictures of the running cell for the documentation: ``python -m dexpie_ros.simulation.pictures``.

Each is taken in the middle of a scripted episode, with shadows, at four times the size that
policies see, and then halved: that smooths the edges.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from dexpie_ros.simulation.cell import Cell, CellConfig, TaskName
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.rendering import Image
from dexpie_ros.simulation.skills import StyleConfig

SHOTS: tuple[tuple[str, TaskName, int, int], ...] = (
    ("cell", "bottle", 3, 88),
    ("drawer", "drawer", 0, 75),
    ("box", "box", 0, 84),
)
"""File name, task, seed and control step of each."""


def shoot(task: TaskName, seed: int, step: int) -> dict[str, Image]:
    """Both cameras' images (480, 640, 3) at a control step of a scripted episode."""
    cell = Cell(CellConfig(task=task, width=1280, height=960, shadows=True))
    try:
        state = cell.reset(seed)
        expert = Expert(cell.task, StyleConfig(), seed, state, cell.command)
        for _ in range(step):
            state = cell.step(expert.command(state))
        return {camera: _halved(cell.render(camera)) for camera in cell.config.cameras}
    finally:
        cell.close()


def draw(directory: str | Path) -> list[Path]:
    """Write ``<name>_<camera>.png`` of every shot; returns the paths."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, task, seed, step in SHOTS:
        for camera, image in shoot(task, seed, step).items():
            path = folder / f"{name}_{camera}.png"
            if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise OSError(f"{path}: cannot be written")
            written.append(path)
    return written


def _halved(image: Image) -> Image:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


if __name__ == "__main__":
    for path in draw(sys.argv[1] if len(sys.argv) > 1 else "docs/images"):
        print(path)
