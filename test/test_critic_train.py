"""Training, folds, saving and loading of critics on made-up episodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from critic_data import mixture, reach

from dexpie_ros.config import ConfigError, overridden
from dexpie_ros.critic import settings as presets
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.label import LabelConfig, label, relabel
from dexpie_ros.critic.measure import episode_returns
from dexpie_ros.critic.network import ValueNetwork
from dexpie_ros.critic.report import critic_report
from dexpie_ros.critic.returns import ReturnConfig
from dexpie_ros.critic.settings import CriticConfig, FeatureConfig
from dexpie_ros.critic.train import split, train_critic

QUICK = CriticConfig(
    returns=ReturnConfig(max_steps=200), epochs=12, hidden=48, crossfit=3, learning_rate=5e-3
)


@pytest.fixture(scope="module")
def critic() -> Critic:
    return train_critic(QUICK, mixture())


def test_pairs_share_a_fold_and_folds_are_balanced() -> None:
    episodes = mixture(24)
    fold = split(episodes, 4, seed=3)
    assert sorted(np.bincount(fold)) == [5, 5, 7, 7] or np.bincount(fold).min() >= 4
    by_pair: dict[str, set[int]] = {}
    for episode, f in zip(episodes, fold, strict=True):
        if episode.info.pair_id:
            by_pair.setdefault(episode.info.pair_id, set()).add(int(f))
    assert len(by_pair) == 6
    assert all(len(folds) == 1 for folds in by_pair.values())
    # both outcomes in every fold's training data
    success = np.array([e.success for e in episodes])
    for k in range(4):
        assert success[fold != k].any() and not success[fold != k].all()


def test_it_generalises_to_episodes_it_did_not_see(critic: Critic) -> None:
    held_out = critic.metrics["held_out"]
    assert held_out["explained_variance"]["value"] > 0.8
    assert held_out["spearman"]["value"] > 0.8
    assert held_out["rmse"]["value"] < held_out["return_sd"]
    assert critic.metrics["in_sample"]["episodes"] == 24
    assert 1 <= critic.metrics["epoch"] <= 12


def test_a_critic_that_only_remembers_is_found_out() -> None:
    """Outcomes that nothing predicts: the in-sample error is small, the held-out one is not."""
    generator = np.random.default_rng(5)
    episodes = [reach(n, success=bool(generator.random() < 0.5)) for n in range(16)]
    # all that is left to see is a hand posture that names the episode
    named = [
        dataclasses.replace(
            e,
            tcp=np.tile(np.eye(4), (len(e), 1, 1)),
            objects=np.tile([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], (len(e), 1, 1)),
            hand=np.tile(generator.uniform(0.0, 1.0, 6), (len(e), 1)),
        )
        for e in episodes
    ]
    settings = dataclasses.replace(
        QUICK, input_noise=0.0, dropout=0.0, early_stopping=False, epochs=40, crossfit=4
    )
    metrics = train_critic(settings, named).metrics
    assert metrics["in_sample"]["explained_variance"]["value"] > 0.5
    assert metrics["held_out"]["explained_variance"]["value"] < 0.1


def test_same_seed_same_critic(critic: Critic) -> None:
    assert train_critic(QUICK, mixture()).hash == critic.hash
    assert train_critic(dataclasses.replace(QUICK, seed=1), mixture()).hash != critic.hash


def test_critics_of_earlier_versions_keep_their_hash() -> None:
    """A critic whose hash is another than the one that it was saved with is refused."""
    settings = CriticConfig(returns=ReturnConfig(max_steps=200))
    network = ValueNetwork(3, settings)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(0.25)
    assert Critic(settings, [network], {"a": 0}).hash == "a17fab96552e992b"  # of 3223876
    features = dataclasses.replace(settings.features, contact=True)
    other = dataclasses.replace(settings, features=features)
    assert Critic(other, [network], {"a": 0}).hash != "a17fab96552e992b"


def test_each_episode_is_judged_by_the_network_that_did_not_see_it(critic: Critic) -> None:
    episodes = mixture()
    for episode in episodes[:4]:
        network = critic.networks[critic.folds[episode.id]]
        alone = Critic(critic.settings, [network], {})
        np.testing.assert_array_equal(critic.values(episode), alone.values(episode))
        assert critic.held_out(episode)
    unseen = reach(900)
    assert critic.held_out(unseen)
    each = [Critic(critic.settings, [n], {}).values(unseen) for n in critic.networks]
    np.testing.assert_allclose(critic.values(unseen), np.mean(each, axis=0), atol=1e-6)


def test_an_episode_is_not_judged_by_a_network_that_saw_its_pair(
    critic: Critic, tmp_path: Path
) -> None:
    paired = next(e for e in mixture() if e.info.pair_id)
    partner = reach(902, pair_id=paired.info.pair_id)  # excluded, or recorded since
    network = critic.networks[critic.folds[paired.id]]
    for each in (critic, Critic.load(critic.save(tmp_path))):
        alone = Critic(critic.settings, [network], {})
        np.testing.assert_array_equal(each.values(partner), alone.values(partner))


def test_a_robots_episodes_want_pictures(critic: Critic) -> None:
    blind = [
        dataclasses.replace(e, object_names=(), objects=np.zeros((len(e), 0, 7))) for e in mixture()
    ]
    with pytest.raises(CriticError, match=r"no object poses.*features.images=\[front,wrist\]"):
        train_critic(QUICK, blind)


def test_steps_further_from_the_end_than_the_longest_episode_are_told() -> None:
    """100 steps, L = 80: at 19 of them more than 80 are left, a success like any other's failure."""
    long = [
        dataclasses.replace(e, info=dataclasses.replace(e.info, outcome="success"))
        for e in mixture()
        if len(e) > 80
    ]
    settings = dataclasses.replace(
        QUICK, returns=dataclasses.replace(QUICK.returns, max_steps=80), epochs=1
    )
    trained = train_critic(settings, long)
    beyond = sum(len(e) - 81 for e in long) / sum(len(e) for e in long)
    assert trained.metrics["beyond_share"] == pytest.approx(beyond) and beyond > 0
    assert trained.metrics["clipped_share"] == 0.0
    warnings = critic_report(trained, long, label(trained, long, LabelConfig())).warnings
    assert any("more than max_steps=80 before the end" in each for each in warnings)


