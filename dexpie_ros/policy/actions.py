"""Actions relative to the observation: SE(3) + rot6d + absolute hand (docs/policy.md).

An action is 15 numbers: relative position (3, m), rot6d of the relative rotation (6, columns) and
hand openings (6, absolute, 0 closed .. 1 open). Step k of a chunk is relative to the TCP pose
measured *at the observation that the network saw*: ``T_rel,k = T_obs^-1 T_cmd,k``, where ``T_cmd``
is the commanded pose. Everything here is float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dexpie_ros import geometry
from dexpie_ros.geometry import Array

ACTION_DIM = 15
POSITION = slice(0, 3)
ROTATION = slice(3, 9)
HAND = slice(9, 15)

ACTION_CONVENTION = f"relative-se3/rot6d-{geometry.ROT6D_CONVENTION}/absolute-hand/1"
"""Saved with every policy and dataset cache; another name is refused."""


def encode(t_obs: ArrayLike, tcp: ArrayLike, hand: ArrayLike) -> Array:
    """Commanded poses (..., H, 4, 4) and openings (..., H, 6) -> actions (..., H, 15).

    ``t_obs`` (..., 4, 4) is the TCP pose measured at the observation, base frame.
    """
    reference = np.asarray(t_obs, np.float64)[..., None, :, :]
    return pack(geometry.relative(reference, tcp), hand)


def decode(t_obs: ArrayLike, actions: ArrayLike) -> tuple[Array, Array]:
    """Actions (..., H, 15) -> absolute poses (..., H, 4, 4) in base and openings (..., H, 6).

    Rotations are orthonormalised (Gram-Schmidt) and openings limited to 0 .. 1, so what a network
    puts out can be executed. Raises ValueError where a rot6d is degenerate or not finite.
    """
    values = np.asarray(actions, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("actions: not finite; the policy's weights or its input are broken")
    reference = np.asarray(t_obs, np.float64)[..., None, :, :]
    tcp = reference @ unpack(values)
    return tcp, np.clip(values[..., HAND], 0.0, 1.0)


def pack(relative_tcp: ArrayLike, hand: ArrayLike) -> Array:
    """Relative poses (..., 4, 4) and openings (..., 6) -> actions (..., 15)."""
    pose = np.asarray(relative_tcp, np.float64)
    rotation = geometry.matrix_to_rot6d(pose[..., :3, :3])
    openings = np.asarray(hand, np.float64)
    return np.concatenate([pose[..., :3, 3], rotation, openings], axis=-1)


def unpack(actions: ArrayLike) -> Array:
    """Actions (..., 15) -> relative poses (..., 4, 4)."""
    values = np.asarray(actions, np.float64)
    return geometry.make_pose(
        geometry.rot6d_to_matrix(values[..., ROTATION]), values[..., POSITION]
    )
