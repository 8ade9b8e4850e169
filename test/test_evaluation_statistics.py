"""Intervals and tests against published or hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.evaluation.statistics import (
    Trial,
    bootstrap_mean,
    compare,
    mcnemar,
    paired_difference,
    restricted_times,
    sign_test,
    student_mean,
    success_curve,
    summarise,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 (Wilson, no correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(successes: int, trials: int, low: float, high: float) -> None:
    got = wilson(successes, trials)
    assert (round(got.low, 4), round(got.high, 4)) == (low, high)
    mirrored = wilson(trials - successes, trials)
    assert mirrored.low == pytest.approx(1.0 - got.high, abs=1e-12)


def test_wilson_edges() -> None:
    assert wilson(0, 5).low == 0.0 and wilson(5, 5).high == 1.0
    nothing = wilson(0, 0)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="6 successes in 5"):
        wilson(6, 5)


@given(st.integers(1, 400), st.data())
def test_wilson_contains_its_estimate(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    got = wilson(successes, trials)
    assert 0.0 <= got.low <= got.value <= got.high <= 1.0


def test_sign_test_by_hand() -> None:
    assert sign_test(5, 0) == 2 / 32
    assert sign_test(0, 0) == 1.0
    assert sign_test(3, 3) == 1.0
    # 2 (1 + 10 + 45) / 1024
    assert sign_test(2, 8) == pytest.approx(0.109375)
    # Agresti's approval ratings (150 against 86): far below any threshold
    assert sign_test(150, 86) == pytest.approx(3.716e-5, rel=1e-3)
    assert 0.0 < sign_test(1500, 1000) < 1e-20


def test_mcnemar_counts_only_what_differs() -> None:
    a = [True] * 10 + [True] * 8 + [False] * 2 + [False] * 5
    b = [True] * 10 + [False] * 8 + [True] * 2 + [False] * 5
    got = mcnemar(a, b)
    assert (got.better, got.worse) == (8, 2)
    assert got.p == pytest.approx(0.109375)
    with pytest.raises(ValueError, match="not pairs"):
        mcnemar([True], [True, False])


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.repeat([0.0, 1.0], 100)
    got = bootstrap_mean(values)
    half = 1.96 * 0.5 / math.sqrt(200)
    assert got.value == 0.5
    assert got.low == pytest.approx(0.5 - half, abs=0.006)
    assert got.high == pytest.approx(0.5 + half, abs=0.006)
    assert bootstrap_mean([2.0]) == bootstrap_mean([2.0, 2.0, 2.0])
    assert bootstrap_mean(values) == bootstrap_mean(values)
    with pytest.raises(ValueError, match="n >= 1"):
        bootstrap_mean([])


def test_an_interval_of_few_units_covers_what_it_says() -> None:
    got = student_mean([0.4, 0.5, 0.6])
    assert (got.value, got.low, got.high) == pytest.approx((0.5, 0.2516, 0.7484), abs=1e-4)
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    covered = [r.low <= 0.0 <= r.high for r in map(student_mean, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
    assert student_mean(np.arange(100.0)).high == pytest.approx(55.257, abs=0.01)
    with pytest.raises(ValueError, match="n >= 2"):
        student_mean([1.0])


def test_pairing_narrows_the_interval() -> None:
    generator = np.random.default_rng(0)
    difficulty = generator.normal(0.0, 5.0, 100)
    first, second = difficulty + 1.0, difficulty + generator.normal(0.0, 0.1, 100)
    got = paired_difference(first, second)
    assert got.low > 0.9 and got.high < 1.1


def trial(start: int, success: bool, time_s: float) -> Trial:
    return Trial(str(start), success, time_s)


def test_restricted_mean_time_by_hand() -> None:
    trials = [trial(0, True, 4.0), trial(1, True, 9.0), trial(2, False, 3.0), trial(3, True, 6.0)]
    # within 8 s: 4, limit, limit, 6
    assert restricted_times(trials, 8.0).tolist() == [4.0, 8.0, 8.0, 6.0]
    got = summarise(trials, 8.0)
    assert (got.successes, got.trials, got.median_s) == (2, 4, 5.0)
    assert got.restricted_mean_s.value == 6.5
    assert math.isnan(summarise([trial(0, False, 1.0)], 8.0).median_s)
    with pytest.raises(ValueError, match="no trials"):
        summarise([], 8.0)


def test_success_curve_is_success_for_every_limit() -> None:
    trials = [trial(0, True, 4.0), trial(1, True, 9.0), trial(2, False, 3.0), trial(3, True, 6.0)]
    assert success_curve(trials, [0.0, 3.9, 4.0, 6.0, 8.9, 9.0]).tolist() == [
        0.0, 0.0, 0.25, 0.5, 0.5, 0.75,
    ]  # fmt: skip
    for limit in (4.0, 6.0, 9.0):
        assert success_curve(trials, [limit])[0] == summarise(trials, limit).success.value


def test_compare_pairs_by_start() -> None:
    first = [trial(k, True, 5.0) for k in range(8)] + [trial(8, False, 10.0), trial(9, True, 7.0)]
    second = [trial(k, k < 3, 5.0) for k in reversed(range(10))]
    got = compare(first, second, 10.0)
    assert got.pairs == 10
    assert got.success.value == pytest.approx(0.6)
    assert (got.test.better, got.test.worse) == (6, 0)
    assert got.test.p == pytest.approx(2 / 64)
    # five starts gain 5 s, one gains 3 s
    assert got.restricted_mean_s.value == pytest.approx(-2.8)
    with pytest.raises(ValueError, match="different starts"):
        compare(first, second[:-1], 10.0)
    with pytest.raises(ValueError, match="tried twice"):
        compare([*first, first[0]], second, 10.0)
