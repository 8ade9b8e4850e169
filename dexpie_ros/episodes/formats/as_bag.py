"""An :class:`Episode` in memory -> a recorded episode on disk, for what comes from elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import messages
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
from dexpie_ros.episodes.annotations import annotate
from dexpie_ros.episodes.episode import Episode, EpisodeInfo
from dexpie_ros.episodes.images import RecordedImages, encode_jpeg
from dexpie_ros.episodes.writer import EpisodeWriter, WriterConfig
from dexpie_ros.geometry import Array, Pose

Message = tuple[int, str, bytes]
"""(stamp in ns, topic, CDR)"""
EVENTS = "/simulation/events"
"""The topic of the contract for what was noted, by whomever."""


def write_bag(directory: str | Path, episode: Episode) -> Path:
    """Record ``episode`` in ``directory`` (new): one message per step and topic, with its stamp.

    Poses pass through quaternions: they come back equal to about 1e-15. A control step whose
    command is NaN is not written, for it was not recorded. Stages and corrected segments become the
    first revision of its annotations; an episode that was partial stays so.
    """
    rows: list[Message] = []
    for k, stamp in enumerate(episode.time_ns.tolist()):
        rows += state_messages(
            stamp, episode.tcp[k], episode.joints[k], episode.hand[k], episode.hand_force[k]
        )
        rows += _world(episode, k, stamp)
        rows += _pictures(episode, k, stamp)
        rows += step_messages(episode, k, stamp)
    rows += [
        (time_ns, EVENTS, messages.serialize(messages.bag().text(text)))
        for time_ns, text in episode.events
    ]
    missing = (episode.problems or ("nothing says why",)) if episode.partial else ()
    record(directory, episode.info, rows, bool(episode.cameras), missing)
    changes: dict[str, Any] = {}
    if episode.stages:
        changes["stages"] = list(episode.stages)
    if episode.intervention is not None:
        changes["interventions"] = _segments(episode.intervention, episode.time_ns)
    if changes:
        annotate(directory, author="import", comment="as imported", **changes)
    return Path(directory)


def _segments(rows: NDArray[np.bool_], time_ns: NDArray[np.int64]) -> list[tuple[int, int]]:
    """[from, to) in ns, so that exactly these steps lie within."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    times = [*time_ns.tolist(), int(time_ns[-1]) + STEP_NS]
    return [(times[a], times[b]) for a, b in edges.reshape(-1, 2)]


def record(
    directory: str | Path,
    info: EpisodeInfo,
    rows: Sequence[Message],
    images: bool,
    missing: Sequence[str] = (),
) -> Path:
    """Write messages as a finished episode; outcome and cause come from ``info``.

    ``missing``: in words what the source lacked.
    """
    topics = recorded_topics("jpeg" if images else "none")
    open_info = dataclasses.replace(info, outcome="", cause="")
    with EpisodeWriter(directory, open_info, topics, WriterConfig(durable=False)) as writer:
        for stamp, topic, cdr in sorted(rows, key=lambda row: row[0]):
            writer.write(topic, cdr, stamp, stamp)
        writer.finish(info.outcome, info.cause, {"imported": True}, missing)
    return Path(directory)


def state_messages(
    stamp: int, tcp: Array, joints: Array, hand: Array, force: Array | None = None
) -> list[Message]:
    """Measured state of the robot; NaN parts are left out."""
    bag, found = messages.bag(), []
    if np.isfinite(tcp).all():
        found.append(("/arm/tcp_pose", bag.pose_stamped(stamp, "base", Pose.from_matrix(tcp))))
    if np.isfinite(joints).all():
        found.append(("/arm/joint_states", bag.joint_state(stamp, ARM_JOINTS, joints)))
    if np.isfinite(hand).all():
        effort = force if force is not None and np.isfinite(force).all() else None
        found.append(
            ("/hand/joint_states", bag.joint_state(stamp, HAND_JOINTS, hand, effort=effort))
        )
    return [(stamp, topic, messages.serialize(message)) for topic, message in found]


def control_step_message(step: ControlStep) -> Message:
    return (
        step.time_ns,
        "/control/step",
        messages.serialize(messages.bag().control_step(step)),
    )


def picture_message(stamp: int, camera: str, jpeg: bytes) -> Message:
    message = messages.bag().compressed_image(stamp, camera, jpeg)
    topic = f"/camera/{camera}/color/image_raw/compressed"
    return stamp, topic, messages.serialize(message)


def step_messages(episode: Episode, k: int, stamp: int) -> list[Message]:
    command = _command(episode.command_tcp[k], episode.command_hand[k])
    if command is None:
        return []
    step = ControlStep(
        time_ns=stamp,
        tick=int(episode.tick[k]),
        command=command,
        source=Source(episode.source[k]),
        mode=Mode(episode.mode[k]),
        proposal=_command(episode.proposal_tcp[k], episode.proposal_hand[k]),
        human=_command(episode.human_tcp[k], episode.human_hand[k]),
        stalls=int(episode.stalls[k]),
    )
    return [control_step_message(step)]


def _command(tcp: Array, hand: NDArray[np.float64]) -> Command | None:
    if not (np.isfinite(tcp).all() and np.isfinite(hand).all()):
        return None
    return Command(Pose.from_matrix(tcp), np.asarray(hand, np.float64))


def _world(episode: Episode, k: int, stamp: int) -> list[Message]:
    if not episode.object_names or not np.isfinite(episode.objects[k]).all():
        return []
    poses = [Pose(row[:3], row[3:]) for row in episode.objects[k]]
    message = messages.bag().simulation_state(
        stamp,
        tick=int(episode.tick[k]),
        resets=0,
        task=episode.info.task,
        stage=episode.info.stage,
        seed=episode.info.seed,
        objects=dict(zip(episode.object_names, poses)),
        success=episode.success and k == len(episode) - 1,
        failure=episode.outcome == "failure" and k == len(episode) - 1,
        reason=episode.cause,
        contact=bool(episode.contact[k]),
    )
    return [(stamp, "/simulation/state", messages.serialize(message))]


def _pictures(episode: Episode, k: int, stamp: int) -> list[Message]:
    found = []
    for name, images in episode.cameras.items():
        if isinstance(images, RecordedImages) and images.raw_shape is None:
            row = int(images.rows[k])
            # A picture that stays in force is recorded once, with its own stamp.
            if k == 0 or row != int(images.rows[k - 1]):
                jpeg = bytes(images.encoded[row])
                found.append(picture_message(int(images.stamps_ns[row]), name, jpeg))
        else:
            found.append(picture_message(stamp, name, encode_jpeg(images[k], 95)))
    return found
