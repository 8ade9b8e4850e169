"""What a robot says, message by message, for the tests of recordings."""

import json
import time
from dataclasses import replace

import factories
import numpy as np

from dexpie_ros import messages
from dexpie_ros.contract import recorded_topics
from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS
from dexpie_ros.episodes import WriterConfig
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.decoding import header_stamp_ns
from dexpie_ros.episodes.recording import Recording, RecordingConfig

T0 = factories.START_NS
STEP = 40_000_000
SETTINGS = RecordingConfig(preroll_s=0.2, minimum_free_gb=0.0, writer=WriterConfig(durable=False))


def pose(k: int) -> tuple[str, bytes, int, int]:
    stamp = T0 + k * STEP
    message = messages.bag().pose_stamped(
        stamp, "base", factories.tcp_at(factories.Recipe(), k / 25)
    )
    return "/arm/tcp_pose", messages.serialize(message), stamp, stamp


def state(k: int) -> tuple[str, bytes, int, int]:
    message = messages.bag().session_state(
        T0 + k * STEP, phase=1, episode_id=f"s{k}", kind="", task="", stage="", seed=0,
        policy_id="", pair_id="", directory="", recorded=0,
    )  # fmt: skip
    return "/session/state", messages.serialize(message), T0 + k * STEP, T0 + k * STEP


def until(true, patience=60.0):
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.02)


def recorded(path, topic):
    return [(t - T0) // STEP for t in BagReader(find_bag(path)).messages[topic].log_time_ns]


def stamped(path, topic):
    payloads = BagReader(find_bag(path)).messages[topic].payloads
    return [(header_stamp_ns(cdr) - T0) // STEP for cdr in payloads]


def make(settings=SETTINGS, **arguments):
    return Recording(recorded_topics("none"), settings, **arguments)


def sample(k: int, topic: str, cdr: bytes) -> tuple[str, bytes, int, int]:
    return topic, cdr, T0 + k * STEP, T0 + k * STEP


def all_streams(k: int, tick: int = 0) -> list[tuple[str, bytes, int, int]]:
    """What a robot says at step k."""
    bag, recipe, stamp = messages.bag(), factories.Recipe(), T0 + k * STEP
    step = replace(factories.control_step(recipe, 0), time_ns=stamp, tick=tick or 100 + k)
    arm, hand = factories.tcp_at(recipe, k / 25), factories.hand_at(recipe, k / 25)
    made = (
        ("/arm/joint_states", bag.joint_state(stamp, ARM_JOINTS, np.zeros(6), np.zeros(6))),
        ("/hand/joint_states", bag.joint_state(stamp, HAND_JOINTS, hand, None, np.zeros(6))),
        ("/arm/tcp_pose", bag.pose_stamped(stamp, "base", arm)),
        ("/simulation/events", bag.text(json.dumps({"time_ns": stamp, "note": f"step {k}"}))),
        ("/control/step", bag.control_step(step)),
    )
    return [sample(k, topic, messages.serialize(message)) for topic, message in made]
