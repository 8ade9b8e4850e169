"""What the time axis of the Episode page shows: an episode as short lists of numbers.

Times are seconds from the first control step. Values that do not exist are None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.control.types import HAND_JOINTS, STEP_NS, Mode, Source
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.decoding import columns
from dexpie_ros.episodes.episode import Episode, EpisodeError
from dexpie_ros.episodes.labels import label_tags, read_labels
from dexpie_ros.web.library import Opened

CHUNK, ALIGNMENT = "/policy/chunk", "/teleop/alignment"


def series(opened: Opened) -> dict[str, Any]:
    """Everything by control step, and the streams that have stamps of their own."""
    episode = opened.episode()
    start = int(episode.time_ns[0])
    problems = list(episode.problems)
    labels = _labels(episode, problems)
    return {
        "steps": len(episode),
        "start_ns": str(start),  # a string: JavaScript's numbers end at 2^53
        "step_s": STEP_NS / 1e9,
        "seconds": _short((episode.time_ns - start) / 1e9, 3),
        "sources": [source.name.lower() for source in Source],
        "modes": [mode.name.lower().replace("_", " ") for mode in Mode],
        "source": episode.source.tolist(),
        "mode": episode.mode.tolist(),
        "human": episode.human.astype(int).tolist(),
        "flagged": episode.flags.astype(int).tolist(),
        "contact": episode.contact.astype(int).tolist(),
        "stalls": episode.stalls.tolist(),
        "stage": list(episode.stage_names),
        "command_position": _rows(episode.command_tcp[:, :3, 3], 4),
        "position": _rows(episode.tcp[:, :3, 3], 4),
        "command_hand": _rows(episode.command_hand, 3),
        "hand": _rows(episode.hand, 3),
        "hand_names": [name.replace("_", " ") for name in HAND_JOINTS],
        "position_error_mm": _short(
            1e3 * np.linalg.norm(episode.command_tcp[:, :3, 3] - episode.tcp[:, :3, 3], axis=1), 2
        ),
        "angle_error_deg": _short(_angles(episode.command_tcp, episode.tcp), 2),
        "labels": labels,
        "latency": _stamped(opened.bag, CHUNK, "dexpie_msgs/msg/ActionChunk", start, problems),
        "alignment": _stamped(opened.bag, ALIGNMENT, "dexpie_msgs/msg/Alignment", start, problems),
        "events": [[round((time - start) / 1e9, 3), text] for time, text in episode.events],
        "cameras": {
            name: {"pictures": len(images.encoded), "rows": images.rows.tolist()}
            for name, images in opened.cameras.items()
        },
        "problems": problems,
        "partial": episode.partial,
    }


def _labels(episode: Episode, problems: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in label_tags(episode.path):
        try:
            labels = read_labels(episode.path, tag, steps=len(episode))
        except EpisodeError as error:
            problems.append(str(error))
            continue
        thresholds = {
            name: float(value)
            for name in ("q_low", "q_high")
            if isinstance(value := labels.meta.get(name), (int, float))
        }
        found[tag] = {
            "value": _short(labels.value, 4),
            "value_low": None if labels.value_low is None else _short(labels.value_low, 4),
            "value_high": None if labels.value_high is None else _short(labels.value_high, 4),
            "advantage": _short(labels.advantage, 4),
            "optimality": _short(labels.optimality, 3),
            "critic": str(labels.meta.get("critic", "")),
            "held_out": labels.meta.get("held_out"),
            **thresholds,
        }
    return found


def _stamped(
    bag: BagReader, topic: str, kind: str, start: int, problems: list[str]
) -> dict[str, Any]:
    """Latency of chunks in ms; or the alignment: angle in degrees and the finger that is farthest
    off (opening, the operator's minus the robot's; None where the glove is unknown), with limits.
    """
    if not len(bag.messages.get(topic, ())):
        return {}
    try:
        table = columns(bag, topic, kind)
    except EpisodeError as error:
        problems.append(str(error))
        return {}
    stamps = table.scalar("header.stamp.sec", np.int64) * 1_000_000_000
    stamps = stamps + table.scalar("header.stamp.nanosec", np.int64)
    seconds = _short((stamps - start) / 1e9, 3)
    if topic == CHUNK:
        latency = table.scalar("latency.sec", np.float64) * 1e3
        latency = latency + table.scalar("latency.nanosec", np.float64) / 1e6
        return {"seconds": seconds, "ms": _short(latency, 2)}
    angle = np.degrees(table.scalar("angle", np.float64))
    fingers = table.table(("hand_difference",))
    # a NaN counts as the farthest, as it does at the gate
    worst = np.argmax(np.abs(fingers), axis=1)
    return {
        "seconds": seconds,
        "deg": _short(angle, 1),
        "limit": round(float(np.degrees(table.scalar("angle_limit", np.float64)[0])), 1),
        "finger": worst.tolist(),
        "off": _short(fingers[np.arange(len(fingers)), worst], 2),
        "off_limit": round(float(table.scalar("hand_limit", np.float64)[0]), 2),
        "aligned": table.scalar("aligned", np.uint8).astype(int).tolist(),
    }


def _angles(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) degrees between rotations; NaN where one is missing."""
    angles = np.full(len(a), np.nan)
    there = np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))
    if there.any():
        angles[there] = np.degrees(geometry.rotation_angle(a[there, :3, :3], b[there, :3, :3]))
    return angles


def _short(values: NDArray, digits: int) -> list[float | None]:
    rounded = np.round(np.asarray(values, np.float64), digits)
    return [value if value == value else None for value in rounded.tolist()]


def _rows(values: NDArray[np.float64], digits: int) -> list[list[float | None]]:
    """Columns first: one list for each."""
    return [_short(column, digits) for column in values.T]
