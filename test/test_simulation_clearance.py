"""The sign of a collision to come: what it is computed from, when it is seen, how often."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from practice import practise

from dexpie_ros.control.types import Command
from dexpie_ros.geometry import Pose
from dexpie_ros.simulation.attention import AttentionConfig
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState
from dexpie_ros.simulation.clearance import Clearance, ClearanceConfig, HandOutline
from dexpie_ros.simulation.expert import Expert
from dexpie_ros.simulation.kinematics import matrix_of
from dexpie_ros.simulation.operator import Operator, OperatorConfig
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import TABLE_Z
from dexpie_ros.simulation.skills import StyleConfig
from dexpie_ros.simulation.tasks.bottle import BottleConfig

OUTLINE = HandOutline()
NOWHERE = (np.array([9.0, 9.0, 0.0]),)


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell(CellConfig())


def lowest_geom(cell: Cell) -> float:
    """Of the hand in the cell's own physics, by the support of each of its parts."""
    model, data, heights = cell.model, cell.data, []
    for g in np.flatnonzero(cell.task._hand_geom):
        down = np.abs(data.geom_xmat[g].reshape(3, 3)[2])
        size, kind = model.geom_size[g], model.geom_type[g]
        if kind == mujoco.mjtGeom.mjGEOM_BOX:
            reach = float(down @ size)
        else:
            long = 0.0 if kind == mujoco.mjtGeom.mjGEOM_SPHERE else size[1]
            reach = float(down[2] * long + size[0])
        heights.append(float(data.geom_xpos[g][2]) - reach)
    return min(heights)


@pytest.mark.parametrize("task", ["bottle", "drawer", "box"])
def test_the_outline_is_the_hands(task: str) -> None:
    cell = Cell(CellConfig(task=task))
    state = cell.reset(3)
    expert = Expert(cell.task, StyleConfig(), 3, state, cell.command)
    for _ in range(30):
        state = cell.step(expert.command(state))
        lowest = OUTLINE.lowest(matrix_of(state.robot.tcp), state.robot.hand)
        assert lowest == pytest.approx(lowest_geom(cell), abs=1e-3)
    # fingers that point down reach lower when they are straight
    if task == "drawer":
        tcp = matrix_of(state.robot.tcp)
        assert OUTLINE.lowest(tcp, np.ones(6)) < OUTLINE.lowest(tcp, np.zeros(6)) - 0.02


def at(state: CellState, tick: int, height: float, bottle: float | None = None) -> CellState:
    """``state`` with the hand's lowest point this high above the table, at the bottle's side."""
    tcp = state.robot.tcp
    lowest = OUTLINE.lowest(matrix_of(tcp), state.robot.hand) - TABLE_Z
    moved = Pose(tcp.position + np.array([0.0, 0.0, height - lowest]), tcp.quaternion)
    objects = dict(state.objects)
    if bottle is not None:
        beside = Pose(
            np.array([*tcp.position[:2], bottle + TABLE_Z]), np.array([0.0, 0.0, 0.0, 1.0])
        )
        objects["bottle"] = beside
    robot = dataclasses.replace(state.robot, tcp=moved)
    return dataclasses.replace(state, robot=robot, objects=objects, scene_tick=tick)


def first_sign(
    state: CellState, cell: Cell, speed: float, places: tuple[np.ndarray, ...] = NOWHERE,
    settings: ClearanceConfig | None = None, carried: float | None = None,
) -> float | None:  # fmt: skip
    """Height at which a descent at ``speed`` from 0.2 m first looks like a collision."""
    watch = Clearance(settings or ClearanceConfig(), OUTLINE, cell.task.corners())
    for tick in range(200):
        height = 0.2 - 0.04 * speed * tick
        if height < 0:
            return None
        below = None if carried is None else height - carried
        if watch.look(at(state, tick, height, below), places):
            return height
    return None


def test_a_descent_is_a_collision_to_come_when_it_is_too_late_to_be_slow(cell: Cell) -> None:
    state = cell.reset(0)
    here = (state.robot.tcp.position,)
    # 0.3 s ahead at 0.2 m/s are 6 cm; steps of 8 mm
    seen = first_sign(state, cell, 0.2)
    assert seen is not None and 0.051 < seen < 0.061
    fast = first_sign(state, cell, 0.4)
    assert fast is not None and 0.103 < fast < 0.121
    # over what it works at, 0.1 s: 2 cm
    work = first_sign(state, cell, 0.2, here)
    assert work is not None and 0.011 < work < 0.021
    apart = (here[0] + [0.07, 0.0, 0.0],)
    assert first_sign(state, cell, 0.2, apart) == seen
    assert first_sign(state, cell, 0.1) is None, "slow: it is meant"
    assert first_sign(state, cell, -0.2) is None
    assert first_sign(state, cell, 0.4, settings=ClearanceConfig(ahead=0)) is None
    later = first_sign(state, cell, 0.2, settings=ClearanceConfig(ahead=0.6))
    assert later is not None and 0.111 < later < 0.121


