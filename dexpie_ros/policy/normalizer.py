"""Normalisation of actions and of the observation vector, kept beside the weights as JSON.

Actions: one isotropic scale for position, so that turning the frame changes nothing; rotation as it
is; hand ``2h - 1`` (docs/policy.md). The observation vector: mean and standard deviation. The
prefix goes through the same transform as the targets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexpie_ros.config import write_json
from dexpie_ros.geometry import Array
from dexpie_ros.policy.actions import ACTION_CONVENTION, ACTION_DIM, HAND, POSITION

MARGIN = 1.1
"""The largest position of the training windows lies at 1 / MARGIN."""
OBSERVATION_LIMIT = 10.0
"""Normalised observations are clipped here: a stray sensor shall not drive the network anywhere."""
_CONSTANT = 1e-6
_SMALLEST_STD = 1e-3

FloatArray = NDArray[np.float32]


class NormalizerError(ValueError):
    """Statistics that cannot be used; says what to do."""


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Affine maps of actions (15) and of the observation vector (D)."""

    position_scale: float
    """Metres that become 1; 1.0 leaves positions in metres (preset `authors`)."""
    hand_symmetric: bool
    """True: openings become 2h - 1; False: they stay 0 .. 1 (preset `authors`)."""
    mean: Array
    """(D,)"""
    std: Array
    """(D,)"""

    @staticmethod
    def fit(
        vectors: ArrayLike,
        largest_position: float,
        position: str = "isotropic",
        hand_symmetric: bool = True,
        least_spread: ArrayLike = _SMALLEST_STD,
    ) -> Normalizer:
        """From observation vectors (N, D) and the largest |dp| (m) of all training windows.

        ``position`` is ``isotropic`` or ``identity``; ``least_spread`` (D,) or a number: no
        standard deviation is taken to be smaller (`ObservationSpec.least_spread`). Raises NormalizerError where there is nothing
        to fit.
        """
        values = np.asarray(vectors, np.float64)
        if values.ndim != 2 or not len(values):
            raise NormalizerError("normaliser: no training windows; are there any episodes?")
        if not (np.all(np.isfinite(values)) and np.isfinite(largest_position)):
            raise NormalizerError("normaliser: an observation is not finite; repair the episode")
        scale = 1.0
        if position == "isotropic":
            # A robot that never moves has no scale; a millimetre keeps the map invertible.
            scale = max(MARGIN * float(largest_position), 1e-3)
        std = values.std(axis=0)
        std = np.where(std < _CONSTANT, 1.0, np.maximum(std, least_spread))
        return Normalizer(scale, hand_symmetric, values.mean(axis=0), std)

    def actions(self, actions: ArrayLike) -> FloatArray:
        """Actions (..., 15) -> normalised float32 (..., 15)."""
        out = np.array(actions, np.float64)
        out[..., POSITION] /= self.position_scale
        if self.hand_symmetric:
            out[..., HAND] = 2.0 * out[..., HAND] - 1.0
        return out.astype(np.float32)

    def invert_actions(self, normalized: ArrayLike) -> Array:
        """Normalised (..., 15) -> actions (..., 15), float64."""
        out = np.array(normalized, np.float64)
        out[..., POSITION] *= self.position_scale
        if self.hand_symmetric:
            out[..., HAND] = 0.5 * (out[..., HAND] + 1.0)
        return out

    def observation(self, vector: ArrayLike) -> FloatArray:
        """Observation vectors (..., D) -> normalised float32 (..., D)."""
        values = np.asarray(vector, np.float64)
        if values.shape[-1:] != self.mean.shape:
            raise NormalizerError(
                f"observation of {values.shape[-1]} numbers, the policy was trained on "
                f"{len(self.mean)}; use the same parts and objects as in training"
            )
        scaled = (values - self.mean) / self.std
        return np.clip(scaled, -OBSERVATION_LIMIT, OBSERVATION_LIMIT).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return {
            "convention": ACTION_CONVENTION,
            "action_dim": ACTION_DIM,
            "position_scale": self.position_scale,
            "hand_symmetric": self.hand_symmetric,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
        }

    @staticmethod
    def from_dict(values: dict[str, Any], where: str = "normaliser") -> Normalizer:
        """Inverse of :meth:`to_dict`; NormalizerError names ``where`` and what is wrong."""
        if values.get("convention") != ACTION_CONVENTION:
            raise NormalizerError(
                f"{where}: actions are {values.get('convention')!r}, this version reads "
                f"{ACTION_CONVENTION!r}; convert the data and train again"
            )
        try:
            mean, std = (np.asarray(values[k], np.float64) for k in ("mean", "std"))
            scale, symmetric = float(values["position_scale"]), bool(values["hand_symmetric"])
        except (KeyError, TypeError, ValueError) as error:
            raise NormalizerError(f"{where}: broken: {error!r}; copy it anew") from None
        usable = mean.ndim == 1 and mean.shape == std.shape and bool(np.all(std > 0)) and scale > 0
        if not usable or not np.all(np.isfinite(mean)):
            raise NormalizerError(f"{where}: mean, std and scale do not fit; copy it anew")
        return Normalizer(scale, symmetric, mean, std)

    def save(self, path: str | Path) -> None:
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: str | Path) -> Normalizer:
        """Read what :meth:`save` wrote; NormalizerError names the file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NormalizerError(f"{path}: no such file; copy the whole policy folder") from None
        except (OSError, ValueError) as error:
            raise NormalizerError(f"{path}: cannot be read: {error}") from None
        if not isinstance(values, dict):
            raise NormalizerError(f"{path}: holds no JSON object; copy it anew")
        return Normalizer.from_dict(values, str(path))
