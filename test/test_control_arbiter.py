"""The arbiter's modes, takeover and hand-back, step by step."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from arbiter_rig import Rig, follower, pose, robot, running, same

from dexpie_ros.control import quaternions as q
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.types import STEP_NS, Command, Mode, Source


def test_an_episode_starts_at_the_measured_pose_and_waits_without_stalls():
    rig = Rig()
    rig.arbiter.start("deployment")
    steps = [rig.step() for _ in range(5)]
    for step in steps:
        assert (step.mode, step.source, step.stalls) == (Mode.POLICY, Source.HOLD, 0)
        assert step.command.tcp.position.tolist() == [0.3, 0.0, 0.3]
        assert len(step.upcoming) == 4 and all(c is step.command for c in step.upcoming)
    assert [s.tick for s in steps] == [1, 2, 3, 4, 5]
    rig.arbiter.add_chunk(rig.chunk(since=4, prefix=4))
    step = rig.step()  # the first action behind the prefix
    assert step.source is Source.POLICY and step.proposal is not None
    assert step.command.tcp.position[1] == pytest.approx(0.002)
    assert step.remaining == 20 and step.chunk_time_ns == rig.time - 5 * STEP_NS


def test_upcoming_starts_with_the_executed_command_and_is_what_then_comes():
    rig = running()
    while True:
        step = rig.step()
        if step.source is not Source.POLICY:
            break
        assert step.upcoming[0] is step.command
        assert len(step.upcoming) == min(4, step.remaining)
        promised = step.upcoming
        following = [rig.arbiter.executor.command(rig.time + k * STEP_NS) for k in range(3)]
        for expected, got in zip(promised[1:], following, strict=False):
            assert same(expected, got)
        rig.arbiter.executor.command(rig.time - STEP_NS)
    assert step.stalls == 1 and step.remaining == 0 and len(step.upcoming) == 4
    assert rig.step().stalls == 2 and step.mode is Mode.POLICY


def test_a_limited_command_is_foretold_as_it_will_be_executed():
    rig = running(limits={"linear_speed": 0.04})  # 1.6 mm per step, the policy wants 2
    step = rig.step()
    promised = step.upcoming
    for expected in promised[1:]:
        assert same(rig.step().command, expected)
    assert rig.arbiter.statistics()["clipped_linear"] == 4


def test_takeover_moves_relative_to_the_last_command():
    rig = running()
    last = rig.step(follower()).command
    assert rig.arbiter.toggle() == (True, "the operator drives")
    first = rig.step(follower())
    assert (first.mode, first.source) == (Mode.HUMAN, Source.BLEND)
    np.testing.assert_allclose(first.command.tcp.matrix(), last.tcp.matrix(), atol=1e-12)
    np.testing.assert_array_equal(first.command.hand, last.hand)
    assert first.upcoming == () and first.proposal is not None
    # The operator moves 10 mm along his own x and turns 0.1 rad about his own z.
    moved = q.compose(follower().tcp, pose((0.01, 0, 0), (0, 0, 0.1)))
    second = rig.step(Command(moved, np.full(6, 0.2)))
    expected = q.compose(last.tcp, pose((0.01, 0, 0), (0, 0, 0.1)))
    np.testing.assert_allclose(second.command.tcp.matrix(), expected.matrix(), atol=1e-12)
    np.testing.assert_allclose(second.human.tcp.matrix(), expected.matrix(), atol=1e-12)
    assert second.human.hand[0] == 0.2  # what he asks for, not what is blended
    assert rig.arbiter.interventions == 1


def test_the_hand_blends_in_0_4_s_and_only_then_is_the_source_human():
    rig = running()
    rig.step(follower())
    rig.arbiter.toggle()
    steps = [rig.step(follower()) for _ in range(12)]
    assert [s.source for s in steps] == [Source.BLEND] * 10 + [Source.HUMAN] * 2
    openings = np.array([s.command.hand[0] for s in steps])
    assert openings[0] == 0.8 and openings[5] == pytest.approx(0.5) and openings[10] == 0.2
    assert (np.diff(openings) <= 0).all() and np.abs(np.diff(openings)).max() < 0.1


def test_hand_back_holds_until_a_chunk_that_was_planned_from_the_held_command():
    rig = running()
    rig.step(follower())
    rig.arbiter.toggle()
    for k in range(5):
        held = rig.step(follower((1.0 + 0.005 * k, 2.0, 3.0))).command
    in_flight = rig.chunk(since=1)  # planned while the operator drove
    assert rig.arbiter.toggle()[0] and rig.arbiter.mode is Mode.HANDING_BACK
    step = rig.step(follower((9, 9, 9)))
    assert (step.mode, step.source) == (Mode.HANDING_BACK, Source.HOLD)
    assert step.command is held and [c is held for c in step.upcoming] == [True] * 4
    assert step.remaining == 0 and step.proposal is None
    assert not rig.arbiter.add_chunk(in_flight)
    rig.step()
    rig.arbiter.add_chunk(rig.chunk(since=2, prefix=4))
    step = rig.step()
    assert (step.mode, step.source) == (Mode.POLICY, Source.POLICY)
    np.testing.assert_array_equal(step.command.tcp.position, held.tcp.position)
    rig.step()
    assert rig.step().command.tcp.position[1] == pytest.approx(held.tcp.position[1] + 0.002)


def test_a_second_key_press_takes_over_again_while_handing_back():
    rig = running()
    rig.step(follower())
    for expected in (Mode.HUMAN, Mode.HANDING_BACK, Mode.HUMAN):
        assert rig.arbiter.toggle()[0]
        assert rig.step(follower()).mode is expected
    assert rig.arbiter.interventions == 2


def test_each_takeover_is_anchored_where_the_operator_is_then():
    rig = running()
    rig.step(follower())
    rig.arbiter.toggle()
    held = rig.step(follower()).command
    rig.arbiter.toggle()
    rig.step(follower())
    rig.arbiter.toggle()  # 80 ms later, the hand has moved meanwhile
    again = rig.step(follower((1.01, 2, 3)))
    assert again.source is Source.BLEND
    np.testing.assert_allclose(again.command.tcp.position, held.tcp.position, atol=1e-12)


def test_a_lost_operator_holds_and_comes_back_where_he_left_off():
    rig = running()
    rig.step(follower())
    rig.arbiter.toggle()
    held = rig.step(follower()).command
    step = rig.step(None)
    assert (step.mode, step.source) == (Mode.HUMAN, Source.HOLD)
    assert step.command is held and step.human is None and "lost" in rig.arbiter.reason
    near = rig.step(follower((1.001, 2, 3)))  # a short gap: the anchor stays
    assert np.linalg.norm(near.command.tcp.position - held.tcp.position) == pytest.approx(1e-3)
    for _ in range(6):
        rig.step(None)
    far = rig.step(follower((5, 5, 5)))  # a long one: anchored anew
    np.testing.assert_allclose(far.command.tcp.position, near.command.tcp.position, atol=1e-12)
    assert rig.arbiter.counts.lost_steps == 7


def test_a_follower_with_nan_counts_as_lost():
    rig = running()
    rig.step(follower())
    rig.arbiter.toggle()
    rig.step(follower())
    step = rig.step(follower((math.nan, 0, 0)))
    assert step.source is Source.HOLD and step.human is None


def test_takeover_out_of_alignment_is_refused_with_the_amount_unless_forced():
    rig = running()
    off = Alignment(math.radians(31), np.array([0, 0, 0, 0.5, 0, -0.6]), math.radians(15), 0.35)
    rig.step(follower(), off)
    accepted, message = rig.arbiter.toggle()
    assert not accepted and rig.arbiter.mode is Mode.POLICY
    assert "31 deg off (limit 15)" in message
    assert "index is 0.50 more open" in message and "thumb_rotation is 0.60 more closed" in message
    assert rig.arbiter.toggle(force=True)[0] and rig.step(follower(), off).mode is Mode.HUMAN
    plain = running()
    plain.step(follower(), False)
    assert not plain.arbiter.toggle()[0]
    plain.step(None, True)
    assert "silent" in plain.arbiter.toggle(force=True)[1]


def test_an_unknown_alignment_is_no_reason_to_take_over_unless_forced():
    rig = running()
    rig.step(follower(), Alignment.unknown())
    accepted, message = rig.arbiter.toggle()
    assert not accepted and "alignment unknown" in message and "nan" not in message
    rig.arbiter.request(Mode.ALIGNING)
    assert rig.step(follower(), Alignment.unknown()).mode is Mode.ALIGNING
    assert rig.arbiter.request(Mode.HUMAN, force=True)[0]
    within = SimpleNamespace(
        angle=0.1, hand_difference=np.zeros(6), angle_limit=0.2, hand_limit=0.3, aligned=True
    )
    assert Alignment.heard(within).aligned
    within.aligned = False  # whoever judged it knows that the angle means nothing
    by_chance = Alignment.heard(within)
    assert not by_chance.aligned and "not calibrated" in by_chance.describe()
    rig = running()
    rig.step(follower(), by_chance)
    assert "not calibrated" in rig.arbiter.toggle()[1]


def test_aligning_holds_and_takes_over_by_itself():
    rig = running()
    rig.step(follower(), False)
    assert rig.arbiter.request(Mode.ALIGNING)[0]
    for _ in range(3):
        step = rig.step(follower(), False)
        assert (step.mode, step.source) == (Mode.ALIGNING, Source.HOLD)
    assert rig.step(follower(), True).mode is Mode.HUMAN
    rig = running()
    rig.step(follower(), False)
    rig.arbiter.request(Mode.ALIGNING)
    rig.step(follower(), False)
    assert rig.arbiter.toggle()[0] and rig.step(follower(), False).mode is Mode.POLICY


def test_a_demonstration_is_driven_by_the_operator_alone():
    rig = Rig()
    rig.arbiter.start("demonstration")
    assert rig.step(follower()).mode is Mode.HOLD
    assert not rig.arbiter.request(Mode.POLICY)[0]
    rig.arbiter.toggle()
    assert rig.step(follower()).mode is Mode.HUMAN
    rig.arbiter.toggle()
    assert rig.step(follower()).mode is Mode.HOLD
    assert rig.arbiter.interventions == 0


def test_absolute_mode_approaches_the_operators_pose():
    rig = Rig(follow="absolute", approach_seconds=0.4)
    rig.arbiter.start("demonstration")
    target = follower((0.35, 0.05, 0.3), (0.1, 0.2, 0.2))
    rig.step(target)
    rig.arbiter.toggle()
    steps = [rig.step(target) for _ in range(11)]
    np.testing.assert_allclose(steps[0].command.tcp.position, [0.3, 0, 0.3], atol=1e-12)
    np.testing.assert_array_equal(steps[-1].command.tcp.position, target.tcp.position)
    assert steps[0].human.tcp is target.tcp


def test_a_fault_holds_until_it_is_cleared_and_the_robot_is_then_taken_as_it_is():
    rig = running()
    held = rig.step().command
    rig.arbiter.fault("protective stop")
    rig.arbiter.fault("another")
    step = rig.step(follower())
    assert (step.mode, step.source) == (Mode.FAULT, Source.HOLD) and step.command is held
    assert rig.arbiter.reason == "protective stop"
    for refused in (rig.arbiter.toggle(), rig.arbiter.request(Mode.POLICY)):
        assert not refused[0] and "protective stop" in refused[1]
    assert not rig.arbiter.start("deployment")[0]
    rig.arbiter.hold("stale")  # changes nothing
    assert rig.step().mode is Mode.FAULT
    rig.robot = robot((0.1, 0.1, 0.2))  # moved by hand meanwhile
    assert rig.arbiter.clear_fault()[0] and not rig.arbiter.clear_fault()[0]
    step = rig.step()
    assert step.mode is Mode.HOLD and step.command.tcp.position.tolist() == [0.1, 0.1, 0.2]


def test_hold_and_resume_go_on_with_what_was_interrupted():
    rig = running()
    rig.step(follower())
    rig.arbiter.hold("the camera is silent")
    step = rig.step(follower())
    assert (step.mode, step.source) == (Mode.HOLD, Source.HOLD)
    assert rig.arbiter.reason == "the camera is silent" and rig.arbiter.suspended
    assert "camera" in rig.arbiter.toggle()[1]
    rig.arbiter.hold("still")
    rig.arbiter.resume()
    step = rig.step(follower())
    assert (step.mode, step.source, step.stalls) == (Mode.POLICY, Source.HOLD, 0)
    rig.arbiter.add_chunk(rig.chunk(since=1, prefix=1))
    assert rig.step(follower()).source is Source.POLICY
    rig.arbiter.toggle()
    rig.step(follower())
    rig.arbiter.hold("the arm is silent")
    rig.step(follower())
    rig.robot = robot((0.5, 0, 0.3))  # found elsewhere: taken as it is
    rig.arbiter.resume()
    step = rig.step(follower((7, 7, 7)))
    assert (step.mode, step.source) == (Mode.HUMAN, Source.BLEND)
    np.testing.assert_allclose(step.command.tcp.position, [0.5, 0, 0.3], atol=1e-12)


def test_start_and_stop_while_something_is_missing():
    rig = Rig()
    rig.arbiter.hold("waiting for /arm/tcp_pose")
    accepted, message = rig.arbiter.start("evaluation")
    assert accepted and "/arm/tcp_pose" in message
    assert rig.step().mode is Mode.HOLD
    rig.arbiter.resume()
    assert rig.step().mode is Mode.POLICY
    rig.arbiter.hold("again")
    rig.arbiter.stop()
    rig.arbiter.resume()
    assert rig.step().mode is Mode.HOLD and rig.arbiter.kind == ""
    assert "unknown kind" in rig.arbiter.start("rollout")[1]


def test_the_known_command_is_held_at_a_start_with_something_in_the_hand():
    rig = Rig()
    grasp = Command(pose((0.3, 0, 0.3)), np.full(6, 0.1))
    rig.robot = robot(hand=0.4)  # the object keeps the fingers open
    rig.arbiter.start("correction", initial=grasp)
    assert rig.step().command is grasp


def test_chunks_of_before_the_episode_are_not_executed():
    rig = running()
    rig.step()
    old = rig.chunk(since=1)
    rig.arbiter.start("deployment")
    assert not rig.arbiter.add_chunk(old)
    rig.step()
    assert not rig.arbiter.add_chunk(old)
    assert rig.step().source is Source.HOLD


def test_broken_input_is_a_fault_and_not_a_motion():
    rig = running()
    bad = rig.chunk(since=0)
    bad.positions[3, 1] = np.nan
    assert not rig.arbiter.add_chunk(bad)
    assert rig.step().mode is Mode.FAULT and "NaN" in rig.arbiter.reason
    rig = running()
    held = rig.step().command
    rig.robot = robot((math.nan, 0, 0))
    step = rig.step()
    assert step.mode is Mode.FAULT and step.command is held
    rig = running()
    rig.step()
    rig.time -= 5 * STEP_NS
    assert rig.step().mode is Mode.FAULT and "clock" in rig.arbiter.reason
    with pytest.raises(ValueError, match="not finite"):
        Arbiter().step(0, robot((math.nan, 0, 0)))
