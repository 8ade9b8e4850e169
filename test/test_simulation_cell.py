"""The simulated cell: determinism, snapshots, judges, clock, images, errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dexpie_ros import config
from dexpie_ros.control.types import STEP_NS, Command
from dexpie_ros.geometry import Pose
from dexpie_ros.simulation.cell import Cell, CellConfig, CellState
from dexpie_ros.simulation.disturbances import DisturbanceConfig
from dexpie_ros.simulation.kinematics import (
    ArmKinematics,
    matrix_of,
    pose_of,
    rotation_matrix,
    rotation_vector,
)
from dexpie_ros.simulation.scene import TABLE_Z


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell(CellConfig())


def wander(state: CellState, rng: np.random.Generator) -> Command:
    """A command near the present state."""
    tcp = matrix_of(state.robot.tcp)
    tcp[:3, 3] += rng.uniform(-0.02, 0.02, 3)
    tcp[:3, :3] = tcp[:3, :3] @ rotation_matrix(rng.normal(0, 0.05, 3))
    return Command(pose_of(tcp[:3, 3], tcp[:3, :3]), rng.uniform(0, 1, 6))


def hold(state: CellState) -> Command:
    return Command(state.robot.tcp, state.robot.hand)


def bits(state: CellState) -> bytes:
    """Everything but the clock."""
    robot = state.robot
    parts = [robot.joints, robot.joint_velocities, robot.hand, robot.hand_force]
    for pose in (robot.tcp, *state.objects.values()):
        parts += [pose.position, pose.quaternion]
    flags = f"{state.success}{state.failure}{state.reason}{state.contact}{state.scene_tick}"
    return b"".join(part.tobytes() for part in parts) + flags.encode()


def put(cell: Cell, position: list[float], turn: list[float]) -> None:
    """Place the bottle by hand."""
    joint = cell.model.joint("bottle")
    address, dof = int(joint.qposadr[0]), int(joint.dofadr[0])
    pose = pose_of(np.array(position), rotation_matrix(np.array(turn)))
    x, y, z, w = pose.quaternion
    cell.data.qpos[address : address + 7] = [*position, w, x, y, z]
    cell.data.qvel[dof : dof + 6] = 0


def test_same_seed_same_bits_and_other_seed_other_scene() -> None:
    runs = []
    for seed in (4, 4, 5):
        cell, rng = Cell(CellConfig()), np.random.default_rng(0)
        state = cell.reset(seed)
        trace = [bits(state)]
        for _ in range(30):
            state = cell.step(wander(state, rng))
            trace.append(bits(state))
        runs.append(trace)
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_reset_forgets_what_happened_before(cell: Cell) -> None:
    rng = np.random.default_rng(1)
    first = cell.reset(11)
    state = first
    for _ in range(20):
        state = cell.step(wander(state, rng))
    assert bits(cell.reset(11)) == bits(first)


def test_snapshot_goes_on_bit_for_bit_in_the_same_and_in_another_cell() -> None:
    settings = CellConfig(disturbances=DisturbanceConfig(pose_error=1.0))
    cell, rng = Cell(settings), np.random.default_rng(2)
    state = cell.reset(6)
    for _ in range(15):
        state = cell.step(wander(state, rng))
    snapshot = cell.snapshot()
    commands, expected = [], []
    for _ in range(25):
        commands.append(wander(state, rng))
        state = cell.step(commands[-1])
        expected.append(bits(state))
    other = Cell(settings)
    for target in (cell, other):
        target.reset(999)
        restored = target.restore(snapshot)
        assert bits(restored) == bits(snapshot.state)
        assert restored.objects["platform"].position.tolist() == (
            snapshot.state.objects["platform"].position.tolist()
        )
        assert [bits(target.step(command)) for command in commands] == expected


def test_snapshot_of_another_scene_is_refused(cell: Cell) -> None:
    cell.reset(0)
    snapshot = dataclasses.replace(cell.snapshot(), physics=np.zeros(3))
    with pytest.raises(ValueError, match="does not fit this cell"):
        cell.restore(snapshot)


def test_tick_and_time_never_go_back() -> None:
    cell = Cell(CellConfig(time_origin_ns=7_000))
    states = [cell.reset(1)]
    states.append(cell.step(hold(states[-1])))
    snapshot = cell.snapshot()
    states.append(cell.step(hold(states[-1])))
    states.append(cell.restore(snapshot))
    states.append(cell.reset(2))
    states.append(cell.step(hold(states[-1])))
    assert [s.tick for s in states] == [0, 1, 2, 3, 4, 5]
    assert [s.resets for s in states] == [1, 1, 1, 2, 3, 3]
    assert [s.scene_tick for s in states] == [0, 1, 2, 1, 0, 1]
    for state in states:
        assert state.time_ns == 7_000 + state.tick * STEP_NS == state.robot.time_ns


def test_robot_follows_a_command_within_its_lag(cell: Cell) -> None:
    state = cell.reset(3)
    goal = matrix_of(state.robot.tcp)
    goal[:3, 3] += [0.03, 0.02, 0.01]
    command = Command(pose_of(goal[:3, 3], goal[:3, :3]), np.array([1, 0.5, 0.9, 1, 1, 1.0]))
    state = cell.step(command)
    after_one = np.linalg.norm(state.robot.tcp.position - goal[:3, 3])
    for _ in range(20):
        state = cell.step(command)
    assert 0.005 < after_one < 0.04
    assert np.abs(state.robot.tcp.position - goal[:3, 3]).max() < 1e-3
    assert np.abs(state.robot.hand - command.hand).max() < 0.03
    assert state.robot.joint_velocities == pytest.approx(np.zeros(6), abs=1e-2)


def test_speed_limits_bound_a_jump() -> None:
    cell = Cell(CellConfig(arm_speed=0.5, hand_speed=1.0))
    state = cell.reset(3)
    far = matrix_of(state.robot.tcp)
    far[:3, 3] += [0.3, 0.2, 0.0]
    before = state.robot
    state = cell.step(Command(pose_of(far[:3, 3], far[:3, :3]), np.zeros(6)))
    assert np.abs(state.robot.joints - before.joints).max() < 0.5 * 0.04 * 1.01
    assert (before.hand - state.robot.hand).max() < 1.0 * 0.04 / 0.6


def test_closing_on_nothing_gives_no_force_and_blocked_fingers_do(cell: Cell) -> None:
    state = cell.reset(0)
    closed = Command(state.robot.tcp, np.array([0.3, 0.3, 0.3, 0.3, 1.0, 1.0]))
    for _ in range(30):
        state = cell.step(closed)
    assert np.abs(state.robot.hand_force).max() < 1.0
    # Thumb across the palm: fist and thumb press on each other.
    fist = Command(state.robot.tcp, np.zeros(6))
    for _ in range(40):
        state = cell.step(fist)
    assert state.robot.hand_force.max() > 2.0


def test_success_needs_the_bottle_standing_still_on_the_platform(cell: Cell) -> None:
    state = cell.reset(0)
    x, y, _ = state.objects["platform"].position
    command = hold(state)
    put(cell, [x + 0.005, y, TABLE_Z + 0.0405], [0, 0, 0])
    flags = []
    for _ in range(12):
        state = cell.step(command)
        flags.append(state.success)
    assert flags[3] is False  # five steps on end, and the first ones settle
    assert flags[-1] is True
    assert not state.failure
    # Latched: what happens afterwards does not undo it.
    put(cell, [x, y, TABLE_Z - 0.2], [0, 0, 0])
    assert cell.step(command).success


@pytest.mark.parametrize(
    ("position", "turn", "reason"),
    [
        ([0.55, 0.1, TABLE_Z + 0.03], [np.pi / 2, 0, 0], "tipped"),
        ([0.55, 0.1, TABLE_Z - 0.2], [0, 0, 0], "fell"),
        ([0.25, 0.3, TABLE_Z + 0.0005], [0, 0, 0], "out_of_reach"),
    ],
)
def test_failures(cell: Cell, position: list[float], turn: list[float], reason: str) -> None:
    state = cell.reset(0)
    put(cell, position, turn)
    state = cell.step(hold(state))
    assert (state.failure, state.reason, state.success) == (True, reason, False)


def test_off_centre_is_not_success(cell: Cell) -> None:
    state = cell.reset(0)
    x, y, _ = state.objects["platform"].position
    command = hold(state)
    put(cell, [x + 0.028, y, TABLE_Z + 0.0405], [0, 0, 0])
    for _ in range(12):
        state = cell.step(command)
    assert not state.success


def test_both_regimes_differ_in_what_a_push_does() -> None:
    ups = []
    for regime in ("terminal", "retry"):
        cell = Cell(config.load(CellConfig, overrides=[f"bottle.regime={regime}"]))
        state = cell.reset(0)
        body = cell.task.handled_id
        lever = TABLE_Z + 0.085 - cell.data.xipos[body, 2]  # pushed where fingers push
        cell.data.xfrc_applied[body] = [0.9, 0, 0, 0, 0.9 * lever, 0]
        for _ in range(15):
            state = cell.step(hold(state))
        ups.append(matrix_of(state.objects["bottle"])[2, 2])
    assert ups[1] > 0.98 > 0.9 > ups[0]


def test_both_regimes_of_the_tissue_box_differ_in_what_a_push_does() -> None:
    ups, moved = [], []
    for regime in ("terminal", "retry"):
        cell = Cell(config.load(CellConfig, overrides=["task=drawer", f"drawer.regime={regime}"]))
        state = cell.reset(0)
        start = state.objects["tissue_box"]
        side = matrix_of(start)[:3, 1]
        body = cell.task.handled_id
        lever = TABLE_Z + 0.06 - cell.data.xipos[body, 2]  # pushed where fingers push
        cell.data.xfrc_applied[body, :3] = 0.8 * side
        cell.data.xfrc_applied[body, 3:] = np.cross([0, 0, lever], 0.8 * side)
        for _ in range(6):
            state = cell.step(hold(state))
        cell.data.xfrc_applied[body] = 0
        for _ in range(20):
            state = cell.step(hold(state))
        box = matrix_of(state.objects["tissue_box"])
        ups.append(float(box[2, 2]))
        moved.append(float((box[:3, 3] - start.position) @ side))
        assert state.reason == ("box_over" if regime == "terminal" else "")
    assert ups[1] > 0.98 > 0.5 > ups[0]
    assert moved[1] > 0.02


@pytest.mark.parametrize("regime", ["terminal", "retry"])
def test_a_dropped_lid_is_lost_in_one_regime_only(regime: str) -> None:
    cell = Cell(config.load(CellConfig, overrides=["task=box", f"box.regime={regime}"]))
    state = cell.reset(0)
    lid, dof = int(cell.model.joint("lid").qposadr[0]), int(cell.model.joint("lid").dofadr[0])
    beside = state.objects["box"].position - np.array([0.05, 0.2, 0.0])

    def dropped_from(height: float) -> str:
        cell.reset(0)
        cell.data.qpos[lid : lid + 7] = [*beside[:2], TABLE_Z + 0.008 + height, 1, 0, 0, 0]
        cell.data.qvel[dof : dof + 6] = 0
        state = cell.state
        for _ in range(10):
            state = cell.step(hold(state))
        return state.reason

    assert dropped_from(0.008) == "", "put down, not dropped"
    assert dropped_from(0.08) == ("broke" if regime == "terminal" else "")


def test_images_have_the_configured_size_and_differ_by_view() -> None:
    cell = Cell(CellConfig(width=64, height=48))
    state = cell.reset(0)
    front, wrist = cell.render("front"), cell.render("wrist")
    assert front.shape == wrist.shape == (48, 64, 3)
    assert front.dtype == np.uint8
    assert np.abs(front.astype(int) - wrist).mean() > 10
    goal = matrix_of(state.robot.tcp)
    goal[:3, 3] += [0.1, 0.1, -0.05]
    for _ in range(15):
        cell.step(Command(pose_of(goal[:3, 3], goal[:3, :3]), np.zeros(6)))
    assert np.abs(front.astype(int) - cell.render("front")).max() > 50
    with pytest.raises(ValueError, match="no camera 'side'"):
        cell.render("side")
    cell.close()
    cell.close()


def test_rendering_does_not_change_the_physics() -> None:
    traces = []
    for look in (False, True):
        cell, rng = Cell(CellConfig(width=32, height=32)), np.random.default_rng(3)
        state = cell.reset(2)
        trace = []
        for _ in range(10):
            state = cell.step(wander(state, rng))
            if look:
                cell.render("front")
            trace.append(bits(state))
        cell.close()
        traces.append(trace)
    assert traces[0] == traces[1]


def test_errors_say_what_to_do(cell: Cell) -> None:
    with pytest.raises(RuntimeError, match="call reset"):
        _ = Cell(CellConfig()).state
    with pytest.raises(ValueError, match="no stage 'nowhere'; it has"):
        cell.reset(0, "nowhere")
    with pytest.raises(ValueError, match="expected 0 or more"):
        cell.reset(-1)
    state = cell.reset(0)
    broken = Command(Pose(np.array([np.nan, 0, 0]), state.robot.tcp.quaternion), np.zeros(6))
    with pytest.raises(ValueError, match="finite"):
        cell.step(broken)
    with pytest.raises(ValueError, match="six"):
        cell.step(Command(state.robot.tcp, np.zeros(5)))


@pytest.mark.parametrize(
    "override",
    ["width=4", "cameras=[side]", "task=soup", "arm_speed=0", "disturbances.slip=2", "colour=red"],
)
def test_bad_configs_are_refused(override: str) -> None:
    with pytest.raises(config.ConfigError, match=override.split("=")[0].split(".")[-1]):
        config.load(CellConfig, overrides=[override])


def test_inverse_kinematics_finds_poses_it_came_from() -> None:
    arm, rng = ArmKinematics(), np.random.default_rng(0)
    home = np.array([-0.6, -1.45, 2.2, -0.75, 1.0, 3.14])
    for _ in range(20):
        target = arm.forward(home + rng.uniform(-0.25, 0.25, 6))
        joints, error = arm.inverse(target, home, iterations=50)
        assert error < 1e-5
        assert np.abs(arm.forward(joints) - target).max() < 1e-5


def test_rotation_helpers_agree_with_geometry() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        vector = rng.normal(size=3)
        vector *= rng.uniform(0, 3.1) / np.linalg.norm(vector)
        rotation = rotation_matrix(vector)
        assert rotation_vector(rotation) == pytest.approx(vector, abs=1e-9)
        pose = pose_of(np.arange(3.0), rotation)
        assert pose.quaternion[3] >= 0
        assert pose.matrix() == pytest.approx(matrix_of(pose), abs=1e-12)
