"""Returns, advantages and optimality against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.critic.advantage import AdvantageConfig, advantages
from dexpie_ros.critic.optimality import ScoringConfig, Thresholds, optimality, score, thresholds
from dexpie_ros.critic.returns import ReturnConfig, lambda_returns, monte_carlo, stream, targets

NOBODY = [False] * 5


def of(scaling: str, **values: object) -> ReturnConfig:
    return from_dict(ReturnConfig, {"scaling": scaling, "max_steps": 10, **values})


def test_success_counts_down_to_zero() -> None:
    episode = stream(5, True, NOBODY, of("clip"))
    np.testing.assert_allclose(targets(episode, of("clip")), [-0.4, -0.3, -0.2, -0.1, 0.0])
    # margin, c = 1: the same over 2 L
    np.testing.assert_allclose(targets(episode, of("margin")), [-0.2, -0.15, -0.1, -0.05, 0.0])
    np.testing.assert_allclose(targets(episode, of("decay")), [-0.4, -0.3, -0.2, -0.1, 0.0])


def test_failure_under_each_scaling() -> None:
    episode = stream(5, False, NOBODY, of("clip"))
    # clip with C_fail = L: the paper's literal reading has one target for all of them
    np.testing.assert_allclose(targets(episode, of("clip")), [-1.0] * 5)
    np.testing.assert_allclose(monte_carlo(episode, of("clip")), [-1.4, -1.3, -1.2, -1.1, -1.0])
    np.testing.assert_allclose(targets(episode, of("margin")), [-0.7, -0.65, -0.6, -0.55, -0.5])
    # c = 3: divided by 4 L = 40, penalty 30 / 40
    three = of("margin", failure_cost=3.0)
    np.testing.assert_allclose(targets(episode, three), [-0.85, -0.825, -0.8, -0.775, -0.75])
    # decay, gamma_f = 0.5, c = 0.5: -(4-t)/10 - 0.5 * 0.5^(4-t)
    half = of("decay", failure_discount=0.5, failure_cost=0.5)
    np.testing.assert_allclose(targets(episode, half), [-0.43125, -0.3625, -0.325, -0.35, -0.5])


def test_margin_separates_any_failure_from_any_success_within_the_limit() -> None:
    settings = of("margin")
    worst_success = targets(stream(10, True, [False] * 10, settings), settings).min()
    best_failure = targets(stream(10, False, [False] * 10, settings), settings).max()
    assert best_failure == -0.5 < worst_success == -0.45


def test_intervention_ends_the_autonomous_part_as_failed() -> None:
    settings = of("margin", hitl_aware=True)
    human = [False, False, True, True, False, True, False]
    episode = stream(7, True, human, settings)
    assert episode.end.tolist() == [2, 2, 6, 6, 5, 6, 6]
    assert episode.failed.tolist() == [True, True, False, False, True, False, False]
    # 1/(2 L) = .05 per step, penalty .5
    np.testing.assert_allclose(
        targets(episode, settings), [-0.6, -0.55, -0.2, -0.15, -0.55, -0.05, 0.0]
    )
    plain = of("margin")
    assert not stream(7, True, human, plain).failed.any()


def test_missing_flags_are_an_error() -> None:
    with pytest.raises(ValueError, match="nobody knows who drove"):
        stream(5, True, [], of("clip"))
    with pytest.raises(ValueError, match="without steps"):
        stream(0, True, [], of("clip"))
    with pytest.raises(ConfigError, match="scaling"):
        of("none")


def test_n_step_by_hand() -> None:
    settings, window = of("clip"), AdvantageConfig(window=2)
    values = [-0.5, -0.4, -0.45, -0.1, -0.05]
    good = advantages(values, stream(5, True, NOBODY, settings), window, settings)
    # t=0: -2/10 + V2 - V0; t=2 reaches the last step and bootstraps it; t=3: -1/10 - V3; t=4: -V4
    np.testing.assert_allclose(good, [-0.15, 0.1, 0.2, 0.0, 0.05])
    bad = advantages(values, stream(5, False, NOBODY, settings), window, settings)
    np.testing.assert_allclose(bad, [-0.15, 0.1, 0.2, -1.0, -0.95])


def test_window_past_the_end_holds_the_whole_return() -> None:
    for scaling in ("clip", "margin", "decay"):
        settings = of(scaling)
        episode = stream(5, False, NOBODY, settings)
        got = advantages(np.full(5, -0.3), episode, AdvantageConfig(window=50), settings)
        np.testing.assert_allclose(got, monte_carlo(episode, settings) + 0.3)


def test_without_terminal_reward_the_last_value_stands_in() -> None:
    settings, window = of("clip"), AdvantageConfig(window=2, terminal_reward=False)
    values = [-0.5, -0.4, -0.45, -0.1, -0.05]
    got = advantages(values, stream(5, False, NOBODY, settings), window, settings)
    # authors: -(e - t)/L + V(e) - V(t), e = min(t + N, last)
    np.testing.assert_allclose(got, [-0.15, 0.1, 0.2, -0.05, 0.0])


def test_gae_by_hand() -> None:
    settings = of("clip")
    how = AdvantageConfig(kind="gae", window=10, gae_lambda=0.5)
    got = advantages([-0.3, -0.2, -0.2], stream(3, False, [False] * 3, settings), how, settings)
    # deltas: -.1 -.2 +.3 = 0; -.1 -.2 +.2 = -.1; -1 + .2 = -.8
    np.testing.assert_allclose(got, [0.0 - 0.05 - 0.2, -0.1 - 0.4, -0.8])


@pytest.mark.parametrize("kind", ["n_step", "gae"])
def test_what_a_person_does_after_a_takeover_is_no_advantage_of_the_policy(kind: str) -> None:
    """L 100, margin: a step costs .005, a failure .5. The person's values (-.1) do not count."""
    settings = of("margin", max_steps=100, hitl_aware=True)
    episode = stream(8, True, [k >= 5 for k in range(8)], settings)
    how = AdvantageConfig(kind=kind, window=3, gae_lambda=1.0)  # type: ignore[arg-type]
    got = advantages([-0.6] * 5 + [-0.1] * 3, episode, how, settings)
    # within the stream -.6 again, less three steps; from step 2 on the takeover, 5 - t steps ahead
    expected = [-0.015, -0.015, *(0.6 - 0.5 - 0.005 * k for k in (3, 2, 1))]
    np.testing.assert_allclose(got[:5], expected, atol=1e-12)
    np.testing.assert_allclose(got[5:], [0.1 - 0.01, 0.1 - 0.005, 0.1], atol=1e-12)