def test_what_hangs_below_the_hand_counts_while_it_moves_with_it(cell: Cell) -> None:
    state = cell.reset(0)
    bare = first_sign(state, cell, 0.2)
    carrying = first_sign(state, cell, 0.2, carried=0.05)
    assert bare is not None and carrying is not None
    assert carrying == pytest.approx(bare + 0.05, abs=0.009)
    # a bottle that stands still below is not carried
    watch = Clearance(ClearanceConfig(), OUTLINE, cell.task.corners())
    said = [watch.look(at(state, k, 0.3 - 0.008 * k, 0.0), NOWHERE) for k in range(20)]
    assert not any(said)


def test_only_what_can_be_seen_counts(cell: Cell) -> None:
    """Forces, contacts, joint angles and verdicts may be anything."""
    state = cell.reset(0)

    def blind(tick: int, height: float) -> CellState:
        seen = at(state, tick, height)
        robot = dataclasses.replace(
            seen.robot, hand_force=np.full(6, 50.0), joints=np.zeros(6), joint_velocities=np.ones(6)
        )
        return dataclasses.replace(seen, robot=robot, contact=True, failure=True, reason="fell")

    plain, other = (Clearance(ClearanceConfig(), OUTLINE, cell.task.corners()) for _ in range(2))
    heights = [0.2 - 0.008 * k for k in range(24)]
    one = [plain.look(at(state, k, h), NOWHERE) for k, h in enumerate(heights)]
    two = [other.look(blind(k, h), NOWHERE) for k, h in enumerate(heights)]
    assert one == two and "collision" in one


def test_a_gap_in_what_was_seen_is_no_speed(cell: Cell) -> None:
    state = cell.reset(0)
    watch = Clearance(ClearanceConfig(), OUTLINE, cell.task.corners())
    ticks = [0, 1, 2, 50, 51]
    said = [
        watch.look(at(state, t, h), NOWHERE)
        for t, h in zip(ticks, [0.3, 0.3, 0.3, 0.05, 0.05], strict=True)
    ]
    assert not any(said)


@pytest.fixture(scope="module")
def roomy() -> Cell:
    """The bottle stands far away: a hand that sinks touches the table only."""
    return Cell(CellConfig(bottle=BottleConfig(bottle_x=(0.64, 0.66))))


def plunge(cell: Cell) -> object:
    """A policy that drives its hand into the table where nothing stands, at 0.3 m/s."""

    def policy(state: CellState) -> Command:
        tcp = cell.command.tcp
        down = Pose(tcp.position - [0.0, 0.0, 0.012], tcp.quaternion)
        return Command(down, state.robot.hand)

    return policy


def watched(cell: Cell, seed: int, **attention: float) -> tuple[int | None, int]:
    """Step at which a watching person decided, and the first at which there was something to see."""
    settings = OperatorConfig(role="supervise", attention=AttentionConfig(stall=60, **attention))
    operator = Operator(settings, 0)
    attempt = practise(cell, operator, seed, policy=plunge(cell), limit=60)  # type: ignore[arg-type]
    watch = Clearance(settings.clearance, OUTLINE, cell.task.corners())
    visible = next(k for k, s in enumerate(attempt.states) if watch.look(s, NOWHERE))
    notes = [k for k, o in enumerate(attempt.outputs) if o.note.startswith("trigger collision")]
    assert not any(
        o.note.startswith("trigger") and "collision" not in o.note for o in attempt.outputs
    )
    return (notes[0] if notes else None), visible


def test_it_is_noticed_late_and_missed_as_often_as_everything_else(roomy: Cell) -> None:
    seen = [watched(roomy, seed, lapse=0.0) for seed in range(30)]
    delays = np.array([decided - visible for decided, visible in seen if decided is not None])
    assert len(delays) == 30, "nobody misses it who misses nothing"
    # 0.12 s until it is known, then a reaction of 0.35 s (lognormal, 0.3), in steps
    assert delays.min() >= 3 + 1
    assert np.median(delays) * 0.04 == pytest.approx(0.12 + 0.35, abs=0.09)
    assert 0.15 < np.std(np.log(delays * 0.04 - 0.12)) < 0.5
    blind = [watched(roomy, seed, miss=0.5)[0] is None for seed in range(60)]
    assert 0.3 < np.mean(blind) < 0.7


@pytest.mark.parametrize("task", ["bottle", "drawer", "box"])
def test_work_that_goes_well_looks_like_no_collision(task: str) -> None:
    """Reaching, hooking, grasping and putting down come near the table, and are meant."""
    cell = Cell(CellConfig(task=task))
    for seed in range(2):
        state = cell.reset(seed)
        expert = Expert(cell.task, StyleConfig(), seed, state, cell.command)
        watch = Clearance(ClearanceConfig(), OUTLINE, cell.task.corners())
        while not (state.success or state.failure) and state.scene_tick < 700:
            state = cell.step(expert.command(state))
            sign = watch.look(state, expert.skill.places(expert._view(state)))
            assert not sign, (seed, state.scene_tick, expert.skill.phase)
        assert state.success


@pytest.mark.parametrize(
    "values", [{"ahead": -1.0}, {"ahead": 0.05}, {"speed": 0.0}, {"place": -0.1}]
)
def test_impossible_settings_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="clearance: expected"):
        ClearanceConfig(**values)
