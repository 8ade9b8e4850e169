"""What the arm is sent at each cycle: bounds, interpolation, refusals, braking; needs no robot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexpie_ros import geometry
from dexpie_ros.devices import ur_kinematics as kin
from dexpie_ros.devices.arm_limits import ArmLimits, MotionLimiter

PERIOD = 0.008
START = np.array([0.3, -1.4, 1.7, -1.9, -1.5, 0.4])
WIDE = ArmLimits(workspace_low=(-1, -1, -1), workspace_high=(1, 1, 1))


def limiter(limits=WIDE, tcp=None, model=kin.UR5):
    tcp = np.eye(4) if tcp is None else tcp
    made = MotionLimiter(limits, model, tcp, PERIOD)
    made.reset(kin.forward(model, START) @ tcp, START)
    return made


def moved(pose, x=0.0, y=0.0, z=0.0, turn=(0, 0, 0)):
    return geometry.make_pose(
        pose[:3, :3] @ geometry.rotation_exp(np.array(turn, float)), pose[:3, 3] + [x, y, z]
    )


def test_without_a_target_nothing_moves():
    arm = limiter()
    before = arm.pose.copy()
    for _ in range(10):
        pose, problem = arm.advance()
        assert problem == ""
        assert np.array_equal(pose, before)


def test_a_reachable_target_is_reached_exactly_and_kept():
    arm = limiter()
    goal = moved(arm.pose, x=-0.02, z=0.01, turn=(0.1, 0, 0.05))
    assert arm.accept(goal) == ""
    for _ in range(60):
        _, problem = arm.advance()
        assert problem == ""
    assert np.allclose(arm.pose, goal, atol=1e-7)


@given(
    targets=st.lists(
        st.tuples(*[st.floats(-0.1, 0.1)] * 3, *[st.floats(-0.4, 0.4)] * 3), min_size=1, max_size=8
    )
)
@settings(max_examples=40, deadline=None)
def test_speed_and_acceleration_stay_bounded_whatever_is_commanded(targets):
    limits = ArmLimits(
        workspace_low=(-1, -1, -1), workspace_high=(1, 1, 1), max_step=1.0, max_turn=3.0,
        first_step=1.0, first_turn=3.0,
    )  # fmt: skip
    arm, poses = limiter(limits), []
    home = arm.pose
    for number, (x, y, z, *turn) in enumerate(targets):
        arm.accept(moved(home, x, y, z, turn))
        for cycle in range(5):
            if number % 3 == 2 and cycle == 2:
                arm.hold()  # silence, lag
            poses.append(arm.advance()[0])
    p = np.array([home[:3, 3], home[:3, 3], *[pose[:3, 3] for pose in poses]])
    v = np.diff(p, axis=0) / PERIOD
    assert np.linalg.norm(v, axis=1).max() <= limits.max_speed * (1 + 1e-6)
    a = np.linalg.norm(np.diff(v, axis=0), axis=1) / PERIOD
    assert np.all(a <= limits.max_acceleration * (1 + 1e-6))
    turns = [geometry.rotation_angle(s[:3, :3], t[:3, :3]) for s, t in zip(poses, poses[1:])]
    assert np.all(np.array(turns) <= limits.max_angular_speed * PERIOD * (1 + 1e-6))


def test_does_not_overshoot_when_the_commands_end():
    arm = limiter()
    start = arm.pose.copy()
    for step in range(1, 11):
        assert arm.accept(moved(start, z=-0.008 * step)) == ""  # 0.2 m/s
        for _ in range(5):
            arm.advance()
    for _ in range(60):
        pose, _ = arm.advance()
        assert pose[2, 3] >= start[2, 3] - 0.08 - 1e-6
    assert pose[2, 3] == pytest.approx(start[2, 3] - 0.08, abs=1e-6)


def test_a_target_that_is_said_again_is_not_reached_later():
    """Who holds repeats his last command: what is left of the way to it is not stretched."""

    def last_change(again):
        arm, pose = limiter(), limiter().pose
        for k in range(1, 11):  # 0.1 m/s, a command every five cycles
            assert arm.accept(moved(pose, y=-0.004 * k)) == ""
            for _ in range(5 if k < 10 else 4):  # the last is repeated a cycle early
                arm.advance()
        sent = [arm.pose]
        for cycle in range(60):
            if again and cycle % 5 == 0:
                assert arm.accept(moved(pose, y=-0.04)) == ""
            sent.append(arm.advance()[0])
        assert np.allclose(sent[-1], moved(pose, y=-0.04), atol=1e-9)
        return max(k for k in range(60) if np.abs(sent[k + 1] - sent[k]).max() > 1e-6)

    assert last_change(again=True) == last_change(again=False)


def test_a_target_that_is_said_again_after_braking_is_followed():
    arm, goal = limiter(), moved(limiter().pose, y=-0.02)
    assert arm.accept(goal) == ""
    arm.advance()
    arm.hold()
    for _ in range(20):
        arm.advance()
    assert arm.accept(goal) == ""
    for _ in range(60):
        arm.advance()
    assert np.allclose(arm.pose, goal, atol=1e-9)


def test_targets_outside_the_box_are_clipped():
    arm = limiter()
    z = arm.pose[2, 3]
    arm = limiter(ArmLimits(workspace_low=(-1, -1, z - 0.01), workspace_high=(1, 1, 1)))
    assert arm.accept(moved(arm.pose, z=-0.05)) == ""
    for _ in range(100):
        arm.advance()
    assert arm.pose[2, 3] == pytest.approx(z - 0.01, abs=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": 0.09}, "0.090 m away"),
        ({"turn": (0, 0.6, 0)}, "turned by 0.60 rad"),
        ({"y": float("nan")}, "not finite"),
    ],
)
def test_refusals_say_why_and_keep_the_old_target(change, words):
    arm = limiter()
    before = arm.pose.copy()
    assert words in arm.accept(moved(arm.pose, **change))
    for _ in range(20):
        arm.advance()
    assert np.allclose(arm.pose, before, atol=1e-12)


def test_a_command_back_to_where_a_blocked_arm_is_is_followed():
    """A wedged or slowed arm: else it pushes on, or goes the way on its own when it comes free."""
    made = limiter()
    arm = made.pose
    for k in range(1, 15):
        assert made.accept(moved(arm, z=0.01 * k), arm) == ""
        for _ in range(5):
            made.advance()
    ahead = float(np.linalg.norm(made.pose[:3, 3] - arm[:3, 3]))
    assert ahead > made._limits.max_step
    assert "away" in made.accept(arm), "unless it is known to be there"
    assert made.accept(arm, arm) == ""
    speeds = []
    for _ in range(100):
        before = made.pose[:3, 3]
        made.advance()
        speeds.append(float(np.linalg.norm(made.pose[:3, 3] - before)) / PERIOD)
    assert np.allclose(made.pose, arm, atol=1e-6) and max(speeds) <= WIDE.max_speed + 1e-9
    assert "away" in made.accept(moved(arm, y=0.1), arm), "a jump is still refused"


def test_the_edge_of_the_reach_stops_the_arm():
    arm = limiter()
    problems = set()
    direction = arm.pose[:3, 3] / np.linalg.norm(arm.pose[:3, 3])
    for _ in range(60):
        arm.accept(moved(arm.pose, *(0.02 * direction)))
        for _ in range(5):
            problems.add(arm.advance()[1])
    assert any("reach" in problem or "singular" in problem for problem in problems)
    margin = ArmLimits().reach_margin
    assert len(kin.inverse(kin.UR5, arm.pose, margin / 2 * 0.99)) > 0


def test_limits_refuse_impossible_values():
    with pytest.raises(ValueError, match="workspace z"):
        ArmLimits(workspace_low=(-1, -1, 1), workspace_high=(1, 1, 0))
    with pytest.raises(ValueError, match="max_speed"):
        ArmLimits(max_speed=0.0)
