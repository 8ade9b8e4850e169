"""Choice of the OpenGL backend."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from dexpie_ros.control.types import Command
from dexpie_ros.simulation import rendering
from dexpie_ros.simulation.cell import Cell, CellConfig
from dexpie_ros.simulation.rendering import RenderError, choose_backend


def loader(*available: str):
    def load(name: str) -> object:
        if name not in available:
            raise OSError(name)
        return object()

    return load


def test_egl_is_taken_before_osmesa_and_nothing_is_no_crash() -> None:
    assert choose_backend(loader("libEGL.so.1", "libOSMesa.so.8")) == "egl"
    assert choose_backend(loader("libEGL.so")) == "egl"
    assert choose_backend(loader("libOSMesa.so.8")) == "osmesa"
    assert choose_backend(loader()) == ""


def test_without_any_backend_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "BACKEND", "")
    cell = Cell(CellConfig())
    cell.reset(0)
    with pytest.raises(RenderError, match="apt-get install libegl1"):
        cell.render("front")
    assert cell.step(Command(cell.state.robot.tcp, cell.state.robot.hand)).scene_tick == 1


def test_forbidden_rendering_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "BACKEND", "disable")
    cell = Cell(CellConfig())
    cell.reset(0)
    with pytest.raises(RenderError, match="MUJOCO_GL=disable"):
        cell.render("front")


def test_another_thread_is_refused() -> None:
    cell = Cell(CellConfig(width=32, height=32))
    cell.reset(0)
    cell.render("front")
    caught: list[Exception] = []

    def other() -> None:
        try:
            cell.render("front")
        except RenderError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    cell.close()
    assert len(caught) == 1
    assert "thread" in str(caught[0])


def test_backend_is_set_before_mujoco_is_imported() -> None:
    script = (
        "import os, sys; os.environ.pop('MUJOCO_GL', None)\n"
        "import dexpie_ros.simulation.cell as c\n"
        "from dexpie_ros.simulation import rendering as r\n"
        "assert 'rclpy' not in sys.modules and 'torch' not in sys.modules\n"
        "assert os.environ.get('MUJOCO_GL', '') == r.BACKEND\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
