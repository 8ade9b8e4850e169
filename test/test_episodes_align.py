"""Alignment: interpolation on SE(3), the newest sample at or before, what is late and lost."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.episodes.align import (
    AlignConfig,
    hold,
    interpolate_poses,
    period_ns,
    slerp,
    time_order,
)

MS = 1_000_000
PLAIN = AlignConfig()


def poses(count, seed):
    rng = np.random.default_rng(seed)
    rotation = geometry.rotation_exp(rng.normal(0, 1.5, (count, 3)))
    return rng.normal(0, 1, (count, 3)), geometry.matrix_to_quaternion(rotation)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_slerp_is_the_geodesic_of_geometry(seed, fraction):
    _, q = poses(2, seed)
    a, b = geometry.quaternion_to_matrix(q)
    expected = geometry.interpolate(
        geometry.make_pose(a, np.zeros(3)), geometry.make_pose(b, np.zeros(3)), fraction
    )
    for sign in (1, -1):
        mine = slerp(q[:1], sign * q[1:], np.array([fraction]))
        # Near a half turn both ways are equally short and either may be taken.
        if geometry.rotation_angle(a, b) < 3.1:
            assert np.allclose(geometry.quaternion_to_matrix(mine)[0], expected[:3, :3], atol=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"latency_ms": {"/arm/tcp": 5.0}},
            "nothing is aligned from /arm/tcp; there is: /arm/tcp_p",
        ),
        ({"latency_ms": {"/control/step": 5.0}}, "nothing is aligned from /control/step"),
        ({"latency_ms": {"/arm/tcp_pose": float("nan")}}, "finite number"),
        ({"tolerance_ms": -5}, "greater than or equal to 0"),
        ({"tolerance_ms": float("inf")}, "finite number"),
        ({"lost_ms": 0}, "greater than 0"),
        ({"tolerance": 5}, "tolerance"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(AlignConfig, values)


def test_slerp_of_tiny_and_no_rotations():
    _, q = poses(1, 0)
    assert np.allclose(slerp(q, q, np.array([0.3])), q, atol=1e-15)
    assert np.array_equal(slerp(q, -q, np.array([0.0])), q)
    near = geometry.matrix_to_quaternion(
        geometry.quaternion_to_matrix(q[0]) @ geometry.rotation_exp([1e-7, 0, 0])
    )[None]
    half = geometry.quaternion_to_matrix(slerp(q, near, np.array([0.5])))[0]
    turn = geometry.rotation_angle(geometry.quaternion_to_matrix(q[0]), half)
    assert turn == pytest.approx(5e-8, rel=1e-3)


def test_interpolation_by_hand():
    stamps = np.array([0, 10, 20]) * MS
    position = np.array([[0.0, 0, 0], [1, 0, 0], [1, 2, 0]])
    turn = np.sqrt(0.5)
    quaternion = np.array([[0, 0, 0, 1.0], [0, 0, turn, turn], [0, 0, 1, 0]])
    times = np.array([0, 5, 10, 15, 20, 24, 36]) * MS
    result, late, lost = interpolate_poses(stamps, position, quaternion, times, PLAIN)
    assert np.allclose(
        result[:, :3, 3], [[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 1, 0], *[[1, 2, 0]] * 3]
    )
    angles = np.degrees(np.arctan2(result[:, 1, 0], result[:, 0, 0]))
    assert np.allclose(np.abs(angles), [0, 45, 90, 135, 180, 180, 180])
    # 4 ms behind the last sample is within 15 ms, 16 ms is not.
    assert late.tolist() == [False] * 6 + [True] and not lost.any()


def test_a_hole_in_the_poses_is_late_in_its_middle_and_lost_when_it_is_wide():
    stamps = np.concatenate([np.arange(0, 400, 8), np.arange(3000, 3400, 8)]) * MS
    position, quaternion = poses(len(stamps), 1)
    times = np.array([390, 400, 411, 412, 1700, 2000, 2980, 2982, 3000]) * MS
    result, late, lost = interpolate_poses(stamps, position, quaternion, times, PLAIN)
    assert late.tolist() == [False, False, False, True, True, True, True, False, False]
    assert np.flatnonzero(lost).tolist() == [4]
    assert np.isnan(result[lost]).all() and np.isfinite(result[~lost]).all()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=40, unique=True),
    st.lists(st.integers(-50, 600), min_size=1, max_size=20),
)
def test_hold_is_the_newest_sample_not_after_the_step(samples, steps):
    stamps, times = np.sort(np.array(samples)) * MS, np.array(steps) * MS
    held = hold(stamps, times, PLAIN)
    for time, index, age, late in zip(times, held.index, held.age_ns, held.late):
        before = stamps[stamps <= time]
        assert stamps[index] == (before[-1] if len(before) else stamps[0])
        assert age == time - stamps[index]
        assert late or (len(before) and age <= period_ns(stamps) + 15 * MS)


def test_a_late_stream_and_a_lost_one():
    stamps = np.arange(0, 400, 40) * MS
    held = hold(stamps, np.array([-1, 0, 39, 360, 414, 416, 1361]) * MS, PLAIN)
    # Behind the end a sample is overdue from the moment the next one should have come.
    assert held.late.tolist() == [True, False, False, False, True, True, True]
    assert held.lost.tolist() == [False] * 6 + [True]
    wide = hold(stamps, np.array([414 * MS]), AlignConfig(tolerance_ms=60))
    assert not wide.late.any()


def test_jitter_is_no_loss():
    rng = np.random.default_rng(0)
    stamps = np.arange(200) * 40 * MS + rng.integers(-3 * MS, 3 * MS, 200)
    times = np.arange(5, 190) * 40 * MS + 20 * MS
    assert not hold(stamps, times, PLAIN).late.any()


def test_a_slow_stream_is_late_however_regular():
    stamps = np.arange(0, 2000, 100) * MS
    times = np.arange(0, 1900, 40) * MS
    late = hold(stamps, times, PLAIN).late
    age = times - stamps[np.searchsorted(stamps, times, side="right") - 1]
    assert np.array_equal(late, age >= 36 * MS)


def test_equal_stamps_keep_what_came_last():
    order = time_order(np.array([5, 3, 5, 4, 3]))
    assert order.tolist() == [4, 3, 2]
    assert time_order(np.array([], np.int64)).tolist() == []
