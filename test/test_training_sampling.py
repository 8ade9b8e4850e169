"""Which windows a batch is made of: once an epoch each, or by `data.weights`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import reach
from test_training_loop import FAST, Stop, config
from test_training_recipes import labels_for

from dexpie_ros.config import ConfigError, from_dict, overridden, read_yaml
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.training.batches import WindowTensors
from dexpie_ros.training.dataset import DatasetError
from dexpie_ros.training.recipes import build
from dexpie_ros.training.sampling import SOURCES, Sampler, SourceWeights
from dexpie_ros.training.train import ActorConfig, DataConfig, train_actor

SPEC = ObservationSpec(parts=("tcp", "hand"))


@pytest.fixture(scope="module")
def episodes():
    return [
        *(reach(i, 40) for i in range(3)),
        reach(3, 40, "deployment"),
        reach(4, 40, "deployment", "failure"),
        reach(5, 70, "correction", human=slice(20, 70)),
    ]


def weighted(recipe="hg_dagger", loop=FAST, **weights):
    data = DataConfig(weights=SourceWeights(**weights))
    return replace(config(recipe, loop), data=data)


def epochs(sampler, count):
    """``count`` epochs as rows (count, windows), in batches of 7."""
    steps = -(-count * sampler.windows // 7)
    rows = np.concatenate([sampler.rows(step, 7) for step in range(steps)])
    return rows[: count * sampler.windows].reshape(count, sampler.windows)


def before_there_were_weights(seed, step, batch_size, windows):
    first, rows = step * batch_size, []
    order = [np.random.default_rng([seed, epoch]).permutation(windows) for epoch in range(40)]
    for k in range(first, first + batch_size):
        rows.append(order[k // windows][k % windows])
    return np.array(rows)


@pytest.mark.parametrize("weights", [None, np.ones(25), np.full(25, 3.0)])
def test_without_weights_batches_are_what_they_were(weights):
    for windows, batch_size in ((25, 10), (25, 32), (5, 10)):
        given = None if weights is None else weights[:windows]
        sampler = Sampler(3, windows, given)
        for step in (4, 0, 1, 2, 3, 11):
            expected = before_there_were_weights(3, step, batch_size, windows)
            assert np.array_equal(sampler.rows(step, batch_size), expected)


def test_every_window_is_seen_once_an_epoch():
    first, second = epochs(Sampler(0, 25), 2)
    assert sorted(first) == sorted(second) == list(range(25))
    assert not np.array_equal(first, second)
    # A batch larger than the data goes round it.
    assert sorted(Sampler(0, 5).rows(0, 10)) == sorted([*range(5), *range(5)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.05, 20)), min_size=1, max_size=4),
)
def test_frequencies_follow_the_weights(seed, groups):
    weights = np.concatenate([np.full(count, weight) for count, weight in groups])
    expected = weights / weights.mean()
    sampler = Sampler(seed, len(weights), weights)
    drawn = epochs(sampler, 3)
    counts = np.stack([np.bincount(rows, minlength=len(weights)) for rows in drawn])
    # Of every window, in every epoch; and of each weight as a whole.
    assert np.all(np.abs(counts - expected) < 1 + 1e-6)
    for weight in np.unique(weights):
        of = weights == weight
        assert np.all(np.abs(counts[:, of].sum(axis=1) - expected[of].sum()) < 1 + 1e-6)
    # The same at any step, whatever was asked for before.
    step = drawn.size // 7 - 1
    if step >= 0:
        alone = Sampler(seed, len(weights), weights).rows(step, 7)
        assert np.array_equal(alone, drawn.ravel()[7 * step : 7 * step + 7])


def test_windows_of_one_weight_are_drawn_alike():
    weights = np.repeat([1.0, 3.0], [30, 10])
    counts = np.bincount(epochs(Sampler(0, 40, weights), 600).ravel(), minlength=40) / 600
    # Expected 0.667 and 2; the spread of a mean of 600 draws of 0 or 1 is at most 0.02.
    assert np.abs(counts - weights / weights.mean()).max() < 0.1


def test_sources_are_told_apart(episodes):
    data = build("hg_dagger", episodes, None, SPEC, 24)
    drawn = SourceWeights(demonstration=1, intervention=2, policy=3).of(
        data.windows, list(data.episodes), 1.0
    )
    kinds = np.array([e.info.kind for e in data.episodes])[data.windows.episode]
    assert set(drawn[kinds == "demonstration"]) == {1.0}
    assert set(drawn[kinds == "deployment"]) == {3.0}
    corrected = drawn[kinds == "correction"]
    assert corrected.tolist() == [3.0] * 20 + [2.0] * 50
    # What failed is a source of its own, whoever drove.
    lost = [replace(e, info=replace(e.info, outcome="failure")) for e in data.episodes]
    of_failures = SourceWeights(intervention=2, policy=3, failure=4).of(data.windows, lost, 1.0)
    assert set(of_failures[kinds == "correction"]) == {4.0}
    assert set(of_failures[kinds == "demonstration"]) == {1.0}
    # With half a chunk enough, chunks count that the operator takes over half-way.
    half = SourceWeights(intervention=2, policy=3).of(data.windows, list(data.episodes), 0.5)
    assert half[kinds == "correction"].tolist() == [3.0] * 8 + [2.0] * 62


def test_the_default_is_what_it_was(episodes):
    plain = build("hg_dagger", episodes, None, SPEC, 24)
    assert plain.sampling is None
    same = build("hg_dagger", episodes, None, SPEC, 24, weights=SourceWeights(
        demonstration=2, intervention=2, policy=2))  # fmt: skip
    assert same.sampling is None
    assert same.windows.content_hash() == plain.windows.content_hash()


def test_a_weight_of_zero_removes(episodes):
    labels = {e.id: labels_for(e) for e in episodes}
    plain = build("dexpie", episodes, labels, SPEC, 24)
    alone = SourceWeights(policy=0, failure=0)
    data = build("dexpie", episodes, labels, SPEC, 24, weights=alone)
    assert len(data.windows) == 120 + 50 and data.sampling is None
    assert len(data.optimality) == len(data.weight) == 170
    kept = np.isin(plain.windows.episode, [0, 1, 2])
    kept |= (plain.windows.episode == 5) & (plain.windows.tick >= 20)
    assert np.array_equal(data.windows.actions, plain.windows.actions[kept])
    assert np.array_equal(data.optimality, plain.optimality[kept])
    assert "deployment: 2 episodes (1 successful), no window" in data.summary()
    assert "left out: 100 windows of sources with weight 0 (data.weights)" in data.summary()
    assert "weight 0" not in " ".join(plain.summary())
    dexhil = build("dexhil", episodes, None, SPEC, 24, weights=SourceWeights(demonstration=0))
    assert set(dexhil.weight) == {1.0}


def test_the_card_says_what_share_a_source_has(episodes):
    weights = SourceWeights(demonstration=0.5, policy=0)
    data = build("hg_dagger", episodes, None, SPEC, 24, weights=weights)
    # 120 windows at half the weight, 50 at the whole one: 60 of 110.
    card = " ".join(data.summary())
    assert "120 windows, I > 0.5 in 100%, loss share 55%" in card


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"demonstrations": 1}, "unknown key data.weights.demonstrations; did you mean"),
        ({"policy": -1}, "data.weights.policy.*greater than or equal to 0"),
        ({"policy": float("nan")}, "data.weights.policy"),
        ({"policy": float("inf")}, "data.weights.policy"),
        (dict.fromkeys(SOURCES, 0), "all weights are 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(values, says):
    with pytest.raises(ConfigError, match=says):
        from_dict(ActorConfig, {"data": {"weights": values}}, "actor.yaml")


def test_weights_that_leave_nothing_are_refused(episodes):
    with pytest.raises(DatasetError, match=r"bc is left by data\.weights \(demonstration 0"):
        build("bc", episodes, None, SPEC, 24, weights=SourceWeights(demonstration=0))


@pytest.fixture
def drawn(monkeypatch):
    """Ticks and kinds of all windows in the order in which the loop took them."""
    rows = []
    take = WindowTensors.batch
    monkeypatch.setattr(
        WindowTensors, "batch", lambda self, r, g: (rows.append(r), take(self, r, g))[1]
    )
    return rows


def test_a_run_draws_by_its_weights_and_says_so(episodes, tmp_path, drawn):
    settings = overridden(
        config("hg_dagger"), ["data.weights.intervention=6", "data.weights.policy=0.5"], "actor"
    )
    policy = train_actor(settings, episodes, None, tmp_path)
    recorded = {"demonstration": 1.0, "intervention": 6.0, "policy": 0.5, "failure": 1.0}
    assert read_yaml(policy / "run.yaml")["config"]["data"]["weights"] == recorded
    data = build("hg_dagger", episodes, None, settings.policy.observation, 24)
    weights = settings.data.weights.of(data.windows, list(data.episodes), 1.0)
    rows = np.concatenate(drawn)
    human = weights == 6.0
    assert human.sum() == 50
    # One epoch is 230 windows; 384 were drawn.
    assert np.isin(rows[:230], np.flatnonzero(human)).sum() == pytest.approx(230 * 300 / 450, abs=1)
    assert "loss share" in (policy / "card.md").read_text()
    other = replace(settings, data=replace(settings.data, weights=SourceWeights()))
    with pytest.raises(ConfigError, match="another config"):
        train_actor(other, episodes, None, tmp_path)


def test_a_weighted_run_resumes_bit_exactly(episodes, tmp_path):
    settings = weighted(intervention=3, policy=0.25)
    whole = train_actor(settings, episodes, None, tmp_path / "whole")

    def stop(now):
        if now.step == 8:
            raise Stop

    with pytest.raises(Stop):
        train_actor(settings, episodes, None, tmp_path / "cut", stop)
    cut = train_actor(settings, episodes, None, tmp_path / "cut")
    names = ("model.safetensors", "normalizer.json")
    assert [(cut / n).read_bytes() for n in names] == [(whole / n).read_bytes() for n in names]
    plain = train_actor(weighted(), episodes, None, tmp_path / "plain")
    assert (plain / names[0]).read_bytes() != (whole / names[0]).read_bytes()
    assert (plain / names[1]).read_bytes() == (whole / names[1]).read_bytes()


def test_a_run_of_before_there_were_weights_goes_on(episodes, tmp_path):
    """Its run.yaml knows neither weights nor alignment; its batches are those of today."""

    def stop(now):
        if now.step == 8:
            raise Stop

    whole = train_actor(config(), episodes, None, tmp_path / "whole")
    with pytest.raises(Stop):
        train_actor(config(), episodes, None, tmp_path / "cut", stop)
    run = read_yaml(tmp_path / "cut/run.yaml")
    del run["config"]["data"]["weights"], run["config"]["align"]
    (tmp_path / "cut/run.yaml").write_text(yaml.safe_dump(run))
    cut = train_actor(config(), episodes, None, tmp_path / "cut")
    name = "model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
