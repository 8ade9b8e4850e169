"""The robot's graph over emulators: jogs, an arm stopped on its way, and nodes that are killed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")
from hardware_cell import OK, WARN, Cell, settled, take_over
from test_graph_hardware import cell

from dexpie_ros import geometry
from dexpie_ros.control.types import Mode

__all__ = ["cell"]  # the fixture: a graph of this module's own


@pytest.mark.parametrize(("axis", "amount"), [("x", "0.02"), ("rz", "-0.05"), ("index", "-0.3")])
def test_a_jog_goes_the_way_that_was_asked_for(cell: Cell, axis: str, amount: str) -> None:
    settled(cell)
    command = [sys.executable, "-m", "dexpie_ros.cli", "jog", axis, amount]
    for _ in range(3):  # refused, or ended on its way, where a stream was late
        done, said = jogged(cell, command)
        if done == 0:
            break
    assert done == 0, said
    assert f"{axis}: asked for {float(amount):+.3f}" in said
    cell.until_mode(Mode.HOLD)


def jogged(cell: Cell, command: list[str]) -> tuple[int, str]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as jog:
        try:
            cell.until(lambda: jog.poll() is not None, "the jog did not end", timeout=90.0)
        finally:
            jog.kill()
        return jog.returncode, jog.communicate()[0]


def test_an_arm_stopped_on_its_way_stays_there_when_it_is_recovered(cell: Cell) -> None:
    """Whatever stopped it may be in the way; the fault is not even cleared yet."""
    settled(cell)
    vive, robot = cell.emulators["emulator_vive"], cell.emulators["emulator_ur5"]
    place = geometry.make_pose(np.eye(3), [0.0, 1.2, -0.3])
    vive.ask("place", matrix=place.tolist())
    cell.client.spin_for(0.5)
    cell.client.start("demonstration", episode_id="stopped")
    take_over(cell)
    cell.client.spin_for(0.6)
    for step in range(15):
        place[0, 3] = 0.008 * (step + 1)
        vive.ask("place", matrix=place.tolist())
        cell.client.spin_for(0.04)
    robot.ask("protective_stop")
    cell.until_mode(Mode.FAULT, "protective stop")
    cell.until(cell.arm_stands_still, "the arm did not stop")
    stopped = cell.tcp()
    cell.recover()
    cell.client.spin_for(1.0)
    assert np.linalg.norm(cell.tcp() - stopped) < 0.002
    cell.clear_fault()
    cell.client.spin_for(0.5)
    assert np.linalg.norm(cell.tcp() - stopped) < 0.002
    vive.ask("place")


def test_a_killed_arbiter_is_followed_as_soon_as_it_is_back(cell: Cell) -> None:
    """That it need not wait until DDS stops listing the dead one: test_nodes_drivers."""
    settled(cell)
    cell.kill("intervention_arbiter")
    cell.until_status("arm_driver", WARN, "no /control/command")
    assert cell.arm_stands_still()
    cell.until_status("arm_driver", OK)
    cell.until_status("hand_driver", OK)
    cell.until_mode(Mode.HOLD)


def test_a_killed_teleop_knows_the_operators_alignment_again(cell: Cell) -> None:
    settled(cell)
    vive, glove = cell.emulators["emulator_vive"], cell.emulators["emulator_manus"]
    vive.ask("place", matrix=geometry.make_pose(np.eye(3), [0.0, 1.2, -0.3]).tolist())
    glove.ask("hold", closed=0.0)
    cell.succeeds("/teleop/calibrate")
    cell.until_status("teleop", OK, "following")
    cell.kill("teleop")
    cell.until_status("teleop", OK, "before this node was started anew")
    glove.ask("hold")
    vive.ask("place")


@pytest.mark.parametrize("driver", ["arm_driver", "hand_driver"])
def test_a_killed_driver_comes_back_and_nothing_has_moved(cell: Cell, driver: str) -> None:
    settled(cell)
    before, openings = cell.tcp(), cell.hand()
    cell.kill(driver)
    cell.until_was(Mode.HOLD, "/arm/" if driver == "arm_driver" else "/hand/")
    cell.until_status(driver, OK)
    cell.until(lambda: "silent" not in cell.reason, "the arbiter did not go on")
    cell.client.spin_for(0.5)
    assert np.linalg.norm(cell.tcp() - before) < 0.002
    assert np.abs(cell.hand() - openings).max() < 0.05
