"""Calibrations of a session's devices, kept as YAML: glove, tracker mounting, hand.

A file says what it is, for which device and when and by which code it was made. Measurements that
cannot be a calibration are refused with a reason instead of being stored.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from dexpie_ros import config, geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.control.retargeting import RetargetingConfig, calibrate, canonical_ergonomics
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

Kind = Literal["glove", "tracker", "hand"]
SHAKY_DEG = 8.0
"""Spread of an angle (10..90 %) within one held pose from which the pose was not held."""
SMALLEST_TURN = np.radians(40.0)
SMALLEST_BETWEEN = np.radians(45.0)
SixInt = tuple[int, int, int, int, int, int]


@config.config
class TrackerMounting:
    """X, rotation from the tracker's to the end effector's axes (TeleopConfig.mounting_*)."""

    mounting_quaternion: config.UnitQuaternion
    """x y z w"""


@config.config
class HandRange:
    """ANGLE values of the closed and the open hand (InspireConfig.raw_*)."""

    raw_closed: SixInt
    raw_open: SixInt


KINDS: dict[str, type] = {
    "glove": RetargetingConfig, "tracker": TrackerMounting, "hand": HandRange,
}  # fmt: skip
C = TypeVar("C")


@config.config
class Stored:
    """What a calibration file holds."""

    kind: Kind
    device: str
    """Serial number, side or name, so that another device's calibration is not taken."""
    created: str
    version: str
    commit: str
    values: dict[str, Any]


def save(path: str | Path, kind: Kind, device: str, values: Any) -> None:
    """Write a calibration (one of the classes in ``KINDS``)."""
    if not isinstance(values, KINDS[kind]):
        raise TypeError(f"a {kind} calibration is a {KINDS[kind].__name__}")
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    code = config.provenance()
    stored = Stored(kind, device, now, code["version"], code["commit"], config.to_dict(values))
    config.save_yaml(stored, path)


def load(path: str | Path, kind: Kind, cls: type[C], device: str = "") -> C:
    """Read a calibration; ConfigError naming file and remedy where it does not fit."""
    stored = config.load(Stored, path)
    if stored.kind != kind:
        raise ConfigError(f"{path}: is a {stored.kind} calibration, a {kind} one is wanted")
    if device and stored.device != device:
        raise ConfigError(
            f"{path}: was made for {stored.device!r}, not {device!r}; run "
            f"`dexpie calibrate {kind}` for this one"
        )
    return config.from_dict(cls, stored.values, f"{path}: values")


def calibrate_glove(
    open_hand: Sequence[Mapping[str, float]], closed_hand: Sequence[Mapping[str, float]]
) -> RetargetingConfig:
    """Reference values from samples (deg) of the open hand and of a fist with the thumb across.

    ConfigError where a pose was not held still or a finger hardly moved.
    """
    for pose, samples in (("open", open_hand), ("closed", closed_hand)):
        if len(samples) < 10:
            raise ConfigError(
                f"glove calibration: {len(samples)} samples of the {pose} hand, 10 needed; is the "
                "glove sending?"
            )
        rows = [canonical_ergonomics(sample) for sample in samples]
        for name in sorted(set.intersection(*(set(row) for row in rows))):
            low, high = np.percentile([row[name] for row in rows], [10, 90])
            if high - low > SHAKY_DEG:
                raise ConfigError(
                    f"glove calibration: {name} moved by {high - low:.0f} deg while the {pose} "
                    "hand should have been held still; try again"
                )
    try:
        return calibrate(open_hand, closed_hand)
    except ValueError as error:
        raise ConfigError(f"glove calibration: {error}") from None


