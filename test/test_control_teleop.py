"""Retargeting, filters, the follower and its alignment."""

import math

import numpy as np
import pytest

from dexpie_ros.config import ConfigError, from_dict, to_dict
from dexpie_ros.control import quaternions as q
from dexpie_ros.control.filters import FilterConfig, PoseFilter, VectorFilter
from dexpie_ros.control.homing import HomingConfig
from dexpie_ros.control.retargeting import (
    ERGONOMICS,
    LinearRetargeting,
    RetargetingConfig,
    calibrate,
    canonical_ergonomics,
    canonical_name,
)
from dexpie_ros.control.teleop import Teleop, TeleopConfig
from dexpie_ros.control.types import RobotState
from dexpie_ros.geometry import Pose

MS = 1_000_000


def pose(v=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array(v, float), np.array(q.from_rotvec(tuple(turn))))


def robot(turn=(0.0, 0.0, 0.0), hand=0.5, v=(0.3, 0, 0.3)) -> RobotState:
    return RobotState(0, np.zeros(6), np.zeros(6), pose(v, turn), np.full(6, hand))


def glove(opening: float) -> dict[str, float]:
    return LinearRetargeting().inverse(np.full(6, opening))


def test_the_default_channels_by_hand():
    half = {
        "PinkyMCPStretch": 37.5,
        "RingMCPStretch": 45.0,
        "MiddleMCPStretch": 10.0,
        "IndexMCPStretch": 90.0,
        "ThumbMCPStretch": 200.0,
        "ThumbMCPSpread": 5.0,
    }
    np.testing.assert_allclose(LinearRetargeting()(half), [0.5, 0.5, 1.0, 0.0, 0.0, 0.25])
    opening = np.array([0.1, 0.9, 0.3, 0.4, 0.5, 0.6])
    retarget = LinearRetargeting()
    np.testing.assert_allclose(retarget(retarget.inverse(opening)), opening)


def test_missing_and_broken_glove_values_are_named():
    values = glove(0.5)
    del values["RingMCPStretch"]
    values["IndexMCPStretch"] = math.nan
    with pytest.raises(ValueError, match="RingMCPStretch, IndexMCPStretch"):
        LinearRetargeting()(values)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ThumbMCPSpread", ("ThumbMCPSpread", "")),
        ("LeftFingerThumbMCPSpread", ("ThumbMCPSpread", "left")),
        ("ErgonomicsDataType_RightFingerIndexMCPSpread", ("IndexSpread", "right")),
        ("RightFingerPinkySpread", ("PinkySpread", "right")),
        ("ThumbSpread", ("ThumbMCPSpread", "")),
        ("MiddlePIPStretch", ("MiddlePIPStretch", "")),
    ],
)
def test_names_of_all_interfaces_become_one(name, expected):
    assert canonical_name(name) == expected


def test_values_of_the_other_hand_are_left_out():
    both = {"LeftFingerIndexMCPStretch": 1.0, "RightFingerIndexMCPStretch": 2.0}
    assert canonical_ergonomics(both, "right") == {"IndexMCPStretch": 2.0}
    assert len(ERGONOMICS) == 20 and len(set(ERGONOMICS)) == 20


def test_calibration_takes_medians_and_refuses_a_hand_that_did_not_move():
    opened = [glove(0.9), glove(1.0), glove(1.0)]
    closed = [glove(0.0), glove(0.0), {**glove(0.0), "ThumbMCPSpread": 90.0}]
    result = calibrate(opened, closed)
    assert result.thumb_rotation.open_deg == 35.0 and result.thumb_rotation.closed_deg == -5.0
    assert from_dict(RetargetingConfig, to_dict(result)) == result
    with pytest.raises(ConfigError, match="less than 10 deg"):
        calibrate(opened, opened)
    with pytest.raises(ValueError, match="no samples"):
        calibrate([], closed)
    with pytest.raises(ValueError, match="has no RingMCPStretch"):
        calibrate([{k: v for k, v in glove(1).items() if k != "RingMCPStretch"}], closed)
    with pytest.raises(ConfigError, match="not a glove value"):
        from_dict(
            RetargetingConfig,
            {"index": {"ergonomics": "Index", "open_deg": 0, "closed_deg": 90}},
        )