def test_save_and_load(critic: Critic, tmp_path: Path) -> None:
    critic.save(tmp_path)
    again = Critic.load(tmp_path)
    assert again.hash == critic.hash
    assert again.settings == critic.settings
    assert again.metrics == critic.metrics
    episode = reach(901)
    np.testing.assert_array_equal(again.values(episode), critic.values(episode))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.yaml",
        "critic.json",
        "critic.safetensors",
        "metrics.json",
    ]


def test_damaged_directories_are_refused(critic: Critic, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"critic\.json: no such file"):
        Critic.load(tmp_path)
    critic.save(tmp_path)
    about = json.loads((tmp_path / "critic.json").read_text())
    (tmp_path / "critic.json").write_text(json.dumps({**about, "folds": {}}))
    with pytest.raises(ConfigError, match="do not match the hash"):
        Critic.load(tmp_path)
    critic.save(tmp_path)
    weights = (tmp_path / "critic.safetensors").read_bytes()
    (tmp_path / "critic.safetensors").write_bytes(weights[:200])
    with pytest.raises(ConfigError, match="not the weights"):
        Critic.load(tmp_path)
    (tmp_path / "critic.json").write_text("[]")
    with pytest.raises(ConfigError, match="expected a JSON object"):
        Critic.load(tmp_path)


@pytest.mark.parametrize("name", ["paper", "authors", "best"])
def test_every_preset_trains(name: str) -> None:
    settings = presets.PRESETS[name](200)
    settings = dataclasses.replace(settings, epochs=2, hidden=16)
    critic = train_critic(settings, mixture(8))
    values = critic.values(reach(3))
    assert np.all((values >= -1.0) & (values <= 0.0))
    assert critic.metrics["held_out"] is not None


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[int, int]] = []
    settings = dataclasses.replace(QUICK, epochs=3, crossfit=0, early_stopping=False)
    train_critic(
        settings, mixture(8), progress=lambda done, total, text: seen.append((done, total))
    )
    assert seen[-1][0] == seen[-1][1]
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_excluded_and_aborted_episodes_are_left_out() -> None:
    episodes = mixture(8)
    for k, change in ((2, {"use_for_critic": False}), (3, {"outcome": "aborted"})):
        info = dataclasses.replace(episodes[k].info, **change)
        episodes[k] = dataclasses.replace(episodes[k], info=info)
    critic = train_critic(dataclasses.replace(QUICK, epochs=1), episodes)
    assert set(critic.folds) == {e.id for i, e in enumerate(episodes) if i not in (2, 3)}


