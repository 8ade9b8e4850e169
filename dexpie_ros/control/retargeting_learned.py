"""Learned hand retargeting in two stages (DexHiL), numpy at run time.

Stage 1: each of the four fingers follows a linear map of its base joint plus a bounded correction
that its own three joints decide. Stage 2: the four fingers are frozen, and the thumb's two channels
get a bounded correction that knows the thumb's joints and where the four fingers went. Corrections
are bounded by a tanh, so that no glove value can drive the hand far from the linear map.

The same forward pass serves numpy here and torch in `training.retarget`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from dexpie_ros.config import ConfigError, from_dict, to_dict, write_atomic, write_json
from dexpie_ros.control.retargeting import ERGONOMICS, RetargetingConfig
from dexpie_ros.geometry import Array

FORMAT = 1
SETTINGS_FILE = "retargeting.json"
WEIGHTS_FILE = "retargeting.safetensors"

FINGERS = ("Pinky", "Ring", "Middle", "Index")
FINGER_INPUTS = tuple(
    tuple(f"{f}{joint}Stretch" for joint in ("MCP", "PIP", "DIP")) for f in FINGERS
)
THUMB_INPUTS = ("ThumbMCPSpread", "ThumbMCPStretch", "ThumbPIPStretch", "ThumbDIPStretch")
INPUTS = (*(name for names in FINGER_INPUTS for name in names), *THUMB_INPUTS)
"""The 16 glove values that are used, in the order of the networks' inputs."""
COLUMNS = tuple(ERGONOMICS.index(name) for name in INPUTS)
"""Where they are among the glove's 20 values."""
ANGLE_SCALE = 45.0
"""deg: inputs are (angle - ANGLE_SCALE) / ANGLE_SCALE"""
STAGE_1 = ("finger_in", "finger_in_bias", "finger_out", "finger_out_bias")
STAGE_2 = ("thumb_in", "thumb_in_bias", "thumb_out", "thumb_out_bias")


