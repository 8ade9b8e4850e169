"""Inverse kinematics of the arm: damped least squares, warm-started from the last command.

Rotations here go through MuJoCo's own routines: they are exact to rounding and far faster than
array code, and this runs at every control step.
"""

from __future__ import annotations

import math

import numpy as np

from dexpie_ros.geometry import Array, Pose
from dexpie_ros.simulation.rendering import mujoco
from dexpie_ros.simulation.scene import arm_only_xml

_IDENTITY = np.eye(4)
_XYZW = np.array([1, 2, 3, 0])
_DAMPING = 2e-5
_LARGEST_ERROR = 0.3
"""Error (m and rad together) beyond which a step only goes this far: keeps Newton on the branch."""


def pose_of(position: Array, rotation: Array) -> Pose:
    """Pose from position (3,) and row-major rotation (9,) or (3, 3); quaternion w >= 0."""
    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, np.ascontiguousarray(rotation).reshape(9))
    if wxyz[0] < 0:
        wxyz = -wxyz
    return Pose(position.copy(), wxyz[_XYZW])


def matrix_of(pose: Pose) -> Array:
    """Homogeneous matrix (4, 4) of a pose."""
    x, y, z, w = pose.quaternion
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, np.array([w, x, y, z]))
    return at(rotation.reshape(3, 3), pose.position)


def at(rotation: Array, position: Array) -> Array:
    """Pose (4, 4); ``geometry.make_pose`` of one pose, without its overhead."""
    pose = _IDENTITY.copy()
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def clip(values: Array, low: Array | float, high: Array | float) -> Array:
    """``np.clip`` without its overhead, which is most of its time on six numbers."""
    clipped: Array = np.minimum(np.maximum(values, low), high)
    return clipped


def rotation_vector(rotation: Array) -> Array:
    """Axis times angle (3,), angle in [0, pi], of a rotation (3, 3)."""
    wxyz, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(wxyz, np.ascontiguousarray(rotation).reshape(9))
    mujoco.mju_quat2Vel(vector, wxyz, 1.0)
    return vector


def rotation_matrix(vector: Array) -> Array:
    """Rotation (3, 3) of a rotation vector (3,)."""
    wxyz, rotation = np.array([1.0, 0.0, 0.0, 0.0]), np.empty(9)
    mujoco.mju_quatIntegrate(wxyz, vector, 1.0)
    mujoco.mju_quat2Mat(rotation, wxyz)
    return rotation.reshape(3, 3)


class ArmKinematics:
    """Joint angles for a TCP pose."""

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(arm_only_xml())
        self._data = mujoco.MjData(self._model)
        self._site = self._model.site("tcp").id
        self._jacobian = np.zeros((6, self._model.nv))
        self._identity = _DAMPING * np.eye(6)

    def forward(self, joints: Array) -> Array:
        """TCP pose (4, 4) in the base frame at ``joints`` (6,)."""
        self._place(joints)
        site = self._data.site_xmat[self._site].reshape(3, 3)
        return at(site, self._data.site_xpos[self._site])

    def inverse(
        self, target: Array, start: Array, iterations: int = 6, tolerance: float = 1e-5
    ) -> tuple[Array, float]:
        """Joints (6,) whose TCP is nearest to ``target`` (4, 4), and the error that is left.

        Out of reach it goes as far as it can; the error (m and rad together) then stays large.
        """
        joints = np.array(start, np.float64)
        error, size = self._error(target, joints)
        jacobian = self._jacobian
        for _ in range(iterations):
            if size < tolerance:
                break
            if size > _LARGEST_ERROR:
                error = error * (_LARGEST_ERROR / size)
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._site)
            joints = joints + jacobian.T @ np.linalg.solve(
                jacobian @ jacobian.T + self._identity, error
            )
            error, size = self._error(target, joints)
        return joints, size

    def _place(self, joints: Array) -> None:
        self._data.qpos[:] = joints
        mujoco.mj_kinematics(self._model, self._data)

    def _error(self, target: Array, joints: Array) -> tuple[Array, float]:
        self._place(joints)
        error = np.empty(6)
        error[:3] = target[:3, 3] - self._data.site_xpos[self._site]
        current = self._data.site_xmat[self._site].reshape(3, 3)
        error[3:] = rotation_vector(target[:3, :3] @ current.T)
        return error, math.sqrt(float(error @ error))
