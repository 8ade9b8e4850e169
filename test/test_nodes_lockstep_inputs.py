"""Which inputs a control step waits for, and that nothing depends on the order of arrival."""

import itertools

import numpy as np
import pytest

from dexpie_ros.control.types import STEP_NS, Chunk, Command
from dexpie_ros.geometry import Pose
from dexpie_ros.nodes.lockstep_inputs import FRESH_NS, LockstepInputs

T0 = 1_000_000_000
COMMAND = Command(Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])), np.ones(6))


def chunk(time_ns: int) -> Chunk:
    return Chunk(time_ns, np.zeros((4, 3)), np.tile([0.0, 0, 0, 1], (4, 1)), np.ones((4, 6)))


def measure(inputs: LockstepInputs, time_ns: int) -> None:
    for stream in ("arm", "hand", "tcp"):
        inputs.measured(stream, time_ns, f"{stream}@{time_ns}")


@pytest.mark.parametrize("order", list(itertools.permutations(["arm", "hand", "tcp", "teleop"])))
def test_a_step_needs_all_its_inputs_in_any_order(order: tuple[str, ...]) -> None:
    inputs = LockstepInputs(teleop=True, policy=False, delay_steps=2)
    for i, name in enumerate(order):
        assert inputs.ready() is None, order[:i]
        if name == "teleop":
            inputs.teleop(T0, COMMAND)
        else:
            inputs.measured(name, T0, f"{name}@{T0}")
    ready = inputs.ready()
    assert ready is not None
    assert (ready.time_ns, ready.arm, ready.tcp) == (T0, f"arm@{T0}", f"tcp@{T0}")
    assert ready.follower is COMMAND
    inputs.stepped(T0)
    assert inputs.ready() is None, "a step is made once"


def test_mixed_stamps_make_no_step() -> None:
    inputs = LockstepInputs(teleop=False, policy=False, delay_steps=1)
    measure(inputs, T0)
    inputs.measured("tcp", T0 + STEP_NS, "newer")
    assert inputs.ready() is None
    assert inputs.missing() == "measurements of arm and hand"


def test_the_scene_before_makes_no_step() -> None:
    inputs = LockstepInputs(teleop=False, policy=False, delay_steps=1)
    measure(inputs, T0)
    inputs.start_episode(policy=False, scene_ns=T0 + STEP_NS)
    assert inputs.ready() is None
    measure(inputs, T0 + STEP_NS)
    assert inputs.ready() is not None


@pytest.mark.parametrize("replayed", [False, True])
def test_a_recording_answers_also_where_there_is_no_policy_server(replayed: bool) -> None:
    inputs = LockstepInputs(teleop=False, policy=False, delay_steps=2)
    inputs.start_episode(policy=True, replayed=replayed)
    measure(inputs, T0)
    assert inputs.ready() is not None
    inputs.stepped(T0)
    measure(inputs, T0 + STEP_NS)
    assert (inputs.ready() is None) == replayed
    inputs.policy_answered(T0, inferred=False)
    assert not inputs.missing()


def test_a_chunk_takes_effect_exactly_after_the_delay() -> None:
    inputs = LockstepInputs(teleop=False, policy=True, delay_steps=2)
    inputs.start_episode(policy=True)
    seen = []
    for k in range(5):
        now = T0 + k * STEP_NS
        measure(inputs, now)
        if k > 0:
            assert "policy/status" in inputs.missing(), "the policy answers every step"
            inputs.policy_answered(now - STEP_NS, inferred=k == 1)
            if k == 1:
                inputs.chunk(chunk(T0))  # far earlier than it may act
        ready = inputs.ready()
        assert ready is not None
        seen.append([c.time_ns for c in ready.chunks])
        inputs.stepped(now)
    assert seen == [[], [], [T0], [], []]


def test_a_late_chunk_is_waited_for() -> None:
    inputs = LockstepInputs(teleop=False, policy=True, delay_steps=1)
    inputs.start_episode(policy=True)
    measure(inputs, T0)
    assert inputs.ready() is not None
    inputs.stepped(T0)
    measure(inputs, T0 + STEP_NS)
    inputs.policy_answered(T0, inferred=True)
    assert "policy/chunk" in inputs.missing()
    inputs.chunk(chunk(T0))
    ready = inputs.ready()
    assert ready is not None and [c.time_ns for c in ready.chunks] == [T0]


def test_what_is_said_twice_counts_once() -> None:
    inputs = LockstepInputs(teleop=False, policy=True, delay_steps=1)
    inputs.start_episode(policy=True)
    measure(inputs, T0)
    inputs.ready()
    inputs.stepped(T0)
    for _ in range(2):
        inputs.chunk(chunk(T0))
        inputs.policy_answered(T0, inferred=True)
    measure(inputs, T0 + STEP_NS)
    first = inputs.ready()
    assert first is not None and len(first.chunks) == 1
    inputs.stepped(T0 + STEP_NS)
    measure(inputs, T0 + 2 * STEP_NS)
    inputs.policy_answered(T0 + STEP_NS, inferred=False)
    second = inputs.ready()
    assert second is not None and second.chunks == []


def test_a_repeated_state_is_noticed() -> None:
    inputs = LockstepInputs(teleop=False, policy=False, delay_steps=1)
    measure(inputs, T0)
    assert not inputs.repeated
    measure(inputs, T0)
    assert inputs.repeated


def test_an_unawaited_operator_is_lost_when_silent() -> None:
    inputs = LockstepInputs(teleop=False, policy=False, delay_steps=1)
    inputs.teleop(T0, COMMAND)
    measure(inputs, T0 + FRESH_NS)
    ready = inputs.ready()
    assert ready is not None and ready.follower is COMMAND
    measure(inputs, T0 + FRESH_NS + STEP_NS)
    ready = inputs.ready()
    assert ready is not None and ready.follower is None


def test_no_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LockstepInputs(teleop=False, policy=False, delay_steps=0)
