"""Scalar quaternion arithmetic of the 25 Hz loop, and motion of one :class:`Pose` by another.

`geometry` states the convention (x, y, z, w; unit length) and works on batches. A control step
handles single poses, where plain floats are ten times faster than arrays and where an unchanged
pose must keep its bits. The tests hold every function here against its twin in `geometry`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dexpie_ros.geometry import Array, Pose

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]

IDENTITY: Quaternion = (0.0, 0.0, 0.0, 1.0)


def as_vector(values: Sequence[float] | Array) -> Vector:
    """Three numbers as plain floats."""
    x, y, z = values.tolist() if isinstance(values, np.ndarray) else values
    return x, y, z


def as_quaternion(values: Sequence[float] | Array) -> Quaternion:
    """Four numbers x y z w, scaled to unit length; ValueError where they are all zero."""
    x, y, z, w = values.tolist() if isinstance(values, np.ndarray) else values
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not norm > 1e-9:
        raise ValueError("quaternion of zero length or with NaN; was the message filled in?")
    return x / norm, y / norm, z / norm, w / norm


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Rotation ``a`` after ``b``."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def conjugate(q: Quaternion) -> Quaternion:
    """The inverse of a unit quaternion."""
    return -q[0], -q[1], -q[2], q[3]


def rotate(q: Quaternion, v: Vector) -> Vector:
    """The vector ``v`` turned by ``q``."""
    x, y, z, _ = multiply(multiply(q, (*v, 0.0)), conjugate(q))
    return x, y, z


def to_rotvec(q: Quaternion) -> Vector:
    """Rotation vector, angle in [0, pi]; the twin of ``geometry.rotation_log``."""
    x, y, z, w = q if q[3] >= 0 else (-q[0], -q[1], -q[2], -q[3])
    sine = math.sqrt(x * x + y * y + z * z)
    # sin(a/2)/a -> 1/2 for small angles, so the factor tends to 2.
    factor = 2.0 if sine < 1e-12 else 2.0 * math.atan2(sine, w) / sine
    return x * factor, y * factor, z * factor


def from_rotvec(v: Vector) -> Quaternion:
    """Unit quaternion of a rotation vector; the twin of ``geometry.rotation_exp``."""
    angle = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    factor = 0.5 if angle < 1e-12 else math.sin(0.5 * angle) / angle
    return as_quaternion((v[0] * factor, v[1] * factor, v[2] * factor, math.cos(0.5 * angle)))


def slerp(a: Quaternion, b: Quaternion, fraction: float) -> Quaternion:
    """From ``a`` (0) to ``b`` (1) on the geodesic."""
    x, y, z = to_rotvec(multiply(b, conjugate(a)))
    return multiply(from_rotvec((x * fraction, y * fraction, z * fraction)), a)


def norm(v: Vector) -> float:
    return math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


def motion(start: Pose, end: Pose) -> tuple[Vector, Vector]:
    """Displacement in m and rotation vector in rad, both in the base frame, from start to end."""
    p, q = as_vector(start.position), as_vector(end.position)
    turn = multiply(as_quaternion(end.quaternion), conjugate(as_quaternion(start.quaternion)))
    return (q[0] - p[0], q[1] - p[1], q[2] - p[2]), to_rotvec(turn)


def distance_and_angle(a: Pose, b: Pose) -> tuple[float, float]:
    """How far apart two poses are: m and rad (geodesic)."""
    linear, angular = motion(a, b)
    return norm(linear), norm(angular)


def compose(a: Pose, b: Pose) -> Pose:
    """``T_a T_b``."""
    q = as_quaternion(a.quaternion)
    offset = rotate(q, as_vector(b.position))
    position = np.asarray(a.position, np.float64) + np.array(offset)
    return Pose(position, np.array(as_quaternion(multiply(q, as_quaternion(b.quaternion)))))


def inverse(a: Pose) -> Pose:
    """``T_a^-1``."""
    q = conjugate(as_quaternion(a.quaternion))
    x, y, z = rotate(q, as_vector(a.position))
    return Pose(np.array((-x, -y, -z)), np.array(q))


def blend(a: Pose, b: Pose, fraction: float) -> Pose:
    """Between ``a`` (0) and ``b`` (1): position linear, rotation on the geodesic."""
    start, end = np.asarray(a.position, np.float64), np.asarray(b.position, np.float64)
    turned = slerp(as_quaternion(a.quaternion), as_quaternion(b.quaternion), fraction)
    return Pose(start + (end - start) * fraction, np.array(turned))


def is_finite(pose: Pose) -> bool:
    """Whether a pose can be commanded: finite numbers and a quaternion of about unit length."""
    position, quaternion = np.asarray(pose.position).tolist(), np.asarray(pose.quaternion).tolist()
    if len(position) != 3 or len(quaternion) != 4:
        return False
    # NaN and infinity outlast a sum, and make the length of a quaternion NaN or infinite.
    return math.isfinite(sum(position)) and abs(math.hypot(*quaternion) - 1.0) < 1e-3
