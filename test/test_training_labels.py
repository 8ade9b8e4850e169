"""Which labels an actor may learn from, which steps count as a person's, what is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic import reach

from dexpie_ros.control.types import Mode, Source
from dexpie_ros.critic.label import LabelConfig, label
from dexpie_ros.critic.returns import ReturnConfig
from dexpie_ros.critic.settings import CriticConfig
from dexpie_ros.critic.train import train_critic
from dexpie_ros.episodes.episode import BRIDGED_STEPS, EpisodeError
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.training.dataset import FLAGGED, NOT_FOLLOWED, DatasetError, left_out
from dexpie_ros.training.recipes import build, first_tick

SPEC = ObservationSpec(parts=("tcp", "hand"))
QUICK = CriticConfig(
    returns=ReturnConfig(max_steps=100),
    epochs=2,
    hidden=16,
    crossfit=2,
    min_batches=1,
    target_lambda=1.0,
)


@pytest.fixture(scope="module")
def labelled():
    episodes = [
        *(reach(k, 40) for k in range(3)),
        *(reach(k, 50, "deployment") for k in range(3, 6)),
        reach(6, 60, "deployment", "failure"),
        reach(7, 70, "correction", human=slice(30, 50)),
    ]
    critic = train_critic(QUICK, episodes)
    return episodes, label(critic, episodes, LabelConfig()), critic


def annotated(episode, **info):
    return replace(episode, info=replace(episode.info, **info))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("outcome", lambda e: annotated(e, outcome="failure")),
        ("kind", lambda e: annotated(e, kind="deployment")),
        ("use_for_critic", lambda e: annotated(e, use_for_critic=False)),
        ("human", lambda e: replace(e, intervention=np.zeros(len(e), bool))),
    ],
)
def test_labels_from_before_an_annotation_are_refused(labelled, what, change):
    episodes, labels, _ = labelled
    assert len(build("dexpie", episodes, labels, SPEC, 24).windows)
    changed = [*episodes[:-1], change(episodes[-1])]
    with pytest.raises(EpisodeError, match=rf"episode-7: {what} annotated anew.*label again"):
        build("dexpie", changed, labels, SPEC, 24)
    assert len(build("hg_dagger", changed, None, SPEC, 24).windows), "needs no labels"


def test_a_critic_knows_what_was_annotated_anew_since(labelled, tmp_path):
    episodes, _, critic = labelled
    assert critic.outdated(episodes) == []
    again = type(critic).load(critic.save(tmp_path))
    changed = annotated(episodes[-1], outcome="failure")
    assert again.outdated([*episodes[:-1], changed, reach(99)]) == [changed]


@pytest.mark.parametrize("key", ["critic", "q_low", "q_high", "settings"])
def test_labels_of_several_critics_or_thresholds_are_not_mixed(labelled, key):
    episodes, labels, _ = labelled
    data = build("recap", episodes, labels, SPEC, 24)
    assert set(data.labelled_by) == {"critic", "settings", "q_low", "q_high"}
    other = replace(labels[4], meta={**labels[4].meta, key: "another"})
    mixed = [*labels[:4], other, *labels[5:]]
    with pytest.raises(DatasetError, match=rf"episode-4: .*another {key} than those of episode-0"):
        build("recap", episodes, mixed, SPEC, 24)


def test_two_episodes_of_one_id_are_refused(labelled):
    episodes, _, _ = labelled
    with pytest.raises(DatasetError, match="has the same id, episode-0, as"):
        build("bc", [episodes[0], episodes[1], episodes[0]], None, SPEC, 24)


def lost(episode, steps):
    """The tracker was lost at ``steps`` of a takeover: the arbiter held."""
    source = episode.source.copy()
    source[steps] = Source.HOLD
    return replace(episode, source=source)


def test_a_tracker_lost_for_a_moment_does_not_end_an_intervention():
    whole = reach(5, 100, "correction", human=slice(20, 80))
    moment, longer = lost(whole, slice(30, 31)), lost(whole, slice(30, 31 + BRIDGED_STEPS))
    assert np.array_equal(moment.human, whole.human)
    assert np.flatnonzero(whole.human & ~longer.human).tolist() == list(range(30, 56))
    # it is one intervention all the same: the person never gave back
    assert [first_tick("dexhil", e) for e in (whole, moment, longer)] == [20, 20, 20]
    given_back = lost(whole, slice(30, 35))
    given_back.mode[30:35] = Mode.HOLD
    assert not given_back.human[30:35].any()
    assert first_tick("dexhil", given_back) == 35
    corrected = replace(moment, intervention=np.isin(np.arange(100), (40, 41)))
    assert corrected.human.sum() == 2, "an annotation is taken as it is"


def test_steps_that_begin_no_window_are_counted_by_reason():
    episode = reach(3, 40)
    flags, command = episode.flags.copy(), episode.command_tcp.copy()
    flags[[3, 9]] = True
    command[20:24, 0, 3] += 1.0
    flags[20] = True  # counted once
    late = replace(episode, flags=flags, command_tcp=command)
    counts = left_out(late, SPEC)
    assert (counts[FLAGGED], counts[NOT_FOLLOWED]) == (2, 4)
    data = build("bc", [late], None, SPEC, 24)
    assert len(data.windows) == 40 - 6
    assert f"left out: 2 of 40 steps (5.0%): {FLAGGED}" in data.summary()
    assert left_out(late, SPEC, skip_flagged=False)[FLAGGED] == 0


def test_a_recording_that_was_cut_off_teaches_the_critic_nothing(labelled):
    episodes = labelled[0]
    cut = replace(episodes[4], partial=True)
    critic = train_critic(QUICK, [*episodes[:4], cut, *episodes[5:]])
    assert cut.id not in critic.inputs and len(critic.inputs) == len(episodes) - 1
    again = label(critic, [*episodes[:4], cut], LabelConfig())
    without = label(critic, episodes[:4], LabelConfig())
    assert again[0].meta["q_low"] == without[0].meta["q_low"]
    assert isinstance(again[4], Labels), "the actor may learn from what there is of it"
