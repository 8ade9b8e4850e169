"""What an episode looks like as a LeRobotDataset v3: the columns and how they are filled.

Two kinds of columns. ``observation.*`` and ``action`` (float32) are what LeRobot's policies train
on. ``dexpie.*`` hold every array of the episode in its own type, so that reading back is bit-exact;
LeRobot carries them along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.control.types import ARM_JOINTS, CONTROL_RATE_HZ, HAND_JOINTS
from dexpie_ros.episodes.episode import Episode
from dexpie_ros.geometry import Array

CODEBASE_VERSION = "v3.0"
FPS = CONTROL_RATE_HZ
_POSE = ("x", "y", "z", "r00", "r10", "r20", "r01", "r11", "r21")
STATE_NAMES = [
    *(f"tcp.{n}" for n in _POSE),
    *(f"joint.{n}" for n in ARM_JOINTS),
    *(f"hand.{n}" for n in HAND_JOINTS),
]
ACTION_NAMES = [*(f"tcp.{n}" for n in _POSE), *(f"hand.{n}" for n in HAND_JOINTS)]


@dataclass(frozen=True)
class Column:
    """One column: its type, its shape and its values for an episode of T steps."""

    dtype: str
    shape: tuple[int, ...]
    names: list[str] | None
    values: Callable[[Episode], NDArray]
    """(T,) for shape (1,), else (T, n)."""


def columns(objects: int) -> dict[str, Column]:
    """Columns of a data set with that many objects (0: none), without images."""
    exact: dict[str, Column] = {
        "dexpie.time_ns": _scalar("int64", lambda e: e.time_ns),
        "dexpie.tick": _scalar("int64", lambda e: e.tick),
        "dexpie.source": _scalar("uint8", lambda e: e.source),
        "dexpie.mode": _scalar("uint8", lambda e: e.mode),
        "dexpie.stalls": _scalar("int64", lambda e: e.stalls),
        "dexpie.contact": _scalar("bool", lambda e: e.contact),
        "dexpie.flags": _scalar("bool", lambda e: e.flags),
        "dexpie.joints": _row(6, lambda e: e.joints),
        "dexpie.hand": _row(6, lambda e: e.hand),
        "dexpie.hand_force": _row(6, lambda e: e.hand_force),
        "dexpie.tcp": _row(12, lambda e: flat(e.tcp)),
        "dexpie.command_tcp": _row(12, lambda e: flat(e.command_tcp)),
        "dexpie.command_hand": _row(6, lambda e: e.command_hand),
        "dexpie.proposal_tcp": _row(12, lambda e: flat(e.proposal_tcp)),
        "dexpie.proposal_hand": _row(6, lambda e: e.proposal_hand),
        "dexpie.human_tcp": _row(12, lambda e: flat(e.human_tcp)),
        "dexpie.human_hand": _row(6, lambda e: e.human_hand),
    }
    if objects:
        exact["dexpie.objects"] = _row(7 * objects, lambda e: e.objects.reshape(len(e), -1))
    return {
        "observation.state": Column("float32", (len(STATE_NAMES),), STATE_NAMES, state),
        "action": Column("float32", (len(ACTION_NAMES),), ACTION_NAMES, action),
        "intervention": _scalar("bool", lambda e: e.human),
        "next.done": _scalar("bool", lambda e: np.arange(len(e)) == len(e) - 1),
        "next.success": _scalar("bool", lambda e: (np.arange(len(e)) == len(e) - 1) & e.success),
        **exact,
    }


def state(episode: Episode) -> NDArray[np.float32]:
    """(T, 21): measured TCP (position, rot6d by columns), joints, openings."""
    parts = [_pose9(episode.tcp), episode.joints, episode.hand]
    return np.concatenate(parts, axis=1).astype(np.float32)


def action(episode: Episode) -> NDArray[np.float32]:
    """(T, 15): commanded TCP in ``base`` (absolute) and openings."""
    parts = [_pose9(episode.command_tcp), episode.command_hand]
    return np.concatenate(parts, axis=1).astype(np.float32)


def flat(poses: Array) -> Array:
    """(T, 4, 4) -> (T, 12): the upper three rows, row by row."""
    return np.ascontiguousarray(poses[:, :3, :]).reshape(len(poses), 12)


def unflat(rows: Array) -> Array:
    """Inverse of :func:`flat`; a NaN row is a NaN pose."""
    poses = np.zeros((len(rows), 4, 4))
    poses[:, :3, :] = rows.reshape(len(rows), 3, 4)
    poses[:, 3, 3] = 1.0
    poses[np.isnan(rows).any(axis=1)] = np.nan
    return poses


def describe(column: Column) -> dict[str, Any]:
    """As ``info.json`` lists a feature."""
    return {"dtype": column.dtype, "shape": list(column.shape), "names": column.names}


def statistics(values: NDArray) -> dict[str, list[Any]]:
    """Per component over the finite rows: min, max, mean, std, count and quantiles, as LeRobot."""
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        rows = np.zeros((1, rows.shape[1]))
    figures: dict[str, list[Any]] = {
        "min": rows.min(0).tolist(),
        "max": rows.max(0).tolist(),
        "mean": rows.mean(0).tolist(),
        "std": rows.std(0).tolist(),
        "count": [len(rows)],
    }
    for q in (1, 10, 50, 90, 99):
        figures[f"q{q:02d}"] = np.quantile(rows, q / 100, axis=0).tolist()
    return figures


def _pose9(poses: Array) -> Array:
    return np.concatenate([poses[:, :3, 3], geometry.matrix_to_rot6d(poses[:, :3, :3])], axis=1)


def _scalar(dtype: str, values: Callable[[Episode], NDArray]) -> Column:
    return Column(dtype, (1,), None, values)


def _row(width: int, values: Callable[[Episode], NDArray]) -> Column:
    return Column("float64", (width,), None, values)