def test_failures_can_be_left_out_and_are_labelled_all_the_same() -> None:
    episodes = mixture(8)
    failed = [e for e in episodes if not e.success]
    kept = [e for e in episodes if e.success]
    assert failed and kept
    quick = overridden(
        dataclasses.replace(QUICK, epochs=1), ["returns.failures=leave_out"], "critic"
    )
    critic = train_critic(quick, episodes)
    assert set(critic.inputs) == {e.id for e in kept}
    same = train_critic(quick, kept)
    np.testing.assert_array_equal(critic.values(failed[0]), same.values(failed[0]))
    labels = label(critic, episodes, LabelConfig())
    alone = label(same, kept, LabelConfig())
    # Thresholds are those of the successes, also where labels are made anew without the network.
    assert labels[0].meta["q_low"] == alone[0].meta["q_low"]
    assert relabel(episodes, labels, LabelConfig())[0].meta["q_low"] == alone[0].meta["q_low"]
    assert [len(item) for item in labels] == [len(e) for e in episodes]
    assert "AUROC" not in critic_report(critic, episodes, labels).text()
    with pytest.raises(ValueError, match=r"none of .* failed, or aborted.*returns\.failures=learn"):
        train_critic(quick, failed)


def test_what_cannot_be_learned_from_is_an_error() -> None:
    quick = dataclasses.replace(QUICK, epochs=1)
    unjudged = reach(0)
    unjudged = dataclasses.replace(unjudged, info=dataclasses.replace(unjudged.info, outcome=""))
    with pytest.raises(ValueError, match="annotate it"):
        train_critic(quick, [unjudged, reach(1)])
    with pytest.raises(ValueError, match="second episode with the id"):
        train_critic(quick, [reach(1), reach(1)])
    with pytest.raises(ValueError, match="none of 0 episodes"):
        train_critic(quick, [])
    with pytest.raises(ValueError, match="nothing can be held"):
        train_critic(quick, [reach(1)])
    with pytest.raises(ValueError, match="crossfit=1"):
        train_critic(dataclasses.replace(quick, crossfit=1), mixture(4))
    lost = reach(5)
    lost.tcp[7] = np.nan
    with pytest.raises(ValueError, match="control step 7 is not finite"):
        train_critic(quick, [lost, reach(1)])
    mug = dataclasses.replace(reach(6), object_names=("mug",))
    with pytest.raises(ValueError, match="no pose of cup"):
        train_critic(quick, [reach(1), mug])


def test_motion_features_add_columns() -> None:
    from dexpie_ros.critic.features import features

    plain = FeatureConfig(object_names=("cup",))
    moving = dataclasses.replace(plain, motion_steps=5)
    a, b = features(reach(1), plain), features(reach(1), moving)
    assert b.shape == (a.shape[0], a.shape[1] + 12)
    np.testing.assert_array_equal(b[0, -12:], 0.0)
    assert b[20, -12] == pytest.approx(5 * 0.004 / 0.05, rel=0.2)


def test_contact_is_a_column_where_it_is_asked_for() -> None:
    from dexpie_ros.critic.features import features

    touched = dataclasses.replace(reach(1), contact=np.arange(len(reach(1))) > 30)
    plain = FeatureConfig(object_names=("cup",))
    a, b = features(touched, plain), features(touched, dataclasses.replace(plain, contact=True))
    np.testing.assert_array_equal(b[:, :-1], a)
    np.testing.assert_array_equal(b[:, -1], touched.contact)
    real = dataclasses.replace(
        touched, object_names=(), objects=np.zeros((len(touched), 0, 7)), contact=touched.contact
    )
    with pytest.raises(ValueError, match="no simulator recorded"):
        features(real, FeatureConfig(relations=False, contact=True))


def test_config_is_strict() -> None:
    with pytest.raises(ValueError):
        CriticConfig(dropout=1.0)
    settings = presets.paper(120)
    assert (settings.epochs, settings.batch_size, settings.bins) == (250, 512, 201)
    assert settings.returns.scaling == "clip" and settings.crossfit == 0


def test_returns_follow_the_episode() -> None:
    failed = reach(2, success=False)
    got = episode_returns(failed, presets.best(200).returns)
    assert got[-1] == -0.5 and np.all(np.diff(got) > 0)