def test_neutral_filters_pass_the_same_bits():
    vector, poses = VectorFilter(), PoseFilter()
    for k in range(3):
        value, p = np.random.default_rng(k).normal(size=6), pose((k, 0, 0), (0, 0, 0.1 * k))
        assert vector(value, k) is value
        passed = poses(p, k)
        assert passed.position is p.position and passed.quaternion is p.quaternion


def test_the_low_pass_answers_by_time_and_not_by_samples():
    def after(step_ms: int) -> float:
        low_pass = VectorFilter(FilterConfig(cutoff_hz=2.0))
        low_pass(np.zeros(1), 0)
        for t in range(step_ms, 101, step_ms):
            value = low_pass(np.ones(1), t * MS)
        return float(value[0])

    expected = 1 - math.exp(-2 * math.pi * 2.0 * 0.1)
    assert after(1) == pytest.approx(expected) and after(50) == pytest.approx(expected)
    rotation = PoseFilter(rotation_cutoff_hz=2.0, position_cutoff_hz=2.0)
    rotation(pose(), 0)
    filtered = rotation(pose((1, 0, 0), (0, 0, 1.0)), 100 * MS)
    assert q.to_rotvec(tuple(filtered.quaternion))[2] == pytest.approx(expected)
    assert filtered.position[0] == pytest.approx(expected)
    assert rotation(pose(), 50 * MS) is filtered  # an older sample changes nothing


def test_rate_limit_and_deadband():
    rated = VectorFilter(FilterConfig(rate=1.5))
    rated(np.zeros(2), 0)
    np.testing.assert_allclose(rated(np.array([1.0, 0.01]), 40 * MS), [0.06, 0.01])
    still = VectorFilter(FilterConfig(deadband=0.005))
    still(np.zeros(1), 0)
    assert still(np.array([0.004]), MS)[0] == 0.0
    assert still(np.array([0.006]), 2 * MS)[0] == 0.006
    still.reset()
    assert still(np.array([0.5]), MS)[0] == 0.5


def test_the_follower_needs_both_devices_and_knows_their_age():
    teleop = Teleop()
    assert teleop.follower() is None and "tracker" in teleop.lost()
    teleop.update(pose((1, 2, 3)), 100 * MS)
    assert teleop.follower() is None and "glove" in teleop.lost()
    assert not teleop.update_glove(glove(0.5), "Left")
    assert teleop.update_glove(glove(0.5), "Right")
    assert teleop.follower().tcp.position.tolist() == [1, 2, 3]
    np.testing.assert_allclose(teleop.follower().hand, 0.5)
    assert teleop.follower(140 * MS) is not None
    assert teleop.follower(141 * MS) is None and "glove" in teleop.lost(141 * MS)
    assert teleop.update_glove(glove(0.5), "right", 290 * MS)
    assert teleop.follower(300 * MS) is not None
    assert teleop.follower(301 * MS) is None and "tracker" in teleop.lost(301 * MS)
    teleop.update(pose(), 310 * MS)
    assert teleop.follower(310 * MS) is not None
    assert "glove" in teleop.lost(340 * MS)
    assert not teleop.update(pose((math.nan, 0, 0)), 320 * MS)


def test_a_lost_operator_is_told_by_openings_that_are_none():
    teleop = Teleop()
    assert teleop.unled() is None
    teleop.update(pose((1, 2, 3)), 100 * MS)
    assert teleop.unled() is None, "nobody has led yet"
    teleop.update_glove(glove(0.5), "right", 100 * MS)
    teleop.update(pose((1, 2, 4)), 200 * MS)
    assert teleop.follower(200 * MS) is None
    assert teleop.unled().tcp.position.tolist() == [1, 2, 4]
    assert np.isnan(teleop.unled().hand).all()
    teleop.restore(pose((10, 0, 0)))
    assert teleop.unled(in_base=True).tcp.position.tolist() == [11, 2, 4]


