"""What holds the robot besides its modes: silent streams, a second writer, stops of the drivers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dexpie_ros.control.guard import (
    ARM,
    CLEAR_ERRORS,
    HAND,
    NO_OBSERVATION,
    POLICY,
    POLICY_SERVER,
    SESSION,
    TCP,
    TOO_FAR,
    Guard,
    Voices,
    fault_of_status,
)
from dexpie_ros.control.modes import Modes
from dexpie_ros.control.session import label_of_fault
from dexpie_ros.control.types import Mode
from dexpie_ros.devices.arm_limits import ArmLimits, MotionLimiter
from dexpie_ros.devices.ur5_process import HALTED
from dexpie_ros.devices.ur5_state import RobotData
from dexpie_ros.devices.ur_kinematics import UR5

MS = 1_000_000


def all_seen(guard: Guard, now: int) -> None:
    for stream in (ARM, TCP, HAND, POLICY, SESSION):
        guard.seen(stream, now)


def deployed() -> tuple[Guard, Modes]:
    guard, modes = Guard(), Modes()
    all_seen(guard, 0)
    guard.check(modes, 0)
    modes.begin("deployment")
    return guard, modes


def test_it_starts_in_hold_until_everything_is_there():
    guard, modes = Guard(), Modes()
    problem = guard.check(modes, 0)
    for name in (ARM, TCP, HAND, SESSION):
        assert f"{name} never came" in problem
    assert modes.mode is Mode.HOLD and modes.toggle()[0] is False
    accepted, why = modes.begin("deployment")
    assert accepted and "no longer holds" in why and modes.mode is Mode.HOLD
    all_seen(guard, 1)
    assert guard.check(modes, 1) == "" and modes.mode is Mode.POLICY


def test_a_silent_arm_holds_within_a_step_and_the_policy_goes_on_when_it_is_back():
    guard, modes = deployed()
    for stream in (TCP, HAND, POLICY):
        guard.seen(stream, 101 * MS)
    assert guard.check(modes, 101 * MS) == f"{ARM} is silent for more than 0.1 s"
    assert modes.mode is Mode.HOLD and ARM in modes.reason
    guard.seen(ARM, 102 * MS)
    assert guard.check(modes, 102 * MS) == "" and modes.mode is Mode.POLICY


def test_old_content_is_as_bad_as_silence():
    guard, modes = deployed()
    all_seen(guard, 500 * MS)
    guard.seen(ARM, 540 * MS, age_ns=30 * MS)
    assert guard.check(modes, 545 * MS) == ""
    guard.seen(TCP, 550 * MS)
    guard.seen(ARM, 640 * MS, age_ns=120 * MS)
    assert ARM in guard.check(modes, 640 * MS)


def test_a_silent_policy_holds_but_the_operator_may_take_over():
    guard, modes = deployed()
    for stream in (ARM, TCP, HAND, SESSION):
        guard.seen(stream, 401 * MS)
    assert guard.check(modes, 401 * MS) == ""
    assert modes.mode is Mode.POLICY and "policy server is silent" in modes.reason
    assert modes._waiting and modes._plan_afresh
    assert modes.toggle() == (True, "the operator drives")


def test_a_policy_that_does_not_see_holds_before_its_server_counts_as_silent():
    guard, modes = deployed()
    text = f"{NO_OBSERVATION}: waiting for front"
    guard.device("camera_front", 2, text)
    guard.device(POLICY_SERVER, 1, "1 inference of 100 takes 5 control steps")
    assert not guard.policy_silence(40 * MS)
    guard.device(POLICY_SERVER, 1, text)
    guard.check(modes, 40 * MS)
    assert modes.mode is Mode.POLICY and "waiting for front" in modes.reason
    assert modes.request(Mode.HUMAN, force=True)[0], "the operator may take over"
    guard.seen(ARM, 60 * MS)
    assert guard.policy_silence(60 * MS)
    guard.seen(POLICY, 80 * MS)
    assert not guard.policy_silence(80 * MS), "it sees again"


def test_a_policy_server_whose_process_ended_holds_at_once_until_another_speaks():
    guard, modes = deployed()
    guard.device(POLICY_SERVER, 2, "its process has ended")
    assert guard.check(modes, 40 * MS) == "", "the robot itself lacks nothing"
    assert modes.mode is Mode.POLICY and "its process has ended" in modes.reason
    assert modes._waiting and modes._plan_afresh
    guard.seen(POLICY, 80 * MS)
    assert not guard.policy_silence(80 * MS)


def test_the_way_home_needs_no_policy_server():
    guard, modes = deployed()
    for stream in (ARM, TCP, HAND, SESSION):
        guard.seen(stream, 401 * MS)
    guard.check(modes, 401 * MS, policy=False)
    assert "silent" not in modes.reason


def test_an_arm_that_measures_but_cannot_follow_holds_until_it_can():
    """Its process connects anew: states come already, commands are not taken yet."""
    guard, modes = deployed()
    guard.device("arm_driver", 2, "connecting to 192.168.1.10")
    guard.device("hand_driver", 2, f"index: stall; {CLEAR_ERRORS}")
    all_seen(guard, MS)
    assert "arm_driver: connecting" in guard.check(modes, MS)
    assert modes.mode is Mode.HOLD and "connecting" in modes.reason
    assert modes.toggle()[0] is False
    guard.device("arm_driver", 1, "holding: the commanded pose is out of the arm's reach")
    all_seen(guard, 2 * MS)
    assert guard.check(modes, 2 * MS) == "" and modes.mode is Mode.POLICY
    assert modes._rebase != "no", "it is looked at where it stands"


def test_a_command_that_the_arm_refuses_for_half_a_second_is_begun_anew():
    guard, modes = deployed()
    modes._rebase, modes._plan_afresh, modes._waiting = "no", False, False
    far = "holding: the commanded pose is 0.091 m away (limit 0.08 m)"

    def at(ms: int, message: str) -> bool:
        guard.device("arm_driver", 1, message)
        all_seen(guard, ms * MS)
        assert guard.check(modes, ms * MS) == "" and modes.mode is Mode.POLICY
        return modes._rebase == "far" and modes._plan_afresh

    assert not at(0, far) and not at(480, far)
    assert not at(490, "following commands") and not at(500, far), "it came nearer meanwhile"
    assert not at(980, "holding: the commanded pose is out of the arm's reach")
    assert not at(990, far) and not at(1489, far)
    assert at(1490, far)
    modes._rebase = "no"
    assert not at(1989, far) and at(1990, far), "and again"


def test_the_arms_words_for_a_target_that_is_too_far_are_known():
    arm = MotionLimiter(ArmLimits(), UR5, np.eye(4), 0.008)
    far, turned = np.eye(4), np.eye(4)
    far[0, 3] = 0.5
    turned[:2, :2] = [[0.0, -1.0], [1.0, 0.0]]
    arm._first = False
    for words in (arm.accept(far), arm.accept(turned), arm.lag(far)):
        assert any(text in words for text in TOO_FAR), words
    assert not any(text in arm.accept(np.full((4, 4), np.nan)) for text in TOO_FAR)


def test_a_hand_that_does_not_answer_holds_but_a_finger_that_stopped_does_not():
    guard, modes = deployed()
    all_seen(guard, MS)
    guard.device("hand_driver", 2, f"index: stall; free the fingers, then {CLEAR_ERRORS}")
    assert guard.check(modes, MS) == "" and modes.mode is Mode.POLICY
    guard.device("hand_driver", 3, "no valid answer")  # stale
    assert guard.check(modes, MS) == "hand_driver: no valid answer" and modes.mode is Mode.HOLD
    guard.device("hand_driver", 2, "connection lost")
    assert guard.check(modes, MS) == "hand_driver: connection lost"
    guard.device("hand_driver", 1, "hot: index: 65 C")
    assert guard.check(modes, MS) == "" and modes.mode is Mode.POLICY


def test_a_hold_on_request_is_not_undone_by_fresh_streams():
    guard, modes = deployed()
    modes.request(Mode.HOLD)
    all_seen(guard, MS)
    guard.check(modes, MS)
    assert modes.mode is Mode.HOLD and modes.reason == "requested"


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**6)), max_size=400))
def test_own_commands_are_known_again_and_no_others(steps):
    guard = Guard()
    for step in steps:
        guard.sent(*step)
    for step in steps[-200:]:
        assert guard.is_own(*step)
    assert not guard.is_own(10**12 + 1, 0)


def test_stops_of_the_drivers_are_faults_with_the_right_labels():
    fault = fault_of_status("arm_driver", 2, "UR5 192.168.1.2: Protective stop; clear it")
    assert label_of_fault(fault) == ("failure", "collision")
    fault = fault_of_status("arm_driver", 2, "robot emergency stop pressed")
    assert label_of_fault(fault)[0] == "aborted" and fault.startswith("emergency stop")
    assert fault_of_status("arm_driver", 2, "the controller halted its program: no inverse")
    assert fault_of_status("arm_driver", 1, "protective stop") == "", "only errors"
    assert fault_of_status("teleop", 2, "protective stop") == "", "only drivers"
    assert fault_of_status("arm_driver", 2, "no connection") == "", "the silent stream holds"


def test_every_stop_that_waits_for_the_operator_is_a_fault():
    """The stopped arm goes on measuring, so that nothing else would tell the arbiter."""
    x = np.zeros(6)
    states = [(7, safety) for safety in range(2, 10)] + [(robot, 1) for robot in range(-1, 9)]
    for robot, safety in states:
        data = RobotData(0, 0.0, x, x, np.eye(4), x, x, robot, safety)
        fault = fault_of_status("arm_driver", 2, data.problem())
        assert bool(fault) == bool(data.problem())
        assert not fault or "arm_driver" in fault
    assert fault_of_status("arm_driver", 2, HALTED)
    assert label_of_fault(fault_of_status("arm_driver", 2, RobotData(
        0, 0.0, x, x, np.eye(4), x, x, 7, 8).problem()))[0] == "aborted"  # fmt: skip


@given(st.integers(1, 10**6), st.lists(st.booleans(), min_size=2, max_size=60))
def test_one_arbiter_is_one_voice_whatever_is_lost(first, lost):
    voices, now = Voices(), 0
    for k, missing in enumerate(lost):
        now = k * 40 * MS
        if not missing:
            voices.heard(first + k, now)
            assert not voices.several(now)


@given(st.integers(1, 10**4), st.integers(1, 10**4), st.integers(0, 39))
def test_two_arbiters_are_noticed_at_the_third_command(a, b, shift):
    voices = Voices()
    for k in range(6):
        for tick, now in ((a + k, k * 40 * MS), (b + k, (k * 40 + shift) * MS)):
            voices.heard(tick, now)
            assert voices.several(now) or k == 0
    assert voices.several(now)
    for k in range(6, 40):  # the first one is stopped
        voices.heard(b + k, (k * 40 + shift) * MS)
    assert not voices.several((k * 40 + shift) * MS)


def test_a_restarted_arbiter_is_one_voice():
    voices = Voices()
    assert voices.heard(1000, 0) and not voices.heard(1001, 40 * MS)
    assert voices.heard(1, 700 * MS), "something new: have a look who publishes"
    assert not voices.several(700 * MS)
