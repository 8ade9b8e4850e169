"""Targets and metrics against hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.critic import metrics
from dexpie_ros.critic.targets import bin_centres, cross_entropy, expectation, soft_targets


def test_bins_span_minus_one_to_zero() -> None:
    centres = bin_centres(201)
    assert centres[0] == -1.0 and centres[-1] == 0.0
    assert float(centres[1] - centres[0]) == pytest.approx(0.005, abs=1e-6)


def test_target_is_centred_on_the_true_return_not_on_a_bin() -> None:
    centres = bin_centres(201)
    for value in (-0.5, -0.5013, -0.3271):
        target = soft_targets(torch.tensor([value]), centres, 0.005)
        assert float(target.sum()) == pytest.approx(1.0, abs=1e-6)
        assert float((target * centres).sum()) == pytest.approx(value, abs=1e-5)
    # sigma of one bin: neighbours weigh exp(-1/2), the next exp(-2)
    row = soft_targets(torch.tensor([-0.5]), centres, 0.005)[0]
    assert float(row[101] / row[100]) == pytest.approx(math.exp(-0.5), rel=1e-3)
    assert float(row[102] / row[100]) == pytest.approx(math.exp(-2.0), rel=1e-3)


def test_target_keeps_its_mean_at_the_ends_of_the_scale() -> None:
    """A Gaussian of .02 that the end cuts off at a return of 0 has its mean at -.0144."""
    centres = bin_centres(201)
    values = torch.tensor([0.0, -0.001, -0.005, -0.01, -0.02, -0.06, -0.5, -0.99, -0.999, -1.0])
    for sigma in (0.02, 0.005):
        target = soft_targets(values, centres, sigma)
        assert (target.sum(-1) - 1.0).abs().max() < 1e-5
        assert ((target * centres).sum(-1) - values).abs().max() < 7e-4
    # three deviations from the end it is as wide as was asked for
    row = soft_targets(torch.tensor([-0.06]), centres, 0.02)[0]
    assert float(row[192] / row[188]) == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_cross_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    assert float(cross_entropy(logits, torch.tensor([[1.0, 0.0, 0.0]]))) == pytest.approx(
        math.log(2.0)
    )
    assert float(expectation(logits, torch.tensor([-1.0, -0.5, 0.0]))) == pytest.approx(-0.625)


def test_ranks_and_spearman() -> None:
    assert metrics.average_ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    # the textbook's IQ against hours of television: rho = -29/165
    iq = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert metrics.spearman(iq, hours) == pytest.approx(-29.0 / 165.0)
    assert math.isnan(metrics.spearman([1.0, 1.0], [1.0, 2.0]))


def test_auroc() -> None:
    # pairs (positive, negative): .8>.3, .8>.5, .4>.3, .4<.5 -> 3 of 4
    assert metrics.auroc([0.8, 0.4, 0.3, 0.5], [1, 1, 0, 0]) == 0.75
    assert metrics.auroc([1.0, 1.0], [1, 0]) == 0.5
    assert math.isnan(metrics.auroc([1.0, 2.0], [1, 1]))


def test_explained_variance_can_be_negative() -> None:
    assert metrics.explained_variance([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    assert metrics.explained_variance([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(0.0)
    assert metrics.explained_variance([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(-3.0)


def test_calibration() -> None:
    curve = metrics.calibration([0.1, 0.2, 0.8, 0.9], [0.0, 0.2, 0.5, 0.5], bins=2)
    assert [(b.predicted, b.observed, b.count) for b in curve] == [
        (pytest.approx(0.15), pytest.approx(0.1), 2),
        (pytest.approx(0.85), pytest.approx(0.5), 2),
    ]
    assert metrics.calibration_error(curve) == pytest.approx(0.2)


def test_bootstrap_resamples_episodes_not_frames() -> None:
    generator = np.random.default_rng(0)
    offsets = generator.normal(0.0, 0.3, 12)
    truth = [np.full(200, 0.5) for _ in offsets]
    guess = [np.full(200, 0.5 + o) for o in offsets]
    got = metrics.episode_bootstrap(metrics.rmse, guess, truth, resamples=400)
    assert got.low < got.value < got.high
    # 12 independent values, not 2400: the interval is wide
    assert got.high - got.low > 0.08


def test_metrics_need_both_outcomes_for_auroc() -> None:
    one = [np.array([-0.2, -0.1, 0.0])]
    got = metrics.value_metrics(one, one, [True])
    assert got.rmse.value == 0.0 and math.isnan(got.success_auroc.value)
    with pytest.raises(ValueError, match="no episodes"):
        metrics.value_metrics([], [], [])


@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=2, max_size=40))
def test_auroc_equals_counting_pairs(rows: list[tuple[float, bool]]) -> None:
    ones = [s for s, y in rows if y]
    zeros = [s for s, y in rows if not y]
    got = metrics.auroc([s for s, _ in rows], [y for _, y in rows])
    if not ones or not zeros:
        assert math.isnan(got)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in zeros)
    assert got == pytest.approx(wins / (len(ones) * len(zeros)))
