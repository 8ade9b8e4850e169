"""Puts streams with their own clocks and rates onto the control steps of an episode.

Only capture stamps count. For each control step, states and images are the newest ones captured at
or before it, poses are interpolated on SE(3) between the two around it. A sample stamped exactly at
the step is taken as it is, bit for bit. How old a value is, is kept, and decides the flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dexpie_ros import config, geometry
from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.types import STEP_NS
from dexpie_ros.geometry import Array

Times = NDArray[np.int64]
Index = NDArray[np.int64]


ALIGNED = (
    "/arm/tcp_pose",
    "/arm/joint_states",
    "/hand/joint_states",
    "/simulation/state",
    *(f"/camera/{name}/color/image_raw{kind}" for name in CAMERAS for kind in ("", "/compressed")),
)
"""What is put onto the control steps; the steps themselves are the time."""


@config.config
class AlignConfig:
    """Settings of the alignment."""

    tolerance_ms: float = Field(15.0, ge=0, allow_inf_nan=False)
    """How much older a sample may be than it would be had its stream lost nothing; more flags the
    step. (The newest sample of a healthy 25 Hz stream is up to 40 ms old.)"""
    lost_ms: float = Field(1000.0, gt=0, allow_inf_nan=False)
    """Older than this, a measurement is not used at all: NaN."""
    latency_ms: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = field(
        default_factory=dict
    )
    """By topic: how much later than the event a sample is stamped (exposure, bus, driver)."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.latency_ms) - set(ALIGNED))
        if unknown:
            raise ValueError(
                f"latency_ms: nothing is aligned from {', '.join(unknown)}; there is: "
                + ", ".join(ALIGNED)
            )

    def __str__(self) -> str:
        plain = config.to_dict(self).items()
        return ", ".join(f"{name} {value}" for name, value in plain)

    def latency_ns(self, topic: str) -> int:
        return round(self.latency_ms.get(topic, 0.0) * 1e6)


@dataclass(frozen=True, eq=False)
class Held:
    """For each control step the sample in force: its row, its age in ns, and what that means."""

    index: Index
    age_ns: Times
    late: NDArray[np.bool_]
    """Out of tolerance."""
    lost: NDArray[np.bool_]
    """Too old (or too new) to be used."""


def period_ns(stamps: Times) -> int:
    """Median period of a stream, at most one control step; 0 for fewer than two samples."""
    if len(stamps) < 2:
        return 0
    return int(min(np.median(np.diff(stamps)), STEP_NS))


def time_order(stamps: Times) -> Index:
    """Rows in the order of their stamps; of equal stamps only the one that arrived last."""
    order = np.argsort(stamps, kind="stable")
    if len(order) == 0:
        return order
    ordered = stamps[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return order[last]


def hold(stamps: Times, times: Times, settings: AlignConfig) -> Held:
    """The newest sample at or before each of ``times``. ``stamps`` (n >= 1,) strictly ascending.

    Where nothing was captured before a step, the first sample stands in and the step is late.
    """
    before = np.searchsorted(stamps, times, side="right") - 1
    index = np.maximum(before, 0)
    age = times - stamps[index]
    period, tolerance = period_ns(stamps), settings.tolerance_ms * 1e6
    late = (before < 0) | (age > period + tolerance)
    if period:
        # Samples between this one and the next were lost: what would be in force is newer by whole
        # periods. A tenth of a period is left to jitter.
        gap = np.append(np.diff(stamps), np.iinfo(np.int64).max)[index]
        overdue = np.floor(age / period + 0.1) * period
        late |= (gap > 1.5 * period) & (overdue > tolerance)
    lost = np.abs(age) > settings.lost_ms * 1e6
    return Held(index, age, late, lost)


def interpolate_poses(
    stamps: Times, positions: Array, quaternions: Array, times: Times, settings: AlignConfig
) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Poses at ``times`` from samples (n, 3), (n, 4): (T, 4, 4), late (T,), lost (T,).

    Position linear, rotation on the geodesic (equal to :func:`dexpie_ros.geometry.interpolate`).
    Outside the samples the first or last one is held. Lost rows are NaN.
    """
    after = np.searchsorted(stamps, times, side="left")
    high = np.minimum(after, len(stamps) - 1)
    exact = stamps[high] == times
    low = np.where(exact, high, np.maximum(after - 1, 0))
    high = np.where(after >= len(stamps), low, high)
    span = stamps[high] - stamps[low]
    fraction = np.where(span > 0, (times - stamps[low]) / np.maximum(span, 1), 0.0)
    tolerance = settings.tolerance_ms * 1e6
    nearest = np.minimum(np.abs(times - stamps[low]), np.abs(times - stamps[high]))
    inside = (span > 0) | exact
    # Between samples of a healthy stream the nearer one is at most half a period away.
    late = nearest > tolerance + np.where(inside, 0.5 * period_ns(stamps), 0.0)
    lost = nearest > settings.lost_ms * 1e6
    s = fraction[:, None]
    position = np.where(
        span[:, None] > 0, positions[low] * (1 - s) + positions[high] * s, positions[low]
    )
    quaternion = slerp(quaternions[low], quaternions[high], fraction)
    poses = geometry.make_pose(geometry.quaternion_to_matrix(quaternion), position)
    poses[lost] = np.nan
    return poses, late, lost


def slerp(a: Array, b: Array, fraction: Array) -> Array:
    """Unit quaternions (n, 4) between ``a`` and ``b`` along the shorter way; ``a`` at 0, exactly."""
    dot = np.sum(a * b, axis=-1, keepdims=True)
    b = np.where(dot < 0, -b, b)
    # From the chord, not from acos(dot), which is blind to small angles.
    half = np.arctan2(
        np.linalg.norm(b - a, axis=-1, keepdims=True), np.linalg.norm(a + b, axis=-1, keepdims=True)
    )
    angle = 2 * half
    s = np.asarray(fraction, np.float64)[:, None]
    small = angle < 1e-9
    sine = np.where(small, 1.0, np.sin(angle))
    wa = np.where(small, 1 - s, np.sin((1 - s) * angle) / sine)
    wb = np.where(small, s, np.sin(s * angle) / sine)
    return np.where(s == 0, a, wa * a + wb * b)