def weight_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight: four finger networks side by side, and one of the thumb."""
    return {
        "finger_in": (4, 3, hidden),
        "finger_in_bias": (4, 1, hidden),
        "finger_out": (4, hidden, 1),
        "finger_out_bias": (4, 1, 1),
        "thumb_in": (8, hidden),
        "thumb_in_bias": (hidden,),
        "thumb_out": (hidden, 2),
        "thumb_out_bias": (2,),
    }


def linear_openings(degrees: Any, closed: Any, travel: Any) -> Any:
    """The linear map that the corrections are added to: (T, 16) deg -> openings (T, 6), unclipped.

    ``closed`` and ``travel`` (6,) are the channels' reference values; the channels follow the base
    joints of the fingers and the thumb's stretch and spread.
    """
    base = degrees[:, [0, 3, 6, 9, 13, 12]]
    return (base - closed) / travel


def finger_corrections(weights: Mapping[str, Any], inputs: Any, bound: float, xp: Any) -> Any:
    """Stage 1: scaled inputs (T, 16) -> corrections (T, 4)."""
    own = xp.stack([inputs[:, 3 * f : 3 * f + 3] for f in range(4)], 0)
    hidden = xp.tanh(own @ weights["finger_in"] + weights["finger_in_bias"])
    out = hidden @ weights["finger_out"] + weights["finger_out_bias"]
    return bound * xp.tanh(out[:, :, 0]).T


def thumb_corrections(
    weights: Mapping[str, Any], inputs: Any, fingers: Any, bound: float, xp: Any
) -> Any:
    """Stage 2: scaled inputs (T, 16) and finger openings (T, 4) -> corrections (T, 2)."""
    known = xp.concatenate([inputs[:, 12:16], 2.0 * fingers - 1.0], -1)
    hidden = xp.tanh(known @ weights["thumb_in"] + weights["thumb_in_bias"])
    return bound * xp.tanh(hidden @ weights["thumb_out"] + weights["thumb_out_bias"])


def scaled(degrees: Any) -> Any:
    """Degrees -> network inputs of about -1 .. 1."""
    return (degrees - ANGLE_SCALE) / ANGLE_SCALE


class LearnedRetargeting:
    """Canonical ergonomics in degrees -> openings (6,)."""

    def __init__(
        self,
        linear: RetargetingConfig,
        weights: Mapping[str, Array],
        bound: float,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises ConfigError where the weights or the linear map's joints do not fit."""
        self.linear, self.bound = linear, float(bound)
        self.provenance = dict(provenance or {})
        channels = linear.channels()
        follows = [INPUTS[i] for i in (0, 3, 6, 9, 13, 12)]
        if [channel.ergonomics for channel in channels] != follows:
            raise ConfigError(f"learned retargeting: the channels must follow {', '.join(follows)}")
        shapes = {name: tuple(np.shape(value)) for name, value in weights.items()}
        hidden = shapes.get("thumb_in_bias", ())
        if len(hidden) != 1 or shapes != weight_shapes(hidden[0]):
            raise ConfigError(
                f"learned retargeting: weights of shapes {shapes} do not fit together"
            )
        if not all(np.isfinite(value).all() for value in weights.values()):
            raise ConfigError("learned retargeting: weights hold NaN or infinity; train it again")
        self.weights = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self._closed = np.array([c.closed_deg for c in channels])
        self._travel = np.array([c.open_deg for c in channels]) - self._closed

    def __call__(self, ergonomics: Mapping[str, float]) -> Array:
        """Raises ValueError naming the values that are missing or not finite."""
        degrees = np.array([ergonomics.get(name, np.nan) for name in INPUTS], np.float64)
        if not np.isfinite(degrees).all():
            bad = [n for n, v in zip(INPUTS, degrees, strict=True) if not np.isfinite(v)]
            raise ValueError(f"glove: missing or not finite: {', '.join(bad)}")
        openings: Array = self.openings(degrees[None])[0]
        return openings

    def openings(self, degrees: Array) -> Array:
        """(T, 16) deg in the order of :data:`INPUTS` -> openings (T, 6) within 0 .. 1."""
        inputs = scaled(degrees)
        openings: Array = linear_openings(degrees, self._closed, self._travel)
        openings[:, :4] += finger_corrections(self.weights, inputs, self.bound, np)
        openings[:, :4] = np.clip(openings[:, :4], 0.0, 1.0)
        openings[:, 4:] += thumb_corrections(self.weights, inputs, openings[:, :4], self.bound, np)
        return np.clip(openings, 0.0, 1.0)

    def save(self, directory: str | Path) -> None:
        """Write weights and settings into ``directory``."""
        folder = Path(directory)
        weights = {name: np.ascontiguousarray(value) for name, value in self.weights.items()}
        write_atomic(folder / WEIGHTS_FILE, save(weights))
        settings = {
            "format": FORMAT,
            "bound": self.bound,
            "linear": to_dict(self.linear),
            "provenance": self.provenance,
        }
        write_json(folder / SETTINGS_FILE, settings)

    @staticmethod
    def load(directory: str | Path) -> LearnedRetargeting:
        """Read what :meth:`save` wrote; ConfigError names the file and what is wrong with it."""
        folder = Path(directory)
        file = folder / SETTINGS_FILE
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{file}: no such file; make it with `dexpie train retarget`"
            ) from None
        except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{file}: cannot be read as JSON: {error}") from None
        known = isinstance(settings, dict) and settings.get("format") == FORMAT
        if not known or not isinstance(settings.get("linear"), dict):
            raise ConfigError(f"{file}: no learned retargeting of format {FORMAT}")
        bound = settings.get("bound")
        if not isinstance(bound, (int, float)) or not 0 <= bound <= 1:
            raise ConfigError(f"{file}: bound = {bound!r}; expected a number from 0 to 1")
        linear = from_dict(RetargetingConfig, settings["linear"], str(file))
        try:
            weights = load_file(folder / WEIGHTS_FILE)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{folder / WEIGHTS_FILE}: cannot be read: {error}") from None
        try:
            provenance = settings.get("provenance")
            known_provenance = provenance if isinstance(provenance, dict) else {}
            return LearnedRetargeting(linear, weights, bound, known_provenance)
        except ConfigError as error:
            raise ConfigError(f"{folder}: {error}") from None


def untrained(linear: RetargetingConfig, hidden: int = 16) -> LearnedRetargeting:
    """The linear map with corrections of zero."""
    weights = {name: np.zeros(shape) for name, shape in weight_shapes(hidden).items()}
    return LearnedRetargeting(linear, weights, 0.5)
