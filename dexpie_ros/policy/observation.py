"""What a policy or critic sees: one builder for live observations and for recorded episodes.

The vector is a list of named parts (docs/policy.md#observations-and-actions):

========================  =========================================================  =====
part                      meaning                                                    size
========================  =========================================================  =====
``tcp``                   measured TCP, base: position (m) + rot6d                    9
``joints``                arm joints (rad)                                            6
``hand``                  measured openings, 0 closed .. 1 open                       6
``hand_force``            force at each finger (N)                                    6
``objects``               each named object, base: position (m) + rot6d               9 each
``objects_in_tcp``        each named object in the measured TCP frame                 9 each
========================  =========================================================  =====

Object poses are known to a simulator only. A policy says with its spec what it was trained on and
refuses an observation that lacks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros import geometry
from dexpie_ros.config import config
from dexpie_ros.control.types import Observation
from dexpie_ros.geometry import Array

Part = Literal["tcp", "joints", "hand", "objects", "objects_in_tcp", "hand_force"]
_SIZES = {"tcp": 9, "joints": 6, "hand": 6, "hand_force": 6, "objects": 9, "objects_in_tcp": 9}
_OBJECT_PARTS = ("objects", "objects_in_tcp")
_POSE_SPREAD = (0.02,) * 3 + (0.1,) * 6
_SPREADS = {
    "tcp": _POSE_SPREAD,
    "joints": (0.1,) * 6,
    "hand": (0.05,) * 6,
    "hand_force": (0.1,) * 6,
}
"""Spread of each number of a part (m, rot6d entries, rad, openings, N) below which it counts as
hardly varying."""

FloatArray = NDArray[np.float32]


class ObservationError(ValueError):
    """An observation that does not hold what the spec asks for."""


class EpisodeArrays(Protocol):
    """The part of an episode that an observation is made of, at every control tick."""

    @property
    def tcp(self) -> Array: ...
    @property
    def joints(self) -> Array: ...
    @property
    def hand(self) -> Array: ...
    @property
    def hand_force(self) -> Array: ...
    @property
    def object_names(self) -> tuple[str, ...]: ...
    @property
    def objects(self) -> Array: ...


@config
class ObservationSpec:
    """Which parts, objects and images make up an observation. The order is the vector's order."""

    parts: tuple[Part, ...] = ("tcp", "hand")
    object_names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    """Camera names; empty for a state policy."""

    def __post_init__(self) -> None:
        for name, values in (("parts", self.parts), ("object_names", self.object_names)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: something is named twice: {', '.join(values)}")
        if self.needs_objects and not self.object_names:
            raise ValueError("object_names: empty, but parts ask for objects; name them")
        if not self.parts and not self.images:
            raise ValueError("parts and images: both empty; a policy must see something")

    @property
    def kind(self) -> str:
        """``state`` or ``vision``."""
        return "vision" if self.images else "state"

    @property
    def needs_objects(self) -> bool:
        return any(part in _OBJECT_PARTS for part in self.parts)

    @property
    def size(self) -> int:
        """D, the length of the vector."""
        counts = {part: len(self.object_names) for part in _OBJECT_PARTS}
        return sum(_SIZES[part] * counts.get(part, 1) for part in self.parts)

    def least_spread(self) -> Array:
        """(D,) standard deviations that normalisation shall not go below.

        What hardly varies in the data, such as a tilt that is held, would otherwise become the
        loudest input as soon as a deployment leaves the data by a degree or a millimetre.
        """
        things = len(self.object_names)
        parts = [_SPREADS.get(part, _POSE_SPREAD * things) for part in self.parts]
        return np.concatenate([np.asarray(part, np.float64) for part in (*parts, ())])

    def describe(self) -> str:
        """One phrase for messages: kind, parts, objects, cameras."""
        words = [f"{self.kind}: {' + '.join(self.parts)}"]
        if self.needs_objects:
            words.append(f"objects {', '.join(self.object_names)}")
        if self.images:
            words.append(f"cameras {', '.join(self.images)}")
        return "; ".join(words)

    def vector(
        self,
        tcp: ArrayLike,
        joints: ArrayLike,
        hand: ArrayLike,
        hand_force: ArrayLike,
        objects: ArrayLike | None = None,
    ) -> FloatArray:
        """The observation vector (..., D), float32.

        ``tcp`` (..., 4, 4) measured in base, ``joints`` (..., 6) rad, ``hand`` (..., 6) openings,
        ``hand_force`` (..., 6) N, ``objects`` (..., n, 7) position + quaternion x y z w in base, in
        the order of ``object_names``.
        """
        pose = np.asarray(tcp, np.float64)
        lead = pose.shape[:-2]
        columns: list[Array] = []
        plain = {"joints": joints, "hand": hand, "hand_force": hand_force}
        for part in self.parts:
            if part == "tcp":
                columns.append(_position_and_rot6d(pose))
            elif part in plain:
                columns.append(np.asarray(plain[part], np.float64))
            else:
                things = self._object_matrices(objects)
                if part == "objects_in_tcp":
                    things = geometry.relative(pose[..., None, :, :], things)
                columns.append(_position_and_rot6d(things).reshape(*lead, -1))
        if not columns:
            return np.zeros((*lead, 0), np.float32)
        return np.concatenate(columns, axis=-1).astype(np.float32)

    def from_live(self, observation: Observation) -> FloatArray:
        """The vector (D,) of a live observation; ObservationError says what is missing."""
        self._require("objects", observation.objects, self.object_names, self.needs_objects)
        self._require("images", observation.images, self.images, bool(self.images))
        objects = None
        if self.needs_objects:
            poses = [observation.objects[name] for name in self.object_names]
            objects = np.stack([np.concatenate([p.position, p.quaternion]) for p in poses])
        robot = observation.robot
        return self.vector(robot.tcp.matrix(), robot.joints, robot.hand, robot.hand_force, objects)

    def from_episode(self, episode: EpisodeArrays) -> FloatArray:
        """The vectors (T, D) of a recorded episode; ObservationError says what is missing."""
        objects = None
        if self.needs_objects:
            self._require("objects", episode.object_names, self.object_names, True)
            index = [episode.object_names.index(name) for name in self.object_names]
            objects = np.asarray(episode.objects, np.float64)[:, index]
        return self.vector(episode.tcp, episode.joints, episode.hand, episode.hand_force, objects)

    def _object_matrices(self, objects: ArrayLike | None) -> Array:
        poses = np.zeros((0, 7)) if objects is None else np.asarray(objects, np.float64)
        if poses.shape[-2:] != (len(self.object_names), 7):
            raise ObservationError(
                f"objects of shape {poses.shape}, expected (..., {len(self.object_names)}, 7) for "
                f"{', '.join(self.object_names)}"
            )
        return geometry.make_pose(geometry.quaternion_to_matrix(poses[..., 3:]), poses[..., :3])

    def _require(
        self, what: str, present: Sequence[str] | dict, names: Sequence[str], needed: bool
    ) -> None:
        missing = [name for name in names if needed and name not in present]
        if missing:
            raise ObservationError(
                f"the observation has no {what} {', '.join(missing)} (it has "
                f"{', '.join(present) or 'none'}); the model was trained on {self.describe()}"
            )


def _position_and_rot6d(pose: Array) -> Array:
    rotation = geometry.matrix_to_rot6d(pose[..., :3, :3])
    return np.concatenate([pose[..., :3, 3], rotation], axis=-1)
