"""Messages of both worlds carry the same bits, and nothing is lost on the way to values and back."""

import numpy as np
import pytest

from dexpie_ros import messages
from dexpie_ros.control.types import Chunk, Command, ControlStep, Mode, RobotState, Source
from dexpie_ros.geometry import Pose

RNG = np.random.default_rng(0)


def random_command() -> Command:
    q = RNG.normal(size=4)
    return Command(Pose(RNG.normal(size=3), q / np.linalg.norm(q)), RNG.uniform(size=6))


def equal(a: Command | None, b: Command | None) -> bool:
    if a is None or b is None:
        return a is b
    pairs = [
        (a.tcp.position, b.tcp.position),
        (a.tcp.quaternion, b.tcp.quaternion),
        (a.hand, b.hand),
    ]
    return all(np.array_equal(x, y) for x, y in pairs)


STEP = ControlStep(
    time_ns=1_790_000_000_123_456_789,
    tick=77,
    command=random_command(),
    source=Source.BLEND,
    mode=Mode.HUMAN,
    proposal=random_command(),
    human=None,
    upcoming=(random_command(), random_command()),
    remaining=3,
    chunk_time_ns=1_790_000_000_003_456_789,
    stalls=2,
)
CHUNK = Chunk(
    time_ns=40_000_000,
    positions=RNG.normal(size=(5, 3)),
    quaternions=np.tile([0.0, 0.0, 0.6, 0.8], (5, 1)),
    hand=RNG.uniform(size=(5, 6)),
    prefix_length=4,
    latency_ns=1_234,
    policy_id="p",
)


def samples(world: messages.Messages) -> list:
    pose = Pose(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))
    return [
        world.control_step(STEP),
        world.action_chunk(CHUNK, "e"),
        world.joint_state(3, list("abcdef"), np.arange(6.0), effort=np.ones(6)),
        world.image(4, "front", np.arange(60, dtype=np.uint8).reshape(4, 5, 3)),
        world.compressed_image(4, "wrist", b"\xff\xd8jpeg"),
        world.camera_info(4, "wrist", 640, 480, 615.0),
        world.glove(5, "right", {"IndexMCPStretch": 12.5, "PinkySpread": -3.0}),
        world.alignment(6, 0.1, np.arange(6.0), 0.2, 0.3, True),
        world.intervention_state(7, Mode.ALIGNING, "why", 2),
        world.pose_stamped(8, "base", pose),
        world.clock(9),
        world.text("{}"),
        world.diagnostics(9, "arm_driver", 2, "no data", {"age_s": 0.3}),
        world.policy_status(
            9, policy_id="p", inferred=True, prefix_length=4, inferences=3, skipped=1,
            latency_s=(0.01, 0.02, 0.03),
        ),
        world.simulation_state(
            10, tick=1, resets=2, task="bottle", stage="home", seed=5, objects={"bottle": pose},
            success=False, failure=True, reason="tipped", contact=True,
        ),
        world.session_state(
            11, phase=2, episode_id="e", kind="deployment", task="bottle", stage="", seed=-1,
            policy_id="", pair_id="", directory="", recorded=0,
        ),
    ]  # fmt: skip


def test_bag_messages_are_what_dds_carries() -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="needs a ROS 2 installation")
    for ours, ros in zip(samples(messages.bag()), samples(messages.ros()), strict=True):
        assert serialization.deserialize_message(messages.serialize(ours), type(ros)) == ros


@pytest.mark.parametrize("world", ["bag", "ros"])
def test_step_and_chunk_survive_unchanged(world: str) -> None:
    if world == "ros":
        pytest.importorskip("rclpy", reason="needs a ROS 2 installation")
    make = getattr(messages, world)()
    step = messages.read_control_step(make.control_step(STEP))
    assert (step.time_ns, step.tick, step.source, step.mode) == (
        STEP.time_ns,
        77,
        STEP.source,
        STEP.mode,
    )
    assert (step.remaining, step.chunk_time_ns, step.stalls) == (3, STEP.chunk_time_ns, 2)
    assert equal(step.command, STEP.command) and equal(step.proposal, STEP.proposal)
    assert step.human is None and all(map(equal, step.upcoming, STEP.upcoming))
    chunk = messages.read_chunk(make.action_chunk(CHUNK))
    assert np.array_equal(chunk.positions, CHUNK.positions)
    assert np.array_equal(chunk.hand, CHUNK.hand)
    assert (chunk.time_ns, chunk.prefix_length, chunk.latency_ns, chunk.policy_id) == (
        40_000_000,
        4,
        1_234,
        "p",
    )


def test_hand_is_ordered_by_name() -> None:
    make = messages.bag()
    names = ["thumb_rotation", "index", "little", "ring", "middle", "thumb_bend"]
    hand = make.joint_state(
        1, names, np.array([0.6, 0.4, 0.1, 0.2, 0.3, 0.5]), effort=np.arange(6.0)
    )
    joints = make.joint_state(1, list("abcdef"), np.zeros(6))
    pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    state = messages.read_robot_state(joints, make.pose_stamped(1, "base", pose), hand)
    assert isinstance(state, RobotState)
    np.testing.assert_allclose(state.hand, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    np.testing.assert_allclose(state.hand_force, [2, 3, 4, 1, 5, 0])
    with pytest.raises(ValueError, match="no thumb_bend"):
        messages.read_robot_state(
            joints, make.pose_stamped(1, "base", pose), make.joint_state(1, names[:5], np.zeros(5))
        )


def test_inconsistent_chunk_is_refused() -> None:
    message = messages.bag().action_chunk(CHUNK)
    message.hand = message.hand[:-1]
    with pytest.raises(ValueError, match="5 poses, 29 hand values"):
        messages.read_chunk(message)


def test_other_encodings_are_refused() -> None:
    message = messages.bag().image(1, "front", np.zeros((2, 2, 3), np.uint8))
    assert messages.read_image(message).shape == (2, 2, 3)
    message.encoding = "bgr8"
    with pytest.raises(ValueError, match="bgr8"):
        messages.read_image(message)
