"""Windows, padding, and what each recipe selects, weighs and conditions on."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import reach

from dexpie_ros import geometry
from dexpie_ros.episodes.episode import EpisodeError
from dexpie_ros.episodes.labels import Labels
from dexpie_ros.policy import actions
from dexpie_ros.policy.observation import ObservationSpec
from dexpie_ros.training.dataset import DatasetError, concatenate, episode_windows
from dexpie_ros.training.recipes import RECIPES, build, chunk_optimality, first_tick, select
from dexpie_ros.training.sampling import SourceWeights

SPEC = ObservationSpec(parts=("tcp", "hand"))
SCORING = {"kind": "continuous", "alpha": 5.0, "low": 0.6, "high": 0.8}


def labels_for(episode, value=0.25):
    rng = np.random.default_rng(len(episode))
    advantage = rng.normal(0, 0.01, len(episode))
    optimality = np.full(len(episode), value)
    if episode.info.kind != "demonstration":
        optimality[episode.human] = 1.0
    meta = {"critic": "x", "q_low": 0.0, "q_high": 0.01, "settings": {"scoring": SCORING}}
    return Labels(optimality * 0, advantage, optimality, meta)


@pytest.fixture
def episodes():
    return [
        reach(0, 40),
        reach(1, 50),
        reach(2, 60, "deployment"),
        reach(3, 30, "deployment"),
        reach(4, 45, "deployment", "failure"),
        reach(5, 70, "correction", human=slice(30, 50)),
        reach(6, 20, "evaluation"),
        reach(7, 20, "demonstration", "failure"),
        reach(8, 20, "deployment", ""),
        reach(9, 20, "deployment", "aborted"),
    ]


def numbers(chosen):
    return [int(e.id.split("-")[1]) for e in chosen]


def test_windows_hold_the_commands_from_the_observation_on():
    episode = reach(3, 30)
    windows = episode_windows(episode, SPEC, 24)
    assert windows.actions.shape == (30, 24, 15)
    tcp, hand = actions.decode(episode.tcp[5], windows.actions[5])
    assert np.abs(tcp - episode.command_tcp[5:29]).max() < 1e-12
    assert np.array_equal(hand, episode.command_hand[5:29])
    assert windows.valid.tolist() == [24] * 7 + list(range(23, 0, -1))
    # Padding repeats the last command.
    tcp, _ = actions.decode(episode.tcp[29], windows.actions[29])
    assert np.abs(tcp - episode.command_tcp[29]).max() < 1e-12
    assert np.array_equal(windows.vector, SPEC.from_episode(episode))
    positions = geometry.relative(episode.tcp[:, None], episode.command_tcp[None])[..., :3, 3]
    reachable = [
        np.linalg.norm(positions[t, k])
        for t in range(30)
        for k in range(t, min(t + 24, 30))
    ]  # fmt: skip
    assert windows.largest_position == pytest.approx(max(reachable))


def test_windows_end_before_a_lost_command_and_skip_lost_observations():
    episode = reach(3, 40)
    command, tcp, flags = episode.command_tcp.copy(), episode.tcp.copy(), episode.flags.copy()
    command[20], tcp[5], flags[7] = np.nan, np.nan, True
    broken = replace(episode, command_tcp=command, tcp=tcp, flags=flags)
    windows = episode_windows(broken, SPEC, 24)
    assert set(range(40)) - set(windows.tick.tolist()) == {5, 7, 20}
    valid = dict(zip(windows.tick.tolist(), windows.valid.tolist(), strict=True))
    assert (valid[0], valid[19], valid[21]) == (20, 1, 19)
    assert np.isfinite(windows.actions).all()
    assert 7 in episode_windows(broken, SPEC, 24, skip_flagged=False).tick


def test_share_of_human_steps_counts_valid_slots_only():
    windows = episode_windows(reach(5, 70, "correction", human=slice(30, 70)), SPEC, 24)
    assert windows.human[0] == 0
    assert windows.human[29] == pytest.approx(23 / 24)
    assert (windows.human[30:] == 1).all()


def test_selection(episodes):
    assert numbers(select("bc", episodes)) == [0, 1]
    assert numbers(select("hg_dagger", episodes)) == [0, 1, 2, 3, 5]
    assert numbers(select("hg_fast", episodes)) == [0, 1, 2, 3]  # 30 and 60 of 30, 60, 70
    assert numbers(select("hg_fast", episodes, 0.33)) == [0, 1, 3]
    assert numbers(select("hg_fast", episodes, 1.0)) == [0, 1, 2, 3, 5]
    assert numbers(select("dexhil", episodes)) == [0, 1, 5]
    for recipe in ("recap", "dexpie"):
        assert numbers(select(recipe, episodes)) == [0, 1, 2, 3, 4, 5]
    hidden = [replace(e, info=replace(e.info, use_for_actor=False)) for e in episodes[:1]]
    assert numbers(select("bc", hidden + episodes[1:])) == [1]


def test_dexhil_starts_at_the_last_intervention_and_gives_it_half_of_the_loss(episodes):
    assert first_tick("dexhil", episodes[5]) == 30
    assert first_tick("dexpie", episodes[5]) == 0
    twice = reach(5, 70, "correction", human=slice(30, 50))
    twice.source[60:65] = 2
    assert first_tick("dexhil", twice) == 60
    data = build("dexhil", episodes, None, SPEC, 24)
    corrected = data.windows.episode == 2
    assert corrected.sum() == 40
    assert data.weight[corrected].sum() == pytest.approx(data.weight[~corrected].sum())
    assert data.weight.mean() == pytest.approx(1.0)
    less = build("dexhil", episodes, None, SPEC, 24, intervention_share=0.3)
    assert less.weight[corrected].sum() == pytest.approx(0.3 * len(less.windows))
    assert less.weight.mean() == pytest.approx(1.0)


def test_conditions(episodes):
    labels = [labels_for(e) for e in episodes]
    for recipe in ("bc", "hg_dagger", "hg_fast", "dexhil"):
        assert set(build(recipe, episodes, None, SPEC, 24).optimality) == {1.0}
    dexpie = build("dexpie", episodes, labels, SPEC, 24)
    assert dexpie.optimality[:90] == pytest.approx(0.25)
    recap = build("recap", episodes, {e.id: x for e, x in zip(episodes, labels)}, SPEC, 24)
    assert set(recap.optimality) == {0.0, 1.0}
    assert np.array_equal(recap.optimality, dexpie.optimality > 0.5)
    said = [line.split(":")[0] for line in recap.summary()]
    assert said == ["correction", "demonstration", "deployment", "left out"]
    assert "deployment: 3 episodes (2 successful), 134 windows" in recap.summary()[2]


def test_a_chunk_is_human_only_if_all_of_it_is(episodes):
    episode = episodes[5]  # human at steps 30 .. 49
    labels = labels_for(episode)
    windows = episode_windows(episode, SPEC, 24)
    value = chunk_optimality(episode, labels, windows)
    score = 1 / (1 + np.exp(-5 * labels.advantage.astype(float) / 0.01))
    assert value[29] == pytest.approx(0.25)  # the label of its first step
    assert value[30:50] == pytest.approx(score[30:50])  # 20 human steps are less than 24
    shared = chunk_optimality(episode, labels, windows, human_share=0.5)
    assert (shared[30:39] == 1).all()
    assert shared[39] == pytest.approx(score[39])  # 11 of 24
    long = reach(5, 70, "correction", human=slice(30, 60))
    assert (chunk_optimality(long, labels_for(long), windows)[30:37] < 1).any()
    full = episode_windows(long, SPEC, 24)
    assert (chunk_optimality(long, labels_for(long), full)[30:37] == 1).all()


def test_a_share_of_human_steps_also_counts_where_the_policy_began():
    episode = reach(5, 70, "correction", human=slice(30, 60))
    labels, windows = labels_for(episode), episode_windows(episode, SPEC, 24)
    whole = chunk_optimality(episode, labels, windows)
    assert whole[:30] == pytest.approx(0.25), "all of it: what the policy began is its own"
    half = chunk_optimality(episode, labels, windows, human_share=0.5)
    # from step 18 on, 12 of the 24 steps that follow are human
    assert half[:18] == pytest.approx(0.25) and (half[18:30] == 1).all()
    assert (half[30:49] == 1).all()
    assert (chunk_optimality(episode, labels, windows, human_share=0.0)[:7] == 0.25).all()
    # where corrections are scored, or failed, a human chunk has no 1 to give
    for change, outcome in ({"human_optimality": "scored"}, "success"), ({}, "failure"):
        other = reach(5, 70, "correction", outcome, human=slice(30, 60))
        meta = {**labels.meta, "settings": {"scoring": {**SCORING, **change}}}
        scored = 1 / (1 + np.exp(-5 * labels.advantage.astype(float) / 0.01))
        again = Labels(labels.value, labels.advantage, scored, meta)
        got = chunk_optimality(other, again, windows, human_share=0.5)
        assert got[18:30] == pytest.approx(scored[18:30])


def test_missing_or_stale_labels_are_refused(episodes):
    with pytest.raises(DatasetError, match=r"episode-0: has no labels.*dexpie label"):
        build("dexpie", episodes, None, SPEC, 24)
    labels = {e.id: labels_for(e) for e in episodes}
    labels["episode-2"] = labels_for(episodes[3])
    with pytest.raises(EpisodeError, match="episode-2: 30 labels for 60 steps"):
        build("dexpie", episodes, labels, SPEC, 24)
    labels = {e.id: replace(labels_for(e), meta={}) for e in episodes}
    with pytest.raises(DatasetError, match="label it again"):
        build("recap", episodes, labels, SPEC, 24)


def test_a_window_in_which_a_policy_ran_away_sets_no_scale():
    shown, failed = reach(0, 150), reach(0, 150, "deployment", "failure")
    far = failed.command_tcp.copy()
    far[100, :3, 3] += 1.0  # in 24 windows; one of 200 may be left out
    wild = replace(failed, command_tcp=far)
    many = [replace(shown, info=replace(shown.info, episode_id=f"shown-{k}")) for k in range(40)]
    wild = replace(wild, info=replace(wild.info, episode_id="wild"))
    for episodes, beyond in (([*many, wild], 24), ([shown, wild], 1)):
        found = build("dexpie", episodes, [labels_for(e) for e in episodes], SPEC, 24, max_lead=9)
        assert found.beyond == beyond
        assert len(found.windows) == len(found.optimality) == 150 * len(episodes) - beyond
        if len(episodes) > 2:
            alone = build("bc", [shown], None, SPEC, 24)
            assert found.windows.largest_position == alone.windows.largest_position
    # Windows that are not drawn count for nothing: not in the share of those that may be left out.
    labels = [labels_for(shown), labels_for(wild)]
    weights = SourceWeights(failure=0.0)
    found = build("dexpie", [shown, wild], labels, SPEC, 24, max_lead=9, weights=weights)
    alone = build("bc", [shown], None, SPEC, 24)
    assert found.windows.content_hash() == alone.windows.content_hash()
    assert (found.beyond, found.undrawn, alone.undrawn) == (0, 150, 0)


def test_nothing_to_learn_from_is_said(episodes):
    with pytest.raises(DatasetError, match="no training windows"):
        build("bc", episodes[2:], None, SPEC, 24)
    with pytest.raises(DatasetError, match="choose from bc, hg_dagger"):
        build("dagger", episodes, None, SPEC, 24)
    with pytest.raises(DatasetError, match="no training windows"):
        concatenate([])
    assert len(RECIPES) == 6


def test_commands_that_the_robot_did_not_follow_are_not_learned_from():
    """From step 20 on the command runs away from a robot that is stuck, step 30 is near again."""
    episode = reach(3, 40)
    command = episode.command_tcp.copy()
    command[20:30, 0, 3] = episode.tcp[20:30, 0, 3] + 1.8
    stuck = replace(episode, command_tcp=command)
    assert episode_windows(episode, SPEC, 24).largest_position < 0.5
    windows = episode_windows(stuck, SPEC, 24)
    assert set(range(40)) - set(windows.tick.tolist()) == set(range(20, 30))
    assert windows.largest_position < 0.5
    valid = dict(zip(windows.tick.tolist(), windows.valid.tolist(), strict=True))
    assert (valid[0], valid[19], valid[30]) == (20, 1, 10)
    assert episode_windows(stuck, SPEC, 24, max_lead=2.0).largest_position > 1.7