def test_the_mounting_makes_the_follower_turn_with_the_hand():
    """T_ee(t) = T_ee(t0) X^-1 T_v(t0)^-1 T_v(t) X, the formula of the paper."""
    mounting = pose((0.0, 0.02, 0.1), (0, 0, math.pi / 2))
    teleop = Teleop(
        TeleopConfig(
            mounting_quaternion=tuple(mounting.quaternion),
            mounting_position=tuple(mounting.position),
        )
    )
    rng = np.random.default_rng(3)
    start, now, ee = (pose(rng.normal(size=3), rng.normal(size=3)) for _ in range(3))
    teleop.update_glove(glove(1.0), "right", 0)
    teleop.update(start, 0)
    f0 = teleop.follower().tcp
    teleop.update(now, 40 * MS)
    got = q.compose(q.compose(ee, q.inverse(f0)), teleop.follower().tcp).matrix()
    x, v0, v = mounting.matrix(), start.matrix(), now.matrix()
    expected = ee.matrix() @ np.linalg.inv(x) @ np.linalg.inv(v0) @ v @ x
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_calibration_makes_an_arbitrary_tracker_world_drop_out():
    teleop = Teleop()
    with pytest.raises(ValueError, match="tracker"):
        teleop.calibrate(robot())
    assert math.isnan(teleop.alignment(robot()).angle) and not teleop.alignment(robot()).aligned
    world = pose((3, -1, 2), (0.4, 1.0, -0.7))  # base -> tracker world

    def wrist(turn):
        return q.compose(world, pose((0.3, 0, 0.3), turn))

    teleop.update(wrist((0.1, 0.2, 0.3)), 0)
    teleop.update_glove(glove(0.5), "right")
    before = teleop.alignment(robot((0.1, 0.2, 0.3)))
    assert not before.aligned and "calibrate" in before.describe()
    teleop.calibrate(robot((0.1, 0.2, 0.3)))
    aligned = teleop.alignment(robot((0.1, 0.2, 0.3)))
    assert aligned.angle == pytest.approx(0, abs=1e-7) and aligned.aligned
    assert aligned.describe() == ""
    in_base = teleop.follower_in_base()
    np.testing.assert_allclose(in_base.tcp.position, [0.3, 0, 0.3], atol=1e-12)
    off = teleop.alignment(robot(tuple(np.array([0.1, 0.2, 0.3]) * (1 + 0.3 / 0.374165738677))))
    assert off.angle == pytest.approx(0.3, abs=1e-6) and not off.aligned
    closed = teleop.alignment(robot((0.1, 0.2, 0.3), hand=0.0))
    np.testing.assert_allclose(closed.hand_difference, 0.5)
    assert not closed.aligned and "more open" in closed.describe()


def test_the_clutch_lets_the_operator_move_back_unnoticed():
    teleop = Teleop()
    teleop.update_glove(glove(1.0), "right", 0)
    teleop.update(pose((0.1, 0, 0)), 0)
    held = teleop.follower().tcp
    teleop.clutch(False)
    teleop.update(pose((0.9, 0.5, 0), (0, 0, math.pi / 2)), 40 * MS)
    assert teleop.follower().tcp is held
    teleop.clutch(True)
    np.testing.assert_allclose(teleop.follower().tcp.matrix(), held.matrix(), atol=1e-12)
    # 10 mm along the hand's own x, which now points along the world's y
    teleop.update(pose((0.9, 0.51, 0), (0, 0, math.pi / 2)), 80 * MS)
    np.testing.assert_allclose(teleop.follower().tcp.position, [0.11, 0, 0], atol=1e-12)