@pytest.mark.parametrize("kind", ["n_step", "gae"])
def test_without_terminal_reward_a_takeover_is_a_failure_all_the_same(kind: str) -> None:
    settings = of("margin", max_steps=100, hitl_aware=True)
    episode = stream(8, True, [k >= 5 for k in range(8)], settings)
    values = [-0.6] * 5 + [-0.1] * 3
    how = AdvantageConfig(kind=kind, window=3, gae_lambda=1.0)  # type: ignore[arg-type]
    with_reward = advantages(values, episode, how, settings)
    got = advantages(values, episode, dataclasses.replace(how, terminal_reward=False), settings)
    # the policy's steps: not the person's value (-.1) but the failure; the person's own: V of the end
    np.testing.assert_allclose(got[:5], with_reward[:5], atol=1e-12)
    np.testing.assert_allclose(got[5:], [-0.01, -0.005, 0.0], atol=1e-12)


@given(
    values=st.lists(st.floats(-1.0, 0.0), min_size=1, max_size=30),
    window=st.integers(1, 40),
    success=st.booleans(),
    terminal=st.booleans(),
    scaling=st.sampled_from(["clip", "margin", "decay"]),
    takeover=st.integers(0, 30),
)
def test_gae_with_lambda_one_is_n_step(
    values: list[float], window: int, success: bool, terminal: bool, scaling: str, takeover: int
) -> None:
    settings = of(scaling, hitl_aware=True)
    human = [k >= takeover for k in range(len(values))]
    episode = stream(len(values), success, human, settings)
    n_step = AdvantageConfig(window=window, terminal_reward=terminal)
    gae = AdvantageConfig(kind="gae", window=window, gae_lambda=1.0, terminal_reward=terminal)
    np.testing.assert_allclose(
        advantages(values, episode, n_step, settings),
        advantages(values, episode, gae, settings),
        atol=1e-12,
    )