def still_pose(samples: Sequence[ArrayLike], what: str) -> Array:
    """The pose (4, 4) that poses of a tracker held still stand for: mean rotation, median place.

    ConfigError naming ``what`` where it turned by more than ``SHAKY_DEG`` meanwhile.
    """
    poses = np.stack([np.asarray(sample, np.float64) for sample in samples])
    rotations = poses[:, :3, :3]
    # twice: the second time without single poses far off, of before or of a bad view
    for _ in range(2):
        u, _, vt = np.linalg.svd(rotations.sum(axis=0))
        mean: Array = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        off = np.array([geometry.rotation_angle(mean, pose[:3, :3]) for pose in poses])
        rotations = poses[off <= 2 * np.median(off), :3, :3]
    spread = float(np.degrees(np.percentile(off, 80)))
    if spread > SHAKY_DEG:
        raise ConfigError(
            f"tracker calibration: it turned by {spread:.0f} deg while it should have been held "
            f"still ({what}); with a cube, show two faces well lit; try again"
        )
    return geometry.make_pose(mean, np.median(poses[:, :3, 3], axis=0))


def calibrate_tracker(
    start: ArrayLike, turned_x: ArrayLike, turned_z: ArrayLike
) -> TrackerMounting:
    """X from two turns of the hand: about the end effector's x and about its z axis (both +).

    Arguments are tracker poses (4, 4): at the start, after the turn about x, and after the turn
    about z from the start again; each about 90 degrees, at least 40. The tracker's own turn axes
    are then the end effector's axes in tracker coordinates.
    """
    reference = np.asarray(start, np.float64)[:3, :3]
    axes = []
    for name, pose in (("x", turned_x), ("z", turned_z)):
        turn = geometry.rotation_log(reference.T @ np.asarray(pose, np.float64)[:3, :3])
        angle = float(np.linalg.norm(turn))
        if angle < SMALLEST_TURN:
            raise ConfigError(
                f"tracker calibration: the turn about {name} was only {np.degrees(angle):.0f} deg; "
                "turn by about 90"
            )
        axes.append(turn / angle)
    x, z = axes
    between = float(np.arccos(np.clip(x @ z, -1, 1)))
    if not SMALLEST_BETWEEN < between < np.pi - SMALLEST_BETWEEN:
        raise ConfigError(
            f"tracker calibration: the two turn axes are {np.degrees(between):.0f} deg apart, "
            "expected 90; turn about one axis at a time"
        )
    # The orthonormal frame nearest to the two measured axes treats both alike.
    measured = np.stack([x, np.cross(z, x), z], axis=1)
    u, _, vt = np.linalg.svd(measured)
    quaternion = geometry.matrix_to_quaternion(u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt)
    qx, qy, qz, qw = (float(q) for q in quaternion)
    return TrackerMounting((qx, qy, qz, qw))


def calibrate_hand(raw_open: Sequence[ArrayLike], raw_closed: Sequence[ArrayLike]) -> HandRange:
    """ANGLE values from samples (n, 6) of the hand driven fully open and fully closed, unloaded."""
    medians: list[Array] = []
    for pose, samples in (("open", raw_open), ("closed", raw_closed)):
        values = np.asarray(samples, np.float64)
        if values.ndim != 2 or values.shape[1] != len(HAND_JOINTS) or len(values) < 5:
            raise ConfigError(
                f"hand calibration: {len(values)} samples of the {pose} hand, 5 needed"
            )
        medians.append(np.median(values, axis=0))
    opened, closed = medians
    for finger, a, b in zip(HAND_JOINTS, opened, closed, strict=True):
        if a - b < 300:
            raise ConfigError(
                f"hand calibration: {finger} moved from {a:.0f} to {b:.0f} of 1000 only; is it "
                "blocked, or does the hand report an error?"
            )
    low, high = ([round(float(v)) for v in values] for values in (closed, opened))
    return config.from_dict(HandRange, {"raw_closed": low, "raw_open": high}, "hand calibration")


def applied(settings: C, calibration: Any) -> C:
    """A device config with a calibration's values in their fields (InspireConfig, TeleopConfig)."""
    values = {
        field.name: getattr(calibration, field.name) for field in dataclasses.fields(calibration)
    }
    replaced: C = dataclasses.replace(settings, **values)  # type: ignore[type-var]
    return replaced
