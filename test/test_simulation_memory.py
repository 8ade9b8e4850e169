"""What a person remembers of a start that went wrong, by hand and on a lid that is let go of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from practice import practise

from dexpie_ros.control.types import Command
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.memory import Memory
from dexpie_ros.simulation.operator import Operator, OperatorConfig, with_role
from dexpie_ros.simulation.skills import StyleConfig
from dexpie_ros.simulation.tasks import make_task
from dexpie_ros.simulation.tasks.box import BoxConfig

START = 7


@pytest.fixture(scope="module")
def still() -> CellState:
    return Cell(CellConfig()).reset(0)


@pytest.mark.parametrize(
    ("touching", "cause", "expected"),
    [
        ([range(20, 40), range(60, 90)], "broke", 60),  # the grasp that the drop ended
        ([range(20, 40), range(49, 90)], "broke", 20),  # nine steps apart: still that grasp
        ([range(20, 40), range(50, 90)], "broke", 50),
        ([range(90)], "broke", 0),  # an episode that begins with a grasp
        ([range(20, 40)], "tipped", 100),  # no drop: where it failed
        ([], "broke", 100),
    ],
)
def test_a_drop_began_with_its_grasp(
    still: CellState, touching: list[range], cause: str, expected: int
) -> None:
    memory = Memory({"broke"})
    assert memory.step(START) is None
    memory.begin(START)
    for tick in range(100):
        touched = any(tick in span for span in touching)
        memory.see(dataclasses.replace(still, scene_tick=tick, contact=touched))
    memory.failed(cause, 100)
    assert memory.step(START) == expected
    memory.begin(START + 1)
    memory.failed(cause, 50)
    assert (memory.step(START), memory.step(START + 1)) == (expected, 50)
    memory.forget()
    assert memory.step(START) is None


def test_a_dropped_lid_is_taken_over_before_it_is_grasped() -> None:
    """A policy lifts the lid and opens its hand; watched again, it is not let come to the knob."""
    config = CellConfig(task="box", box=BoxConfig(regime="terminal"))
    cell = Cell(config)
    operator = Operator(OperatorConfig(cell=config, role="judge"), 0)

    def dropping(seed: int) -> Callable[[CellState], Command]:
        skill: list[Expert] = []

        def command(state: CellState) -> Command:
            held = Command(state.robot.tcp, state.robot.hand)
            if state.scene_tick == 0:
                skill[:] = [Expert(make_task("box", config), StyleConfig(), seed, state, held)]
            wanted = skill[0].command(state)
            away = skill[0].skill.phase == "carry_lid"
            return Command(wanted.tcp, np.ones(6)) if away else wanted

        return command

    first = practise(cell, operator, START, policy=dropping(START))
    assert (first.outcome, first.cause) == ("failure", "broke")
    grasped = next(k for k, state in enumerate(first.states) if state.contact)
    assert operator.memory.step(START) == grasped
    operator.config = with_role(operator.config, "supervise")
    again = practise(cell, operator, START, policy=dropping(START))
    taken = next(k for k, o in enumerate(again.outputs) if o.toggle)
    assert taken < grasped < first.ticks - 25
    assert again.outcome == "success"
