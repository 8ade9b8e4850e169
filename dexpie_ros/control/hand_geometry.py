"""Where the Inspire hand's fingertips are: openings -> positions, for numpy and for torch alike.

Dimensions of the right hand's public URDF. Each motor bends a whole finger, the far joints follow the
near one. Frame: the hand's base, -y along the fingers, -x the palm's normal, -z the thumb's side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dexpie_ros.geometry import Array

HAND_RANGE = (1.47, 1.47, 1.47, 1.47, 0.6, 1.308)
"""rad that each motor travels from open (opening 1) to closed (opening 0)"""
PINCH_CONTACT = 0.02
"""m between the centres of two fingertips that touch: their radii and a little skin"""

# Base of the finger (m), its roll about x (rad), last link (m), in the hand's own order.
_FINGERS = (
    ((0.00029, -0.13571, 0.02549), 3.0369, 0.0325),
    ((0.00029, -0.13691, 0.00629), 3.0892, 0.0405),
    ((0.00029, -0.13710, -0.01295), -3.1416, 0.0435),
    ((0.00029, -0.13653, -0.03227), -3.1067, 0.0405),
)
_MIDDLE_JOINT = (-0.0025, 0.032, -0.001)
_THUMB_BASE = (-0.01696, -0.0691, -0.02045)
_THUMB_PROXIMAL = (-0.00881, 0.010892, -0.00925)
_THUMB_MIDDLE = (0.04407, 0.034553, -0.0008)
_THUMB_DISTAL = (0.020248, 0.010156, -0.0012)
_THUMB_TIP = (0.0165, 0.0115, -0.006)

Point = tuple[Any, Any, Any]


def fingertips(openings: Any, xp: Any = np) -> Any:
    """Openings (..., 6) -> tip positions (..., 5, 3) in m: little, ring, middle, index, thumb.

    ``xp`` is numpy or torch; the openings are an array of it.
    """
    angles = [reach * (1.0 - openings[..., i]) for i, reach in enumerate(HAND_RANGE)]
    tips = [_finger(i, angles[i], xp) for i in range(4)]
    tips.append(_thumb(angles[4], angles[5], xp))
    return xp.stack([xp.stack(tip, -1) for tip in tips], -2)


def thumb_distances(openings: Any, xp: Any = np) -> Any:
    """Openings (..., 6) -> distances (..., 4) in m from the thumb's tip to little .. index."""
    tips = fingertips(openings, xp)
    apart = tips[..., :4, :] - tips[..., 4:, :]
    return xp.sqrt((apart * apart).sum(-1))


def pinch(finger: int, others: float = 1.0) -> Array:
    """Openings (6,) at which the thumb touches ``finger`` (0 little .. 3 index); others open.

    Found by search; the nearest that the hand can do where it cannot reach.
    """
    steps = np.linspace(0.0, 1.0, 41)
    bend, rotation, bent = np.meshgrid(steps, steps, steps, indexing="ij")
    openings = np.full((*bend.shape, 6), others)
    openings[..., finger], openings[..., 4], openings[..., 5] = bent, bend, rotation
    distance = np.abs(thumb_distances(openings)[..., finger] - PINCH_CONTACT)
    best: Array = openings.reshape(-1, 6)[int(np.argmin(distance))]
    return best


def _finger(index: int, angle: Any, xp: Any) -> Point:
    base, roll, last = _FINGERS[index]
    point = _turn_z((0.001, last - 0.007, -0.005), 1.06399 * angle - 0.04545, xp)
    point = _turn_z(_shift(point, _MIDDLE_JOINT), angle, xp)
    return _shift(_turn_x(point, roll), base)


def _thumb(pitch: Any, yaw: Any, xp: Any) -> Point:
    point = _turn_z(_THUMB_TIP, 0.667 * pitch, xp)
    point = _turn_z(_shift(point, _THUMB_DISTAL), 1.334 * pitch, xp)
    point = _turn_z(_shift(point, _THUMB_MIDDLE), pitch, xp)
    point = _turn_fixed_z(_turn_x(point, 1.5708), 2.8587)
    point = _turn_z(_shift(point, _THUMB_PROXIMAL), -yaw, xp)
    return _shift(_turn_y(_turn_x(point, 1.5708), -1.5708), _THUMB_BASE)


def _shift(point: Point, by: tuple[float, float, float]) -> Point:
    return point[0] + by[0], point[1] + by[1], point[2] + by[2]


def _turn_z(point: Point, angle: Any, xp: Any) -> Point:
    c, s = xp.cos(angle), xp.sin(angle)
    x, y, z = point
    # The zero keeps a constant coordinate an array of the batch's shape.
    return c * x - s * y, s * x + c * y, z + 0.0 * angle


def _turn_fixed_z(point: Point, angle: float) -> Point:
    c, s = math.cos(angle), math.sin(angle)
    return c * point[0] - s * point[1], s * point[0] + c * point[1], point[2]


def _turn_x(point: Point, angle: float) -> Point:
    c, s = math.cos(angle), math.sin(angle)
    return point[0], c * point[1] - s * point[2], s * point[1] + c * point[2]


def _turn_y(point: Point, angle: float) -> Point:
    c, s = math.cos(angle), math.sin(angle)
    return c * point[0] + s * point[2], point[1], c * point[2] - s * point[0]
