"""Quotas, pairs and the flow of a session; the way home."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_plans import plan, record

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.chunks import check_chunk
from dexpie_ros.control.homing import HomingConfig, plan_home
from dexpie_ros.control.session import (
    SessionConfig,
    SessionPlan,
    StageQuota,
    label_of_fault,
)
from dexpie_ros.control.types import STEP_NS, Command, Mode, RobotState
from dexpie_ros.geometry import Pose


def test_a_success_goes_on_with_another_start_and_a_failure_with_the_same():
    p = plan(episodes=10, pairs=1)
    first = p.next()
    assert (first.kind, first.seed, first.same_start_as) == ("deployment", 0, "")
    assert p.next() == first
    p.finished(record(first, "success"))
    second = p.next()
    assert second.seed == 1 and second.pair_id != first.pair_id
    failed = record(second, "failure")
    p.finished(failed)
    third = p.next()
    assert (third.kind, third.seed, third.pair_id) == ("correction", 1, second.pair_id)
    assert third.same_start_as == failed.episode_id
    p.finished(record(third, "success"))
    assert p.next().kind == "deployment" and p.next().seed == 2
    have = p.progress()[0].have
    assert have == {"episodes": 3, "pairs": 1, "successes": 1, "failures": 1}


def test_a_start_that_cannot_be_corrected_is_given_up_after_its_attempts():
    p = plan(episodes=10)
    p.finished(record(p.next(), "failure"))
    for _ in range(2):
        assert p.next().kind == "correction"
        p.finished(record(p.next(), "failure"))
    assert p.next().kind == "deployment"
    assert p.progress()[0].have["pairs"] == 0


def test_aborted_and_re_recorded_episodes_come_again_with_the_same_start():
    p = plan(episodes=3)
    first = p.next()
    p.finished(record(first, "aborted"))
    again = p.next()
    assert (again.kind, again.seed, again.pair_id) == (first.kind, first.seed, first.pair_id)
    done = record(again, "success")
    p.finished(done)
    p.re_record(done)
    assert p.progress()[0].have["episodes"] == 0
    assert p.next().seed == first.seed
    p.finished(record(p.next(), "success"))
    assert p.next().seed == first.seed + 1
    with pytest.raises(ValueError, match="not the last episode"):
        p.re_record(done)


def test_the_session_ends_when_all_stages_have_what_they_want():
    stages = (StageQuota("near", demonstrations=2), StageQuota("far", demonstrations=1))
    p = SessionPlan(SessionConfig(stages, purpose="demonstrations", first_seed=100))
    seen = []
    while (assignment := p.next()) is not None:
        seen.append((assignment.stage, assignment.seed))
        outcome = "failure" if len(seen) == 1 else "success"  # failed ones do not count
        message = p.finished(record(assignment, outcome))
    assert seen == [("near", 100), ("near", 101), ("far", 102), ("near", 103)]
    assert message == "all that was wanted is there"
    assert all(stage.complete and stage.share == 1.0 for stage in p.progress())


def test_a_stage_may_be_skipped_with_its_correction():
    stages = (StageQuota("near", episodes=9), StageQuota("far", episodes=9))
    p = SessionPlan(SessionConfig(stages))
    p.finished(record(p.next(), "failure"))
    assert p.next().kind == "correction" and "near" in p.skip_stage()
    assert (p.next().kind, p.next().stage) == ("deployment", "far")
    p.skip_stage()
    assert p.next() is None and "nothing" in p.skip_stage()


def test_the_standard_flow_watches_everything_from_the_first_stage():
    stages = (StageQuota("near", episodes=2), StageQuota("far", episodes=2))
    p = SessionPlan(SessionConfig(stages, flow="standard"))
    for _ in range(2):
        a = p.next()
        assert (a.kind, a.stage, a.pair_id) == ("correction", "near", "")
        p.finished(record(a, "failure"))
    assert p.next() is None


@given(st.lists(st.sampled_from(["success", "failure", "aborted"]), max_size=40), st.integers(0, 9))
def test_resuming_from_the_recorded_episodes_is_the_same_session(outcomes, seed):
    settings = SessionConfig(
        (StageQuota("near", episodes=8, pairs=2), StageQuota("far", episodes=6)), first_seed=seed
    )
    p, history = SessionPlan(settings), []
    for outcome in outcomes:
        assignment = p.next()
        if assignment is None:
            break
        episode = record(assignment, outcome)
        history.append(episode)
        p.finished(episode)
        resumed = SessionPlan(settings, history)
        assert resumed.next() == p.next()
        assert [s.have for s in resumed.progress()] == [s.have for s in p.progress()]
    # A pair is two episodes of the same start, and only such.
    pairs = {}
    for episode in history:
        if episode.pair_id:
            pairs.setdefault(episode.pair_id, set()).add((episode.stage, episode.seed))
    assert all(len(starts) == 1 for starts in pairs.values())


def test_impossible_sessions_are_refused():
    with pytest.raises(ConfigError, match="each name once"):
        from_dict(SessionConfig, {"stages": [{"name": "a"}, {"name": "a"}]})
    with pytest.raises(ValueError, match="no stage 'elsewhere'"):
        p = plan(episodes=1)
        p.finished(dataclasses.replace(record(p.next(), "success"), stage="elsewhere"))


def test_faults_label_the_episode():
    assert label_of_fault("protective stop of the arm") == ("failure", "collision")
    assert label_of_fault("emergency stop") == ("aborted", "emergency stop")
    assert label_of_fault("the clock went back") == ("aborted", "the clock went back")


def pose(v, turn=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array(v, float), np.array(q.from_rotvec(tuple(turn))))


def test_the_way_home_opens_lifts_and_travels_below_its_speeds():
    start = Command(pose((0.5, 0.2, 0.1), (0.2, 0, 0)), np.full(6, 0.2))
    home = Command(pose((0.3, -0.1, 0.4)), np.full(6, 1.0))
    chunk = plan_home(start, home, 1000)
    assert check_chunk(chunk) == "" and chunk.policy_id == "home"
    first, last = chunk.command(0), chunk.command(len(chunk) - 1)
    assert first.tcp.position.tolist() == [0.5, 0.2, 0.1]
    np.testing.assert_allclose(last.tcp.matrix(), home.tcp.matrix(), atol=1e-12)
    np.testing.assert_allclose(last.hand, 1.0)
    use = HomingConfig()
    speed = np.linalg.norm(np.diff(chunk.positions, axis=0), axis=1).max() / 0.04
    assert 0.9 * use.linear_speed < speed <= use.linear_speed + 1e-9
    assert np.abs(np.diff(chunk.hand, axis=0)).max() / 0.04 <= use.hand_speed + 1e-9
    opened = np.argmax(chunk.hand[:, 0] >= 1.0)
    assert (chunk.positions[: opened + 1] == first.tcp.position).all()
    moved = np.abs(chunk.positions[:, :2] - first.tcp.position[:2]).max(axis=1) > 1e-9
    assert chunk.positions[np.argmax(moved) - 1, 2] == pytest.approx(0.18)
    assert len(plan_home(home, home, 0)) == 1


def test_the_arbiter_drives_the_way_home_outside_of_episodes():
    arbiter = Arbiter()
    start = Command(pose((0.35, 0, 0.3)), np.full(6, 0.9))
    home = Command(pose((0.3, 0, 0.32)), np.full(6, 1.0))
    now, robot = 10**9, RobotState(0, np.zeros(6), np.zeros(6), start.tcp, start.hand)
    assert arbiter.request(Mode.POLICY)[0]
    arbiter.step(now, robot)
    chunk = plan_home(arbiter.last_command, home, now)
    assert arbiter.add_chunk(chunk)
    for k in range(1, len(chunk)):
        step = arbiter.step(now + k * STEP_NS, robot)
    np.testing.assert_allclose(step.command.tcp.position, home.tcp.position, atol=1e-12)
    assert arbiter.statistics()["clipped_steps"] == 0
    arbiter.stop()
    assert arbiter.mode is Mode.HOLD
