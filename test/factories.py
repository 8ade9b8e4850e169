"""Small synthetic episodes, written through EpisodeWriter, for the tests of every room."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dexpie_ros import geometry, messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.control.types import (
    ARM_JOINTS,
    HAND_JOINTS,
    STEP_NS,
    Command,
    ControlStep,
    Mode,
    Source,
)
from dexpie_ros.episodes.episode import EpisodeInfo
from dexpie_ros.episodes.images import encode_jpeg
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig
from dexpie_ros.geometry import Pose

START_NS = 1_790_000_000_000_000_000
OBJECTS = ("bottle", "platform")


@dataclass(frozen=True)
class Recipe:
    """What the synthetic episode looks like; everything follows from these and the seed."""

    steps: int = 60
    seed: int = 0
    human: tuple[tuple[int, int], ...] = ()
    """Half-open step ranges that the operator drives; a demonstration: ((0, steps),)."""
    images: bool = False
    image_size: tuple[int, int] = (24, 32)
    state_rate_hz: float = 25.0
    """Rate of arm and TCP; above 25 the stamps do not coincide with the steps any more."""
    start_ns: int = START_NS
    simulated: bool = True
    events: tuple[tuple[int, str], ...] = ()
    alignment: tuple[tuple[int, float, tuple[float, ...]], ...] = ()
    """(step, degrees, six differences of opening); the limits are 20 degrees and 0.3."""
    info: dict[str, object] = field(default_factory=dict)


def tcp_at(recipe: Recipe, t: float) -> Pose:
    """Smooth ground truth at ``t`` s: a tilting circle of 5 cm that depends on the seed."""
    phase = 0.7 * recipe.seed + t
    position = np.array(
        [0.4 + 0.05 * np.cos(phase), 0.05 * np.sin(phase), 0.3 + 0.02 * np.sin(2 * phase)]
    )
    rotation = geometry.rotation_exp([0.3 * np.sin(phase), 0.2 * np.cos(phase), 0.5 * phase % 1.0])
    return Pose(position, geometry.matrix_to_quaternion(rotation))


def hand_at(recipe: Recipe, t: float) -> np.ndarray:
    return 0.5 + 0.4 * np.sin(t + recipe.seed + np.arange(6) / 3)


def joints_at(recipe: Recipe, t: float) -> np.ndarray:
    return np.sin(0.5 * t + recipe.seed + np.arange(6))


def control_step(recipe: Recipe, k: int) -> ControlStep:
    """Step ``k``: the command leads the measurement by one step."""
    t = (k + 1) / 25
    driven = any(a <= k < b for a, b in recipe.human)
    command = Command(tcp_at(recipe, t), hand_at(recipe, t))
    return ControlStep(
        time_ns=recipe.start_ns + k * STEP_NS,
        tick=k,
        command=command,
        source=Source.HUMAN if driven else Source.POLICY,
        mode=Mode.HUMAN if driven else Mode.POLICY,
        proposal=None if driven and k % 2 else command,
        human=command if driven else None,
        upcoming=(command,),
        remaining=5,
    )


def write_episode(
    directory: str | Path,
    recipe: Recipe | None = None,
    *,
    writer: WriterConfig | None = None,
    **info: object,
) -> Path:
    """Write one episode directory and return it. ``info`` goes into EpisodeInfo; ``outcome`` and
    ``cause`` into the end of the recording (success by default)."""
    recipe = recipe or Recipe()
    directory = Path(directory)
    values = {
        "episode_id": directory.name,
        "task": "bottle",
        "seed": recipe.seed,
        **recipe.info,
        **info,
    }
    outcome, cause = str(values.pop("outcome", "success")), str(values.pop("cause", ""))
    bag, put = messages.bag(), messages.serialize
    recorder = EpisodeWriter(
        directory,
        EpisodeInfo(simulated=recipe.simulated, **values),
        recorded_topics("jpeg" if recipe.images else "none"),
        writer or WriterConfig(durable=False),
    )

    pending: list[tuple[int, str, bytes]] = []

    def write(topic: str, stamp: int, message: object) -> None:
        pending.append((stamp, topic, put(message)))

    rng = np.random.default_rng(recipe.seed)
    states = int(recipe.steps * recipe.state_rate_hz / 25)
    for j in range(states):
        t = j / recipe.state_rate_hz
        stamp = recipe.start_ns + round(t * 1e9)
        write("/arm/tcp_pose", stamp, bag.pose_stamped(stamp, "base", tcp_at(recipe, t)))
        joints = joints_at(recipe, t)
        write("/arm/joint_states", stamp, bag.joint_state(stamp, ARM_JOINTS, joints, 0 * joints))
    for k in range(recipe.steps):
        t, stamp = k / 25, recipe.start_ns + k * STEP_NS
        hand = bag.joint_state(stamp, HAND_JOINTS, hand_at(recipe, t), None, np.full(6, 0.1 * k))
        write("/hand/joint_states", stamp, hand)
        if recipe.simulated:
            # The bottle stays 1 cm below the TCP, so that what was aligned can be told.
            below = tcp_at(recipe, t)
            bottle = Pose(below.position - [0, 0, 0.01], below.quaternion)
            platform = Pose(np.array([0.5, 0.1, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
            state = bag.simulation_state(
                stamp, tick=k, resets=1, task="bottle", stage="", seed=recipe.seed,
                objects=dict(zip(OBJECTS, (bottle, platform), strict=True)),
                success=k == recipe.steps - 1, failure=False, reason="", contact=k % 10 >= 5,
            )  # fmt: skip
            write("/simulation/state", stamp, state)
        if recipe.images:
            for camera in ("front", "wrist"):
                image = synthetic_image(recipe, k, camera, rng)
                topic = f"/camera/{camera}/color/image_raw/compressed"
                write(topic, stamp, bag.compressed_image(stamp, camera, encode_jpeg(image, 95)))
        write("/control/step", stamp, bag.control_step(control_step(recipe, k)))
    for k, degrees, fingers in recipe.alignment:
        stamp, angle = recipe.start_ns + k * STEP_NS, np.radians(degrees)
        near = bool(degrees <= 20 and np.all(np.abs(fingers) <= 0.3))
        message = bag.alignment(stamp, angle, np.array(fingers), np.radians(20), 0.3, near)
        write("/teleop/alignment", stamp, message)
    for k, text in recipe.events:
        write("/simulation/events", recipe.start_ns + k * STEP_NS, bag.text(text))
    for stamp, topic, cdr in sorted(pending, key=lambda item: item[0]):
        recorder.write(topic, cdr, stamp + 1_000_000, stamp)
    recorder.finish(outcome, cause)
    return directory


def synthetic_image(recipe: Recipe, k: int, camera: str, rng: np.random.Generator) -> np.ndarray:
    """A smooth picture whose red channel says the step (4 per step), green the camera."""
    height, width = recipe.image_size
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 4 * k % 256
    image[..., 1] = 60 if camera == "front" else 180
    image[..., 2] = np.linspace(0, 200, width).astype(np.uint8)
    return image


def write_collection(root: str | Path, count: int = 4, **info: object) -> Path:
    """``count`` episodes e000, e001, ...: a demonstration, a success, a failure, a correction and
    so on."""
    root = Path(root)
    for i in range(count):
        steps = 40 + 5 * (i % 4)
        kind = ("demonstration", "deployment", "deployment", "correction")[i % 4]
        human = (((0, steps),), (), (), ((15, 30),))[i % 4]
        values = {
            "kind": kind,
            "outcome": "failure" if i % 4 == 2 else "success",
            "cause": "tipped" if i % 4 == 2 else "",
            "pair_id": f"pair{i // 4}" if i % 4 >= 2 else "",
            "policy_id": "" if kind == "demonstration" else "bc-1",
            **info,
        }
        write_episode(root / f"e{i:03d}", Recipe(steps=steps, seed=i, human=human), **values)
    return root
