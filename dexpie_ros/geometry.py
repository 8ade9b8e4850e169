"""SE(3), rotations, rot6d, re-anchoring and interpolation.

The only place where a rotation convention is written down:

* a pose is a 4x4 homogeneous matrix ``T`` (float64, metres), ``T_a_b`` maps b coordinates to a;
* quaternions are ``(x, y, z, w)``, as in ``geometry_msgs/Quaternion``;
* rot6d is the first two **columns** of the rotation matrix, stacked column by column
  (Zhou et al. 2019); its name, :data:`ROT6D_CONVENTION`, is saved with every dataset cache and
  checkpoint;
* all functions take any number of leading batch dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transforms3d import quaternions as _quaternions

Array = NDArray[np.float64]

ROT6D_CONVENTION = "columns"


def _exact_zero_safe_norm(v: Array) -> Array:
    norm = np.linalg.norm(v, axis=-1, keepdims=True)
    if np.any(norm < 1e-12):
        raise ValueError("rot6d: a column is zero or the two columns are parallel; not a rotation")
    return norm


def matrix_to_rot6d(rotation: ArrayLike) -> Array:
    """First two columns of ``rotation`` (..., 3, 3) -> (..., 6)."""
    r = np.asarray(rotation, np.float64)
    return np.concatenate([r[..., :, 0], r[..., :, 1]], axis=-1)


def rot6d_to_matrix(rot6d: ArrayLike) -> Array:
    """Gram-Schmidt decoding (..., 6) -> (..., 3, 3). Raises ValueError on degenerate input."""
    d6 = np.asarray(rot6d, np.float64)
    a1, a2 = d6[..., :3], d6[..., 3:6]
    b1 = a1 / _exact_zero_safe_norm(a1)
    b2 = a2 - np.sum(b1 * a2, axis=-1, keepdims=True) * b1
    b2 = b2 / _exact_zero_safe_norm(b2)
    return np.stack([b1, b2, np.cross(b1, b2)], axis=-1)


def quaternion_to_matrix(xyzw: ArrayLike) -> Array:
    """Unit quaternion (..., 4), x y z w, -> rotation matrix (..., 3, 3)."""
    q = np.asarray(xyzw, np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if np.any(norm < 1e-9):
        raise ValueError("quaternion of zero length; was the message filled in?")
    x, y, z, w = np.moveaxis(q / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: ArrayLike) -> Array:
    """Rotation matrix (..., 3, 3) -> unit quaternion (..., 4), x y z w with w >= 0."""
    r = np.asarray(rotation, np.float64)
    flat = r.reshape(-1, 3, 3)
    wxyz = np.array([_quaternions.mat2quat(m) for m in flat]).reshape(-1, 4)
    return np.roll(wxyz, -1, axis=-1).reshape(*r.shape[:-2], 4)


def make_pose(rotation: ArrayLike, position: ArrayLike) -> Array:
    """(..., 3, 3) and (..., 3) -> homogeneous matrix (..., 4, 4)."""
    r, p = np.asarray(rotation, np.float64), np.asarray(position, np.float64)
    pose = np.zeros((*p.shape[:-1], 4, 4))
    pose[..., :3, :3], pose[..., :3, 3], pose[..., 3, 3] = r, p, 1.0
    return pose


def invert(pose: ArrayLike) -> Array:
    """Inverse of rigid transforms (..., 4, 4)."""
    t = np.asarray(pose, np.float64)
    r_inv = np.swapaxes(t[..., :3, :3], -1, -2)
    return make_pose(r_inv, -(r_inv @ t[..., :3, 3:])[..., 0])


def relative(reference: ArrayLike, pose: ArrayLike) -> Array:
    """``T_rel = T_ref^-1 T``. Broadcasts over leading dimensions."""
    return invert(reference) @ np.asarray(pose, np.float64)


def rotation_log(rotation: ArrayLike) -> Array:
    """Rotation vector (..., 3), axis times angle in [0, pi]; exact near 0 and near pi."""
    q = matrix_to_quaternion(rotation)
    v, w = q[..., :3], q[..., 3:]
    sine = np.linalg.norm(v, axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, w)
    # sin(a/2)/a -> 1/2 for small angles, so the factor tends to 2.
    factor = np.where(sine < 1e-12, 2.0, angle / np.maximum(sine, 1e-300))
    return v * factor


def rotation_exp(rotvec: ArrayLike) -> Array:
    """Rotation vector (..., 3) -> rotation matrix (..., 3, 3)."""
    v = np.asarray(rotvec, np.float64)
    angle = np.linalg.norm(v, axis=-1, keepdims=True)
    half_sinc = 0.5 * np.sinc(angle / (2.0 * np.pi))
    return quaternion_to_matrix(np.concatenate([v * half_sinc, np.cos(0.5 * angle)], axis=-1))


def rotation_angle(a: ArrayLike, b: ArrayLike) -> Array:
    """Geodesic angle in rad between rotations (..., 3, 3)."""
    r = np.swapaxes(np.asarray(a, np.float64), -1, -2) @ np.asarray(b, np.float64)
    return np.linalg.norm(rotation_log(r), axis=-1)


def interpolate(a: ArrayLike, b: ArrayLike, fraction: ArrayLike) -> Array:
    """Pose between ``a`` (fraction 0) and ``b`` (1): position linear, rotation on the geodesic."""
    ta, tb = np.asarray(a, np.float64), np.asarray(b, np.float64)
    s = np.asarray(fraction, np.float64)[..., None]
    delta = rotation_log(np.swapaxes(ta[..., :3, :3], -1, -2) @ tb[..., :3, :3])
    rotation = ta[..., :3, :3] @ rotation_exp(delta * s)
    return make_pose(rotation, ta[..., :3, 3] * (1 - s) + tb[..., :3, 3] * s)


@dataclass(frozen=True, eq=False)
class Pose:
    """A pose as messages carry it: position (3,) in m and unit quaternion (4,), x y z w.

    What crosses a process border is kept in this form, so that the lockstep simulation and the ROS
    graph compute on the same bits: a matrix would be rounded on its way through a quaternion.
    """

    position: Array
    quaternion: Array

    @staticmethod
    def from_matrix(pose: ArrayLike) -> Pose:
        t = np.asarray(pose, np.float64)
        return Pose(t[:3, 3].copy(), matrix_to_quaternion(t[:3, :3]))

    def matrix(self) -> Array:
        """Homogeneous matrix (4, 4)."""
        return make_pose(quaternion_to_matrix(self.quaternion), self.position)
