"""Kinematics of UR arms from their nominal Denavit-Hartenberg parameters.

Closed-form inverse (after Hawkins, "Analytic Inverse Kinematics for the Universal Robots UR-5/UR-10
Arms", 2013): up to eight solutions from shoulder left/right, wrist up/down, elbow up/down. The arm
driver asks it before anything is sent, because a pose without a solution makes the controller halt
its program; the emulator moves by it. A real arm's calibrated parameters differ by millimetres,
hence the margins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dexpie_ros.geometry import Array

_ALPHA = (math.pi / 2, 0.0, 0.0, math.pi / 2, -math.pi / 2, 0.0)


@dataclass(frozen=True)
class UrModel:
    """Lengths of one arm in m (standard DH: d1, a2, a3, d4, d5, d6)."""

    name: str
    d1: float
    a2: float
    a3: float
    d4: float
    d5: float
    d6: float

    @property
    def d(self) -> tuple[float, ...]:
        return (self.d1, 0.0, 0.0, self.d4, self.d5, self.d6)

    @property
    def a(self) -> tuple[float, ...]:
        return (0.0, self.a2, self.a3, 0.0, 0.0, 0.0)


UR5 = UrModel("ur5", 0.089159, -0.425, -0.39225, 0.10915, 0.09465, 0.0823)
UR5E = UrModel("ur5e", 0.1625, -0.425, -0.3922, 0.1333, 0.0997, 0.0996)
MODELS = {model.name: model for model in (UR5, UR5E)}


def _link(model: UrModel, joint: int, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    ca, sa = math.cos(_ALPHA[joint]), math.sin(_ALPHA[joint])
    a, d = model.a[joint], model.d[joint]
    return np.array(
        [
            [c, -s * ca, s * sa, a * c],
            [s, c * ca, -c * sa, a * s],
            [0.0, sa, ca, d],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def forward(model: UrModel, joints: ArrayLike) -> Array:
    """Flange pose (4, 4) in the controller's base frame for joints (6,) in rad."""
    pose = np.eye(4)
    for joint, angle in enumerate(np.asarray(joints, np.float64)):
        pose = pose @ _link(model, joint, float(angle))
    return pose


def jacobian(model: UrModel, joints: ArrayLike) -> Array:
    """Geometric Jacobian (6, 6) of the flange: linear rows, then angular, in the base frame."""
    q = np.asarray(joints, np.float64)
    pose, axes, origins = np.eye(4), [], []
    for joint in range(6):
        axes.append(pose[:3, 2])
        origins.append(pose[:3, 3])
        pose = pose @ _link(model, joint, float(q[joint]))
    z, p = np.array(axes), np.array(origins)
    return np.concatenate([np.cross(z, pose[:3, 3] - p), z], axis=1).T


def inverse(model: UrModel, flange: ArrayLike, margin: float = 0.0, wrist_3: float = 0.0) -> Array:
    """All solutions (n, 6), n in 0..8, angles in [-pi, pi], for a flange pose (4, 4).

    ``margin`` is the share of the full stretch that must stay unused (0.02: the elbow keeps 2 % of
    its length, the shoulder 2 % of its offset). ``wrist_3`` is used where the wrist is singular and
    joint 6 is free.
    """
    t = np.asarray(flange, np.float64)
    solutions = []
    wrist = t[:3, 3] - model.d6 * t[:3, 2]
    radius = math.hypot(wrist[0], wrist[1])
    if radius < model.d4 * (1.0 + margin) or radius == 0.0:
        return np.zeros((0, 6))
    swing = math.acos(min(1.0, model.d4 / radius))
    longest = (abs(model.a2) + abs(model.a3)) * (1.0 - margin)
    shortest = abs(abs(model.a2) - abs(model.a3)) * (1.0 + margin)
    for shoulder in (swing, -swing):
        q1 = math.atan2(wrist[1], wrist[0]) + shoulder + math.pi / 2
        s1, c1 = math.sin(q1), math.cos(q1)
        cosine = (t[0, 3] * s1 - t[1, 3] * c1 - model.d4) / model.d6
        if abs(cosine) > 1.0 + 1e-9:
            continue
        for q5 in {acos := math.acos(max(-1.0, min(1.0, cosine))), -acos}:
            s5 = math.sin(q5)
            if abs(s5) < 1e-9:
                q6 = wrist_3
            else:
                q6 = math.atan2(
                    (-t[0, 1] * s1 + t[1, 1] * c1) / s5, (t[0, 0] * s1 - t[1, 0] * c1) / s5
                )
            to_4 = _rigid_inverse(_link(model, 4, q5) @ _link(model, 5, q6))
            t14 = _rigid_inverse(_link(model, 0, q1)) @ t @ to_4
            x, y = float(t14[0, 3]), float(t14[1, 3])
            reach = math.hypot(x, y)
            if not shortest <= reach <= longest:
                continue
            cosine3 = (reach**2 - model.a2**2 - model.a3**2) / (2 * model.a2 * model.a3)
            bend = math.acos(max(-1.0, min(1.0, cosine3)))
            for q3 in (bend, -bend):
                q2 = math.atan2(y, x) - math.atan2(
                    model.a3 * math.sin(q3), model.a2 + model.a3 * math.cos(q3)
                )
                t34 = _rigid_inverse(_link(model, 1, q2) @ _link(model, 2, q3)) @ t14
                q4 = math.atan2(t34[1, 0], t34[0, 0])
                solutions.append((q1, q2, q3, q4, q5, q6))
    return _wrap(np.array(solutions, np.float64).reshape(-1, 6))


def nearest(
    model: UrModel, flange: ArrayLike, joints: ArrayLike, margin: float = 0.0
) -> Array | None:
    """The solution (6,) nearest to ``joints`` (largest joint difference decides), or None.

    Angles continue from ``joints`` (no wrap at pi), as the controller's own inverse does.
    """
    q = np.asarray(joints, np.float64)
    found = inverse(model, flange, margin, float(q[5]))
    if len(found) == 0:
        return None
    steps = _wrap(found - q)
    best: Array = q + steps[int(np.argmin(np.abs(steps).max(axis=1)))]
    return best


def _rigid_inverse(pose: Array) -> Array:
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result


def _wrap(angles: Array) -> Array:
    wrapped: Array = (angles + math.pi) % (2 * math.pi) - math.pi
    return wrapped
