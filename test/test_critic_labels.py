"""Labels from a critic, relabelling without it, and the report that judges them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from critic_data import mixture, reach

from dexpie_ros.critic import label as labelling
from dexpie_ros.critic.advantage import AdvantageConfig
from dexpie_ros.critic.critic import Critic
from dexpie_ros.critic.errors import CriticError
from dexpie_ros.critic.events import event_aucs, event_labels
from dexpie_ros.critic.features import features
from dexpie_ros.critic.label import LabelConfig, label, relabel
from dexpie_ros.critic.optimality import ScoringConfig
from dexpie_ros.critic.report import critic_report, data_source, to_plain
from dexpie_ros.critic.returns import ReturnConfig
from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.critic.targets import quantile
from dexpie_ros.critic.train import train_critic

QUICK = CriticConfig(
    returns=ReturnConfig(max_steps=200),
    epochs=12,
    hidden=48,
    crossfit=3,
    learning_rate=5e-3,
    target_lambda=1.0,
)
EPISODES = mixture()


@pytest.fixture(scope="module")
def critic() -> Critic:
    return train_critic(QUICK, EPISODES)


def test_labels_fit_their_episodes(critic: Critic) -> None:
    labels = label(critic, EPISODES, LabelConfig())
    assert [len(item.value) for item in labels] == [len(e) for e in EPISODES]
    for item in labels:
        assert np.all((item.optimality >= 0.0) & (item.optimality <= 1.0))
        assert item.meta["critic"] == critic.hash and item.meta["held_out"] is True
    everything = np.concatenate([item.advantage for item in labels])
    assert np.mean(everything > labels[0].meta["q_low"]) == pytest.approx(0.4, abs=0.01)
    corrected = next(i for i, e in enumerate(EPISODES) if e.info.kind == "correction")
    assert np.all(labels[corrected].optimality[EPISODES[corrected].human] == 1.0)
    assert np.any(labels[corrected].optimality[~EPISODES[corrected].human] < 1.0)


def test_labels_keep_the_spread_that_the_value_is_the_mean_of(critic: Critic) -> None:
    labels = label(critic, EPISODES[:3], LabelConfig())
    for episode, item in zip(EPISODES, labels):
        assert np.array_equal(item.value, critic.values(episode).astype(np.float32))
        assert item.value_low is not None and item.value_high is not None
        assert np.all(item.value_low < item.value_high)
        assert np.all((item.value_low >= -1.0) & (item.value_high <= 0.0))
        # against the distribution itself, by counting bins
        rows = torch.from_numpy(features(episode, critic.settings.features))
        network = critic.networks[critic.folds[episode.id]]
        reached = network(rows).detach().double().softmax(-1).cumsum(-1).numpy()
        centres = network.centres.numpy()
        by_bins = centres[np.argmax(reached >= 0.1, axis=1)]
        assert np.abs(item.value_low - by_bins).max() <= 0.5 * (centres[1] - centres[0]) + 1e-6
    kept = relabel(EPISODES[:3], labels, labelling.paper())
    assert np.array_equal(kept[1].value_high, labels[1].value_high)
    old = [dataclasses.replace(item, value_low=None, value_high=None) for item in labels]
    assert relabel(EPISODES[:3], old, labelling.paper())[0].value_low is None


def test_networks_that_disagree_are_uncertain(critic: Critic) -> None:
    unseen = reach(905)
    each = [Critic(critic.settings, [n], {}).judge(unseen) for n in critic.networks]
    together = critic.judge(unseen)
    assert np.all(together.low <= np.max([j.low for j in each], axis=0) + 1e-9)
    assert np.all(together.high >= np.min([j.high for j in each], axis=0) - 1e-9)


def test_quantiles_of_a_known_distribution() -> None:
    centres = torch.linspace(-1.0, 0.0, 5).double()  # width 0.25
    masses = torch.tensor(
        [[0.0, 0.5, 0.5, 0.0, 0.0], [1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]]
    ).double()
    # half a bin's mass lies below its centre; nothing lies beyond the outermost centres
    assert quantile(masses, centres, 0.25).tolist() == pytest.approx([-0.75, -1.0, -0.0625])
    assert quantile(masses, centres, 0.75).tolist() == pytest.approx([-0.5, -0.9375, 0.0])
    assert quantile(masses, centres, 0.5).tolist() == pytest.approx([-0.625, -1.0, 0.0])


def test_paper_calls_every_demonstration_optimal(critic: Critic) -> None:
    for episode, item in zip(EPISODES, label(critic, EPISODES, labelling.paper()), strict=True):
        if episode.info.kind == "demonstration":
            assert np.all(item.optimality == 1.0)


def test_a_pause_is_worse_than_progress(critic: Critic) -> None:
    labels = label(critic, EPISODES, LabelConfig())
    found = {
        a.event: a for a in event_aucs(EPISODES, [i.advantage for i in labels], AdvantageConfig())
    }
    assert set(found) == {"pause", "bad_ahead"}
    assert found["pause"].auc.value > 0.8
    # 24 steps of pause and a window of 24: its last steps look ahead to progress
    assert found["pause"].auc.value <= found["pause"].ceiling + 0.02 < 1.0
    assert found["pause"].steps == 6 * 24 and found["pause"].episodes == 6


def test_relabelling_needs_no_network(critic: Critic) -> None:
    other = LabelConfig(
        advantage=AdvantageConfig(window=12),
        scoring=ScoringConfig(kind="binary", low=0.5, high=0.9),
    )
    direct = label(critic, EPISODES, other)
    again = relabel(EPISODES, label(critic, EPISODES, LabelConfig()), other)
    for a, b in zip(direct, again, strict=True):
        np.testing.assert_array_equal(a.advantage, b.advantage)
        np.testing.assert_array_equal(a.optimality, b.optimality)
        assert a.meta == b.meta


def test_relabelling_refuses_what_does_not_belong_together(critic: Critic) -> None:
    labels = label(critic, EPISODES[:6], LabelConfig())
    foreign = dataclasses.replace(labels[0], meta={**labels[0].meta, "critic": "other"})
    with pytest.raises(ValueError, match="2 critics"):
        relabel(EPISODES[:6], [foreign, *labels[1:]], LabelConfig())
    with pytest.raises(ValueError, match="label it again"):
        relabel([EPISODES[1], *EPISODES[1:6]], labels, LabelConfig())
    with pytest.raises(ValueError, match="no labels"):
        relabel([], [], LabelConfig())


def test_excluded_episodes_do_not_move_the_quantiles(critic: Critic) -> None:
    info = dataclasses.replace(EPISODES[2].info, use_for_critic=False)
    episodes = [*EPISODES[:2], dataclasses.replace(EPISODES[2], info=info), *EPISODES[3:]]
    with_it = label(critic, EPISODES, LabelConfig())[0].meta
    without = label(critic, episodes, LabelConfig())
    assert without[0].meta["q_low"] != with_it["q_low"]
    rest = label(critic, [*EPISODES[:2], *EPISODES[3:]], LabelConfig())
    assert without[0].meta["q_low"] == rest[0].meta["q_low"]
    assert len(without[2].optimality) == len(EPISODES[2])


def test_event_labels_hold_until_the_next() -> None:
    names = event_labels(reach(0, pause=(10, 34), labelled=True))
    assert names is not None
    assert (
        set(names[:10]) == {"ok"} and set(names[10:34]) == {"pause"} and set(names[34:]) == {"ok"}
    )
    assert event_labels(reach(0)) is None
    ended = ((int(reach(0).time_ns[5]), '{"note": "label miss"}'),
             (int(reach(0).time_ns[9]), '{"note": "lost control; label none"}'))  # fmt: skip
    partly = event_labels(dataclasses.replace(reach(0), events=ended))
    assert partly is not None
    assert set(partly[:5]) == {""} and set(partly[5:9]) == {"miss"} and set(partly[9:]) == {""}
    noisy = dataclasses.replace(
        reach(0), events=((1, "takeover"), (2, json.dumps({"note": 1})), (3, "[]"))
    )
    assert event_labels(noisy) is None


def test_sources() -> None:
    corrected = reach(3, kind="correction", human=slice(30, 40))
    names = data_source(corrected)
    assert set(names[:30]) == {"before takeover"} and set(names[30:40]) == {"human"}
    assert set(names[40:]) == {"policy, success"}
    assert set(data_source(reach(0, kind="demonstration"))) == {"demonstration"}
    assert set(data_source(reach(2, success=False))) == {"policy, failure"}


def test_report(critic: Critic) -> None:
    episodes = [*EPISODES, reach(77, success=False, kind="correction", human=slice(40, None))]
    labels = label(critic, episodes, LabelConfig())
    report = critic_report(critic, episodes, labels)
    assert (report.corrections, report.failed_corrections) == (7, 1)
    assert report.idle_cost == pytest.approx(24 / 400)
    assert {s.source for s in report.sources} == {
        "demonstration",
        "policy, success",
        "policy, failure",
        "before takeover",
        "human",
    }
    assert sum(s.steps for s in report.sources) == sum(len(e) for e in episodes)
    assert any("1 of 7 corrections failed" in w for w in report.warnings)
    text = report.text()
    assert "held out" in text and "explained variance" in text and "pause" in text
    json.dumps(to_plain(report), allow_nan=False)


def test_report_warns_of_a_critic_that_only_remembers(critic: Critic) -> None:
    labels = label(critic, EPISODES, LabelConfig())
    useless = Critic(critic.settings, critic.networks, critic.folds, inputs=critic.inputs)
    useless.metrics = {
        **critic.metrics,
        "held_out": {
            **critic.metrics["held_out"],
            "return_sd": 0.2,
            "rmse": {"value": 0.21, "low": 0.2, "high": 0.22},
            "explained_variance": {"value": -0.1, "low": -0.2, "high": 0.0},
        },
    }
    flat = [dataclasses.replace(item, meta={**item.meta, "q_low": 0.0001}) for item in labels]
    warnings = critic_report(useless, EPISODES, flat).warnings
    assert any("no better than the mean" in w for w in warnings)
    assert any("next to nothing" in w for w in warnings)
    assert not any("no better" in w for w in critic_report(critic, EPISODES, labels).warnings)
    stranger = train_critic(dataclasses.replace(QUICK, epochs=1, seed=9), EPISODES)
    with pytest.raises(ValueError, match="label again"):
        critic_report(stranger, EPISODES, labels)


def test_decay_does_not_go_with_a_terminal_reward(critic: Critic) -> None:
    returns = dataclasses.replace(critic.settings.returns, scaling="decay")
    settings = dataclasses.replace(critic.settings, returns=returns)
    decayed = Critic(settings, critic.networks, critic.folds, inputs=critic.inputs)
    with pytest.raises(CriticError, match="terminal_reward=false"):
        label(decayed, EPISODES, LabelConfig())
    assert label(decayed, EPISODES, labelling.authors())
