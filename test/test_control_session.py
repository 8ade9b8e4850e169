"""Quotas, pairs and the flow of a session; the way home."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.chunks import check_chunk
from dexpie_ros.control.homing import HomingConfig, plan_home
from dexpie_ros.control.keys import Action
from dexpie_ros.control.session import (
    Finished,
    SessionConfig,
    SessionPlan,
    StageQuota,
    label_of_fault,
)
from dexpie_ros.control.session_flow import Begin, Discard, End, GoHome, Leave, Phase, SessionFlow
from dexpie_ros.control.types import STEP_NS, Command, Mode, RobotState
from dexpie_ros.geometry import Pose


def plan(**quota) -> SessionPlan:
    return SessionPlan(SessionConfig((StageQuota("start", **quota),)))


def record(assignment, outcome, number=[0]) -> Finished:  # noqa: B006 - counts over all tests
    number[0] += 1
    a = assignment
    return Finished(f"e{number[0]}", a.kind, a.stage, a.seed, a.pair_id, outcome)


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
    assert p.re_record() == done and p.progress()[0].have["episodes"] == 0
    assert p.next().seed == first.seed
    p.finished(record(p.next(), "success"))
    assert p.next().seed == first.seed + 1
    assert plan().re_record() is None


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


def begun(flow: SessionFlow) -> Begin:
    assert flow.on_action(Action.START) == [GoHome()]
    flow.homed()
    (order,) = flow.on_action(Action.START)
    flow.begun(0)
    assert flow.running
    return order


def test_an_episode_from_home_to_its_outcome():
    flow = SessionFlow(plan(episodes=2, setup="bottle on the left"))
    assert flow.on_action(Action.START) == [GoHome()] and "hands off" in flow.prompt
    assert flow.on_action(Action.START) == []  # not before it is home
    flow.homed()
    assert flow.phase is Phase.SETTING_UP and "bottle on the left" in flow.prompt
    (order,) = flow.on_action(Action.START)
    assert order == Begin(flow.assignment)
    flow.refused("the camera is silent")
    assert flow.phase is Phase.SETTING_UP and "the camera is silent" in flow.prompt
    flow.on_action(Action.START)
    flow.begun(0)
    assert flow.on_action(Action.FAILURE) == [] and "2: dropped" in flow.prompt
    assert flow.on_digit("x") == []
    assert flow.on_digit("2") == [End("failure", "dropped")]
    assert flow.on_action(Action.SUCCESS) == []  # too late
    flow.ended(record(order.assignment, "failure"))
    assert flow.phase is Phase.IDLE and "correction" in flow.prompt
    begun(flow)
    assert "picture" not in flow.prompt and flow.on_action(Action.SUCCESS) == [End("success")]


def test_re_recording_during_and_after_an_episode():
    flow = SessionFlow(plan(episodes=2), homing=False)
    flow.on_action(Action.START)
    (order,) = flow.on_action(Action.START)
    flow.begun(0)
    (end,) = flow.on_action(Action.RE_RECORD)
    assert end.discard and end.outcome == "aborted"
    flow.ended(None)
    flow.on_action(Action.START)
    assert flow.assignment == order.assignment
    flow.on_action(Action.START)
    flow.begun(0)
    flow.on_action(Action.SUCCESS)
    done = record(order.assignment, "success")
    flow.ended(done)
    assert flow.on_action(Action.RE_RECORD) == [Discard(done.episode_id)]
    flow.on_action(Action.START)
    assert flow.assignment.seed == order.assignment.seed
    assert flow.assignment.same_start_as == done.episode_id and "picture" in flow.prompt


def test_faults_timeouts_and_quitting_end_the_episode():
    flow = SessionFlow(plan(episodes=9), limit_s=10.0)
    begun(flow)
    assert flow.tick(10_000_000_000) == []
    assert flow.tick(10_000_000_001) == [End("failure", "timeout")]
    flow.ended(None)
    begun(flow)
    assert flow.fault("protective stop") == [End("failure", "collision")]
    flow.ended(None)
    begun(flow)
    (end,) = flow.on_action(Action.QUIT)
    assert end.outcome == "aborted" and flow.ended(None) == [Leave()]
    assert flow.phase is Phase.DONE and flow.on_action(Action.QUIT) == []
    flow = SessionFlow(plan(episodes=1), homing=False)
    flow.on_action(Action.START)
    flow.on_action(Action.START)
    assert flow.on_action(Action.QUIT) == []  # an answer is on its way
    assert flow.begun(0) == [End("aborted", "session ended")]
    assert SessionFlow(plan()).on_action(Action.QUIT) == [Leave()]


@given(st.lists(st.integers(0, 11), max_size=60))
def test_no_sequence_of_events_records_two_episodes_at_once(events):
    flow = SessionFlow(plan(episodes=5, pairs=1), limit_s=100.0)
    open_episode, last, starting = False, None, False
    for event in events:
        orders = [
            lambda: flow.on_action(Action.START),
            lambda: flow.on_action(Action.SUCCESS),
            lambda: flow.on_action(Action.FAILURE),
            lambda: flow.on_digit("3"),
            lambda: flow.on_action(Action.RE_RECORD),
            lambda: flow.on_action(Action.NEXT_STAGE),
            lambda: flow.fault("protective stop"),
            lambda: flow.homed(),
            lambda on=starting: flow.begun(0) if on else [],
            lambda on=starting: flow.refused("no") if on else [],
            lambda: flow.tick(0),
            lambda: flow.on_action(Action.QUIT) if len(events) % 5 == 0 else [],
        ][event]()
        if event in (8, 9):
            open_episode |= starting and event == 8
            starting = False
        for order in orders:
            if isinstance(order, Begin):
                assert not open_episode and not starting
                starting, last = True, order.assignment
            if isinstance(order, End):
                assert open_episode
                open_episode = False
                done = None if order.discard else record(last, order.outcome)
                for following in flow.ended(done):
                    assert isinstance(following, Leave)
        assert flow.running == open_episode


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


def test_who_comes_back_goes_on():
    flow = SessionFlow(plan(episodes=2), homing=False)
    assert flow.on_action(Action.QUIT) == [Leave()]
    assert flow.on_action(Action.START) == [] and flow.phase is Phase.SETTING_UP
    assert isinstance(flow.on_action(Action.START)[0], Begin)


def test_a_robot_that_does_not_get_home_starts_nothing():
    flow = SessionFlow(plan(episodes=2))
    assert flow.on_action(Action.START) == [GoHome()]
    flow.not_home("stopped")
    assert flow.phase is Phase.IDLE and "not home: stopped" in flow.prompt
    assert flow.on_action(Action.START) == [GoHome()]
