"""A session step by step: what a key orders in which phase, and what it never does."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from session_plans import plan, record

from dexpie_ros.control.keys import Action
from dexpie_ros.control.session import Finished, SessionPlan
from dexpie_ros.control.session_flow import Begin, Discard, End, GoHome, Leave, Phase, SessionFlow


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
    gone = record(order.assignment, "aborted")
    flow.ended(gone, discarded=True)
    flow.on_action(Action.START)
    again, thrown = flow.assignment, gone.episode_id
    assert again == replace(order.assignment, prompt=again.prompt, same_start_as=thrown)
    assert again.prompt == f"restore the start of {thrown}; the same deployment again"
    assert "picture" in flow.prompt and flow.on_action(Action.RE_RECORD) == [], "it is gone already"
    # however often: the picture of the first attempt shows the start
    for _ in range(2):
        flow.on_action(Action.START)
        flow.begun(0)
        flow.on_action(Action.RE_RECORD)
        flow.ended(replace(record(again, "aborted"), episode_id="later"), discarded=True)
        flow.on_action(Action.START)
        assert flow.assignment == again
    flow.on_action(Action.START)
    flow.begun(0)
    flow.on_action(Action.SUCCESS)
    done = record(order.assignment, "success")
    flow.ended(done)
    assert flow.on_action(Action.RE_RECORD) == [Discard(done.episode_id)]
    flow.on_action(Action.START)
    assert flow.assignment.seed == order.assignment.seed
    assert flow.assignment.same_start_as == done.episode_id and "picture" in flow.prompt


def finished(flow: SessionFlow, outcome: str) -> Finished:
    """One episode of the flow from its start to its outcome."""
    flow.on_action(Action.START)
    (order,) = flow.on_action(Action.START)
    flow.begun(0)
    if outcome == "aborted":
        flow.fault("emergency stop")
    else:
        flow.on_action(Action.SUCCESS)
    done = record(order.assignment, outcome)
    flow.ended(done)
    return done


def test_re_recording_throws_away_one_episode_however_often_it_is_pressed():
    flow = SessionFlow(plan(episodes=9), homing=False)
    finished(flow, "success")
    last = finished(flow, "success")
    assert flow.on_action(Action.RE_RECORD) == [Discard(last.episode_id)]
    for _ in range(3):  # a key that is held down repeats itself
        assert flow.on_action(Action.RE_RECORD) == [] and last.episode_id in flow.prompt
    assert flow.plan.progress()[0].have["episodes"] == 1
    # what a former session left is not the last episode of this one
    resumed = SessionFlow(SessionPlan(flow.plan.config, [last]), homing=False)
    assert resumed.on_action(Action.RE_RECORD) == []
    assert resumed.plan.progress()[0].have["episodes"] == 1


def test_after_an_aborted_episode_the_good_one_before_it_stays():
    flow = SessionFlow(plan(episodes=9), homing=False)
    finished(flow, "success")
    aborted = finished(flow, "aborted")
    assert flow.on_action(Action.RE_RECORD) == []
    assert aborted.episode_id in flow.prompt and "its start comes again" in flow.prompt
    assert flow.on_action(Action.RE_RECORD) == []
    assert flow.plan.progress()[0].have["episodes"] == 1
    assert flow.plan.next().seed == aborted.seed


def test_keys_end_an_episode_that_somebody_else_began():
    flow = SessionFlow(plan(episodes=9), homing=False)
    finished(flow, "success")
    assert flow.on_other(Action.SUCCESS) == [End("success")]
    assert flow.on_other(Action.START) == []
    assert flow.on_other(Action.FAILURE) == []
    assert flow.phase is Phase.ASKING_CAUSE and "2: dropped" in flow.prompt
    assert flow.on_digit("2") == [End("failure", "dropped")] and flow.phase is Phase.IDLE
    assert flow.on_digit("2") == [], "asked for once"
    flow.on_other(Action.FAILURE)
    flow.other_ended()
    assert flow.phase is Phase.IDLE and flow.on_digit("2") == []
    (order,) = flow.on_other(Action.RE_RECORD)
    assert order.outcome == "aborted" and order.discard
    flow.other_ended()
    assert flow.on_action(Action.RE_RECORD) == [], "the plan's last episode stays"
    assert flow.plan.progress()[0].have["episodes"] == 1
    assert flow.on_other(Action.QUIT) == [End("aborted", "session ended"), Leave()]
    assert flow.leaving


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
