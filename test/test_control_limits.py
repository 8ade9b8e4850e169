"""Quaternions of the loop against geometry, and the limiter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros import geometry as g
from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control import quaternions as q
from dexpie_ros.control.limits import Limiter, LimitsConfig
from dexpie_ros.control.types import Command
from dexpie_ros.geometry import Pose

numbers = st.floats(-3.0, 3.0)
vectors = st.tuples(numbers, numbers, numbers)


def pose(v=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array(v, float), np.array(q.from_rotvec(tuple(turn))))


def command(v=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), hand=0.5) -> Command:
    return Command(pose(v, turn), np.full(6, float(hand)))


@given(vectors, vectors, vectors, vectors, st.floats(0, 1))
def test_scalar_arithmetic_equals_geometry(p1, r1, p2, r2, s):
    a, b = pose(p1, r1), pose(p2, r2)
    np.testing.assert_allclose(q.compose(a, b).matrix(), a.matrix() @ b.matrix(), atol=1e-12)
    np.testing.assert_allclose(q.inverse(a).matrix(), g.invert(a.matrix()), atol=1e-12)
    _, angle = q.distance_and_angle(a, b)
    expected = float(g.rotation_angle(a.matrix()[:3, :3], b.matrix()[:3, :3]))
    assert angle == pytest.approx(expected, abs=1e-7)
    if angle < 3.1:  # at pi the geodesic is not unique
        between = g.interpolate(a.matrix(), b.matrix(), s)
        np.testing.assert_allclose(q.blend(a, b, s).matrix(), between, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-13, 1e-7, 0.3, math.pi - 1e-9])
def test_rotation_vectors_round_trip(angle):
    v = (angle * 0.6, 0.0, -angle * 0.8)
    np.testing.assert_allclose(q.to_rotvec(q.from_rotvec(v)), v, atol=1e-14)


def test_zero_and_nan_quaternions_are_refused():
    with pytest.raises(ValueError, match="zero length"):
        q.as_quaternion((0, 0, 0, 0))
    with pytest.raises(ValueError, match="NaN"):
        q.as_quaternion((math.nan, 0, 0, 1))
    assert not q.is_finite(Pose(np.zeros(3), np.array([0, 0, 0, 1.1])))
    assert not q.is_finite(Pose(np.array([0, np.inf, 0]), np.array([0, 0, 0, 1.0])))


def test_a_goal_within_the_limits_passes_unchanged():
    limiter = Limiter()
    limiter.reset(command())
    # 0.5 m/s and 3 rad/s from rest, and back at once
    for goal in (command((0.02, 0, 0), (0, 0, 0.12), 0.6), command(), command((0, 0.02, 0))):
        assert limiter.limit(goal) is goal
    assert limiter.statistics.steps == 0


def test_speed_is_limited_on_the_straight_way_to_the_goal():
    limits = LimitsConfig(linear_speed=0.5, angular_speed=1.0, hand_speed=2.5)
    limiter = Limiter(limits)
    limiter.reset(command())
    done = limiter.limit(command((0.3, 0.4, 0.0), (0, 0, 1.0), 1.0))
    np.testing.assert_allclose(done.tcp.position, [0.012, 0.016, 0.0], atol=1e-15)
    np.testing.assert_allclose(q.to_rotvec(tuple(done.tcp.quaternion)), [0, 0, 0.04], atol=1e-12)
    np.testing.assert_allclose(done.hand, 0.6)
    s = limiter.statistics
    assert (s.linear, s.angular, s.hand, s.steps) == (1, 1, 1, 1)


def test_speeding_up_is_limited_and_braking_is_not():
    limiter = Limiter(LimitsConfig(linear_speed=1.0, linear_acceleration=2.5))  # 4 mm/step^2
    limiter.reset(command())
    xs = [limiter.limit(command((1.0, 0, 0))).tcp.position[0] for _ in range(4)]
    np.testing.assert_allclose(np.diff([0.0, *xs]), [0.004, 0.008, 0.012, 0.016])
    stop = limiter.limit(command((xs[-1], 0, 0)))
    assert stop.tcp.position[0] == xs[-1]
    assert limiter.limit(command((1.0, 0, 0))).tcp.position[0] - xs[-1] == pytest.approx(0.004)
    limiter.limit(command((1.0, 0, 0)))
    before = limiter.last.tcp.position[0]  # turning back starts from rest
    assert before - limiter.limit(command((-1.0, 0, 0))).tcp.position[0] == pytest.approx(0.004)


def test_the_workspace_is_kept_and_walked_back_into():
    limiter = Limiter(LimitsConfig(workspace_lower=(-0.1, -0.1, 0.0)))
    limiter.reset(command((0, 0, -0.05)))  # found outside: no jump
    z = [float(limiter.limit(command((0, 0, -0.2))).tcp.position[2]) for _ in range(4)]
    assert z[0] == pytest.approx(-0.03) and z[-1] == 0.0
    assert limiter.statistics.workspace == 4


def test_the_hand_stays_in_its_range_and_stops_closing_at_the_force():
    limiter = Limiter(LimitsConfig(hand_force=10.0))
    limiter.reset(command(hand=0.1))
    force = np.array([0.0, 12.0, 0.0, 0.0, 0.0, 0.0])
    closed = limiter.limit(command(hand=-0.05), force)
    np.testing.assert_allclose(closed.hand, [0, 0.1, 0, 0, 0, 0])
    assert limiter.statistics.force == 1
    np.testing.assert_allclose(limiter.limit(command(hand=0.2), force).hand, 0.2)  # opening may


@given(
    st.lists(st.tuples(vectors, vectors, st.floats(-1, 2)), min_size=1, max_size=12),
    st.floats(0.05, 2.0),
    st.floats(0.1, 5.0),
)
def test_no_step_is_ever_above_the_limits(goals, speed, turn):
    limits = LimitsConfig(linear_speed=speed, angular_speed=turn, linear_acceleration=3.0)
    limiter = Limiter(limits)
    limiter.reset(command())
    wanted = [command(v, r, h) for v, r, h in goals]
    expected = limiter.preview(wanted)
    last, step = limiter.last, 0.0
    for goal, preview in zip(wanted, expected, strict=True):
        now = limiter.limit(goal)
        distance, angle = q.distance_and_angle(last.tcp, now.tcp)
        assert distance <= speed * 0.04 + 1e-9 and angle <= turn * 0.04 + 1e-7
        assert distance <= step + 3.0 * 0.0016 + 1e-9
        assert np.abs(now.hand - last.hand).max() <= 5.0 * 0.04 + 1e-12
        assert (now.hand >= 0).all() and (now.hand <= 1).all()
        assert (np.abs(now.tcp.position) <= 1.2).all()
        np.testing.assert_array_equal(now.tcp.position, preview.tcp.position)
        np.testing.assert_array_equal(now.hand, preview.hand)
        last, step = now, distance


def test_hold_and_missing_reset():
    limiter = Limiter()
    with pytest.raises(RuntimeError, match="reset"):
        limiter.limit(command())
    limiter.reset(command())
    assert limiter.hold() is limiter.last


def test_a_box_that_is_inside_out_is_refused():
    with pytest.raises(ConfigError, match=r"workspace_lower\.y"):
        from_dict(LimitsConfig, {"workspace_lower": [0, 2, 0]})


def test_command_does_not_run_away_from_a_robot_that_cannot_follow():
    """Straight away at 10 mm a step from a robot that stands still: it ends at 0.25 m, upright."""
    limiter = Limiter(LimitsConfig(lead=0.25))
    stands = Pose(np.array([0.4, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))
    limiter.reset(Command(stands, np.zeros(6)))
    for k in range(1, 60):
        goal = Command(Pose(np.array([0.4 + 0.01 * k, 0.0, 0.3]), stands.quaternion), np.zeros(6))
        command = limiter.limit(goal, measured=stands)
        if k <= 25:
            assert command is goal, "within the limit nothing is changed"
    np.testing.assert_allclose(command.tcp.position, [0.65, 0.0, 0.3], atol=1e-12)
    assert limiter.statistics.lead == 59 - 25
    ahead = limiter.preview([goal] * 4)
    assert max(c.tcp.position[0] for c in ahead) < 0.65 + 1e-12, "as it will be executed"
    assert limiter.limit(goal) is not None and limiter.last.tcp.position[0] > 0.65
    assert limiter.preview([goal])[0].tcp.position[0] > 0.65


def test_command_does_not_turn_away_from_a_wrist_that_is_blocked():
    """About z at 0.05 rad a step while the wrist stands still: it ends at 0.4 rad."""
    limiter = Limiter(LimitsConfig(angular_lead=0.4))
    position = np.array([0.4, 0.0, 0.3])

    def turned(angle: float) -> Pose:
        return Pose(position, np.array([0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2)]))

    limiter.reset(Command(turned(0.0), np.zeros(6)))
    for k in range(1, 41):
        goal = Command(turned(0.05 * k), np.zeros(6))
        command = limiter.limit(goal, measured=turned(0.0))
        if k < 8:
            assert command is goal, "within the limit nothing is changed"
    np.testing.assert_allclose(command.tcp.quaternion, turned(0.4).quaternion, atol=1e-12)
    np.testing.assert_array_equal(command.tcp.position, position)
    assert limiter.statistics.lead == 40 - 8
    back = Command(turned(0.3), np.zeros(6))
    for _ in range(5):
        command = limiter.limit(back, measured=turned(0.0))
    np.testing.assert_allclose(command.tcp.quaternion, turned(0.3).quaternion, atol=1e-12)


def test_a_robot_that_was_pushed_out_of_the_box_draws_no_command_after_it():
    limiter = Limiter(LimitsConfig(lead=0.25))
    upright = np.array([0.0, 0.0, 0.0, 1.0])
    held = Command(Pose(np.array([0.9, 0.0, 0.3]), upright), np.zeros(6))
    limiter.reset(held)
    outside = Pose(np.array([1.4, 0.0, 0.3]), upright)
    for _ in range(60):
        command = limiter.limit(held, measured=outside)
    np.testing.assert_allclose(command.tcp.position, [1.0, 0.0, 0.3], atol=1e-12)