@pytest.mark.parametrize("let_go", [True, False])
def test_calibration_after_the_clutch_moves_nothing(let_go):
    """Absolute: the follower is where the robot is. Relative: it does not jump where it was."""
    for absolute in (True, False):
        teleop = Teleop()
        teleop.update_glove(glove(1.0), "right", 0)
        teleop.update(pose((0.1, 0, 0)), 0)
        teleop.calibrate(robot(), absolute=absolute)
        teleop.clutch(False)
        teleop.update(pose((0.9, 0.5, 0), (0, 0, 1.0)), 40 * MS)
        if not let_go:
            teleop.clutch(True)
        before = teleop.follower().tcp.matrix()
        teleop.calibrate(robot((0.1, 0, 0), v=(0.4, 0.1, 0.2)), absolute=absolute)
        if not absolute:
            np.testing.assert_array_equal(teleop.follower().tcp.matrix(), before)
            continue
        there = pose((0.4, 0.1, 0.2), (0.1, 0, 0)).matrix()
        np.testing.assert_allclose(teleop.follower_in_base().tcp.matrix(), there, atol=1e-12)
        teleop.update(pose((0.9, 0.8, 0), (0, 0, 1.0)), 80 * MS)
        if let_go:
            np.testing.assert_allclose(teleop.follower_in_base().tcp.matrix(), there, atol=1e-12)
            teleop.clutch(True)
            np.testing.assert_allclose(teleop.follower_in_base().tcp.matrix(), there, atol=1e-12)
        else:
            moved = teleop.follower_in_base().tcp.position - there[:3, 3]
            assert np.linalg.norm(moved) == pytest.approx(0.3)


def test_a_lost_tracker_is_no_calibration():
    teleop = Teleop()
    teleop.update(pose((0.1, 0, 0)), 1000 * MS)
    with pytest.raises(ValueError, match=r"silent for more than 0\.2 s; bring it into view"):
        teleop.calibrate(robot(), 1201 * MS)
    assert not teleop.calibrated
    teleop.calibrate(robot(), 1200 * MS)
    assert teleop.calibrated


def test_a_clock_that_was_set_back_does_not_freeze_the_operator():
    """A simulation that began anew: its stamps start from the beginning."""
    teleop = Teleop(TeleopConfig(position_cutoff_hz=2.0))
    for k in range(5):
        teleop.update(pose((k, 0, 0)), (10**4 + 40 * k) * MS)
        teleop.update_glove(glove(0.1 * k), "right", (10**4 + 40 * k) * MS)
    late = teleop.follower()
    assert teleop.update(pose((50, 0, 0)), (10**4 + 120) * MS)
    assert teleop.follower().tcp == late.tcp, "a late sample changes nothing"
    teleop.update(pose((7, 0, 0)), 40 * MS)
    teleop.update_glove(glove(0.9), "right", 40 * MS)
    follower = teleop.follower(50 * MS)
    assert follower is not None and follower.tcp.position[0] == 7.0
    np.testing.assert_allclose(follower.hand, 0.9)
    assert teleop.oldest_ns == 40 * MS
    assert teleop.follower(300 * MS) is None, "and a silent device is lost again"


def test_a_retargeting_that_gives_no_numbers_does_not_spoil_the_filter():
    openings = iter([np.full(6, 0.5), np.full(6, math.nan), np.full(6, 0.6)])
    teleop = Teleop(retargeting=lambda _: next(openings))
    teleop.update_glove({}, "right", 0)
    with pytest.raises(ValueError, match="not finite"):
        teleop.update_glove({}, "right", 40 * MS)
    teleop.update_glove({}, "right", 80 * MS)
    teleop.update(pose(), 80 * MS)
    assert np.isfinite(teleop.follower().hand).all()


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        (TeleopConfig, "mounting_quaternion", [0.0, 0.0, 0.0, 0.0]),
        (TeleopConfig, "mounting_quaternion", [1.0, 1.0, 1.0, 1.0]),
        (TeleopConfig, "mounting_quaternion", [0.0, 0.0, math.nan, 1.0]),
        (TeleopConfig, "world_quaternion", [0.0, 0.0, 0.0, 0.0]),
        (TeleopConfig, "world_position", [0.0, math.nan, 0.0]),
        (TeleopConfig, "mounting_position", [0.0, math.inf, 0.0]),
        (HomingConfig, "quaternion", [0.0, 0.0, 0.0, 0.0]),
        (HomingConfig, "position", [math.nan, 0.0, 0.3]),
        (HomingConfig, "hand", [1.0, 1.0, 1.0, 1.0, 1.0, 8.0]),
    ],
)
def test_poses_that_are_none_are_refused_by_name(cls, key, value):
    with pytest.raises(ConfigError, match=key):
        from_dict(cls, {key: value})
    exact = [0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)]
    assert TeleopConfig(mounting_quaternion=exact).mounting_quaternion == tuple(exact)