@given(st.integers(1, 60), st.integers(1, 40), st.booleans())
def test_a_perfect_critic_finds_no_advantage(length: int, window: int, success: bool) -> None:
    settings = of("margin", max_steps=100)
    episode = stream(length, success, [False] * length, settings)
    perfect = monte_carlo(episode, settings)
    got = advantages(perfect, episode, AdvantageConfig(window=window), settings)
    np.testing.assert_allclose(got, 0.0, atol=1e-12)


def test_optimality_anchors() -> None:
    at, settings = Thresholds(-0.02, 0.03), ScoringConfig()
    got = score([-0.02, 0.005, 0.03, -0.07, -1e9, 1e9], at, settings)
    np.testing.assert_allclose(got[:4], [0.5, 0.924142, 0.993307, 0.006693], atol=1e-6)
    assert got[4] < 1e-20 and got[5] == 1.0
    binary = score([-0.02, -0.0199], at, ScoringConfig(kind="binary"))
    assert binary.tolist() == [0.0, 1.0]


def test_thresholds_are_quantiles_of_everything() -> None:
    at = thresholds(np.arange(101) / 100.0, ScoringConfig())
    assert (at.low, at.high) == pytest.approx((0.6, 0.8))
    with pytest.raises(ValueError, match="q_high == q_low"):
        thresholds(np.zeros(10), ScoringConfig())
    with pytest.raises(ValueError, match="not finite"):
        thresholds([0.0, np.nan], ScoringConfig())
    with pytest.raises(ValueError, match="no advantages"):
        thresholds([], ScoringConfig())


def test_demonstrations_and_people() -> None:
    scored = np.array([0.1, 0.2, 0.3])
    human = np.array([False, True, True])

    def got(demo: str, person: str, success: bool, demonstration: bool) -> list[float]:
        settings = from_dict(ScoringConfig, {"demo_optimality": demo, "human_optimality": person})
        return optimality(scored, human, success, demonstration, settings).tolist()

    assert got("one", "scored", True, True) == [1.0, 1.0, 1.0]
    # a demonstration is human all along, yet only demo_optimality decides about it
    assert got("scored", "one", True, True) == [0.1, 0.2, 0.3]
    assert got("one", "one", False, False) == [0.1, 1.0, 1.0]
    assert got("one", "one_if_success", False, False) == [0.1, 0.2, 0.3]
    assert got("one", "one_if_success", True, False) == [0.1, 1.0, 1.0]
    assert got("one", "scored", True, False) == [0.1, 0.2, 0.3]


def test_lambda_returns_by_hand() -> None:
    settings = of("margin")  # .05 per step, penalty .5
    values = [-0.9, -0.4, -0.3]
    won = stream(3, True, [False] * 3, settings)
    # t=2: 0; t=1: -.05 + .5 (-.3) + .5 (0) = -.2; t=0: -.05 + .5 (-.4) + .5 (-.2) = -.35
    np.testing.assert_allclose(lambda_returns(values, won, settings, 0.5), [-0.35, -0.2, 0.0])
    lost = stream(3, False, [False] * 3, settings)
    # t=2: -.5; t=1: -.05 + .5 (-.3) + .5 (-.5) = -.45; t=0: -.05 + .5 (-.4) + .5 (-.45) = -.475
    np.testing.assert_allclose(lambda_returns(values, lost, settings, 0.5), [-0.475, -0.45, -0.5])
    with pytest.raises(ValueError, match="decay"):
        lambda_returns(values, lost, of("decay"), 0.5)


@given(
    length=st.integers(1, 30),
    success=st.booleans(),
    human=st.lists(st.booleans(), min_size=30, max_size=30),
    trace=st.floats(0.1, 1.0),
)
def test_lambda_returns_of_true_values_are_the_returns(
    length: int, success: bool, human: list[bool], trace: float
) -> None:
    settings = of("margin", max_steps=100, hitl_aware=True)
    episode = stream(length, success, human[:length], settings)
    true = monte_carlo(episode, settings)
    # exact where each step's successor is on the same stream; everywhere with trace 1
    got = lambda_returns(true, episode, settings, 1.0)
    np.testing.assert_allclose(got, true, atol=1e-12)
    alone = stream(length, success, [False] * length, settings)
    true = monte_carlo(alone, settings)
    np.testing.assert_allclose(lambda_returns(true, alone, settings, trace), true, atol=1e-12)
