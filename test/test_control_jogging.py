"""Small motions by hand: velocities within their limits, good for a moment only."""

import numpy as np
import pytest
from arbiter_rig import Rig, robot
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.control.jogging import AXES, NAMES, JogConfig, Jogging
from dexpie_ros.control.quaternions import distance_and_angle, motion
from dexpie_ros.control.types import HAND_JOINTS, Mode, Source

MS = 1_000_000


def jogged(names, velocities, steps=25):
    """The commands of a jog that is asked for at each of ``steps``."""
    rig, jog = Rig(), Jogging()
    rig.arbiter.start("deployment")
    first = rig.step()
    commands = [first]
    for k in range(steps):
        assert jog.ask(names, velocities, k * 40 * MS) == ""
        rig.arbiter.add_chunk(jog.chunk(commands[-1]))
        commands.append(rig.step())
    return commands


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_second_of_a_velocity_is_its_way_along_base(axis):
    commands = jogged([AXES[axis]], [0.02])
    way = commands[-1].command.tcp.position - commands[0].command.tcp.position
    assert way == pytest.approx(np.eye(3)[axis] * 0.02, abs=1e-9)
    assert {c.source for c in commands[2:]} == {Source.POLICY}


def test_a_turn_is_about_an_axis_of_base_through_the_tcp():
    commands = jogged(["rz"], [0.1])
    a, b = commands[0].command.tcp, commands[-1].command.tcp
    assert np.array_equal(a.position, b.position)
    turn = b.matrix()[:3, :3] @ a.matrix()[:3, :3].T
    c, s = np.cos(0.1), np.sin(0.1)
    assert turn == pytest.approx(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), abs=1e-9)


def test_one_finger_moves_alone():
    commands = jogged(["index"], [-0.2])
    moved = commands[-1].command.hand - commands[0].command.hand
    expected = np.zeros(6)
    expected[HAND_JOINTS.index("index")] = -0.2
    assert moved == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(-10, 10)), min_size=1, max_size=12))
def test_no_question_is_faster_than_the_limits(asked):
    use = JogConfig()
    commands = jogged([n for n, _ in asked], [v for _, v in asked], steps=4)
    for a, b in zip(commands, commands[1:], strict=False):
        distance, angle = distance_and_angle(a.command.tcp, b.command.tcp)
        assert distance <= use.linear_speed * 0.04 + 1e-9
        assert angle <= use.angular_speed * 0.04 + 1e-9
        assert np.abs(b.command.hand - a.command.hand).max() <= use.hand_speed * 0.04 + 1e-9


def test_who_stops_asking_stops_the_robot():
    jog = Jogging(JogConfig(patience_s=0.2))
    assert not jog.asked(0)
    jog.ask(["x"], [0.01], 0)
    assert jog.asked(199 * MS) and not jog.asked(200 * MS)
    jog.ask(["x"], [0.0], 210 * MS)
    assert not jog.asked(211 * MS), "zero is asked for: the end"
    # and the chunk that is executing ends by itself
    rig = Rig()
    rig.arbiter.start("deployment")
    first = rig.step()
    jog.ask(["x"], [0.05], 0)
    rig.arbiter.add_chunk(jog.chunk(first))
    last = [rig.step() for _ in range(20)][-1]
    assert last.source is Source.HOLD and last.mode is Mode.POLICY
    assert last.command.tcp.position[0] - robot().tcp.position[0] < 0.007


@pytest.mark.parametrize(
    ("names", "velocities", "why"),
    [
        (["x", "y"], [0.1], "2 names, 1 velocities"),
        ([], [], "0 names"),
        (["tcp"], [0.1], "no axis 'tcp'; known: x, y, z"),
        (["x"], [float("nan")], "x: velocity and position must be numbers"),
        (["rx"], [float("inf")], "rx: velocity and position must be numbers"),
    ],
)
def test_nonsense_is_refused_and_moves_nothing(names, velocities, why):
    jog = Jogging()
    assert why in jog.ask(names, velocities, 0)
    assert not jog.asked(1)


@given(st.lists(st.floats(-0.4, 0.4), min_size=12, max_size=12))
def test_no_axis_goes_farther_than_asked(amounts):
    rig, jog = Rig(), Jogging()
    rig.arbiter.start("deployment")
    steps = [rig.step()]
    wanted = [0.5 * a for a in amounts]
    for k in range(12):
        assert jog.ask(NAMES, amounts, k * 40 * MS, wanted, identity=7) == ""
        rig.arbiter.add_chunk(jog.chunk(steps[-1]))
        steps.append(rig.step())
    linear, angular = motion(steps[0].command.tcp, steps[-1].command.tcp)
    assert np.all(np.abs(linear) <= np.abs(wanted[:3]) + 1e-9)
    assert np.linalg.norm(angular) <= np.linalg.norm(wanted[3:6]) + 1e-6
    moved = np.abs(steps[-1].command.hand - steps[0].command.hand)
    assert np.all(moved <= np.abs(wanted[6:]) + 1e-9)
    assert jog.ask(["x"], [0.1], 0, [1.0, 2.0]) and jog.ask(["x"], [0.1], 0, [float("nan")])
