"""Glove ergonomics (degrees) -> hand openings 0 closed .. 1 open, linear per channel.

Each channel of the hand follows one joint angle of the glove between two reference values, measured
with the hand held open and closed. The open value may be the larger or the smaller one, so sign and
side need no special case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from pydantic import Field

from dexpie_ros.config import ConfigError, Finite, config, from_dict
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

SMALLEST_RANGE_DEG = 10.0
"""Reference values nearer to each other than this are a failed calibration, not a hand."""

ERGONOMICS = tuple(
    name
    for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky")
    for name in (
        "ThumbMCPSpread" if finger == "Thumb" else f"{finger}Spread",
        f"{finger}MCPStretch",
        f"{finger}PIPStretch",
        f"{finger}DIPStretch",
    )
)
"""The 20 values of one glove as the vendor's ROS 2 package names them, thumb first."""

_PREFIX = re.compile(r"^(?:ErgonomicsDataType_)?(?:(Left|Right)Finger)?")


@config
class Channel:
    """One channel of the hand."""

    ergonomics: str
    """the glove's value that it follows"""
    open_deg: Finite
    closed_deg: Finite

    def __post_init__(self) -> None:
        if self.ergonomics not in ERGONOMICS:
            raise ConfigError(
                f"ergonomics {self.ergonomics!r} is not a glove value; one of {', '.join(ERGONOMICS)}"
            )
        if not abs(self.open_deg - self.closed_deg) >= SMALLEST_RANGE_DEG:
            raise ConfigError(
                f"{self.ergonomics}: open {self.open_deg} and closed {self.closed_deg} deg differ by "
                f"less than {SMALLEST_RANGE_DEG:.0f} deg; calibrate the glove again"
            )


@config
class RetargetingConfig:
    """The six channels; defaults for an uncalibrated right hand."""

    little: Channel = Field(default_factory=lambda: Channel("PinkyMCPStretch", 5.0, 70.0))
    ring: Channel = Field(default_factory=lambda: Channel("RingMCPStretch", 10.0, 80.0))
    middle: Channel = Field(default_factory=lambda: Channel("MiddleMCPStretch", 10.0, 85.0))
    index: Channel = Field(default_factory=lambda: Channel("IndexMCPStretch", 5.0, 90.0))
    thumb_bend: Channel = Field(default_factory=lambda: Channel("ThumbMCPStretch", -10.0, 60.0))
    thumb_rotation: Channel = Field(default_factory=lambda: Channel("ThumbMCPSpread", 35.0, -5.0))

    def channels(self) -> tuple[Channel, ...]:
        """In the hand's own order."""
        return tuple(getattr(self, name) for name in HAND_JOINTS)


@lru_cache(maxsize=1024)
def canonical_name(name: str) -> tuple[str, str]:
    """The vendor's ROS 2 name of an ergonomics value and the side that it names ("" without one).

    Older interfaces write ``LeftFingerThumbMCPSpread`` or ``IndexMCPSpread``; the same value is
    ``ThumbMCPSpread`` and ``IndexSpread`` here.
    """
    found = _PREFIX.match(name)
    side = (found.group(1) or "").lower() if found else ""
    short = name[found.end() :] if found else name
    if short.endswith("Spread"):
        finger = short.removesuffix("Spread").removesuffix("MCP")
        short = "ThumbMCPSpread" if finger == "Thumb" else f"{finger}Spread"
    return short, side


def canonical_ergonomics(ergonomics: Mapping[str, float], side: str = "") -> dict[str, float]:
    """Values under their canonical names; entries that name the other side are left out."""
    values: dict[str, float] = {}
    for name, value in ergonomics.items():
        short, of_side = canonical_name(name)
        if not (side and of_side and of_side != side.lower()):
            values[short] = float(value)
    return values


class LinearRetargeting:
    """Linear map per channel, clipped to 0 .. 1."""

    def __init__(self, settings: RetargetingConfig | None = None) -> None:
        channels = (settings or RetargetingConfig()).channels()
        self.names = tuple(channel.ergonomics for channel in channels)
        self._closed = np.array([channel.closed_deg for channel in channels])
        self._range = np.array([channel.open_deg for channel in channels]) - self._closed

    def __call__(self, ergonomics: Mapping[str, float]) -> Array:
        """Canonical ergonomics in degrees -> openings (6,).

        Raises ValueError naming the values that are missing or not finite.
        """
        degrees = np.array([ergonomics.get(name, np.nan) for name in self.names], np.float64)
        if not np.isfinite(degrees).all():
            bad = [n for n, v in zip(self.names, degrees, strict=True) if not np.isfinite(v)]
            raise ValueError(f"glove: missing or not finite: {', '.join(bad)}")
        openings: Array = np.clip((degrees - self._closed) / self._range, 0.0, 1.0)
        return openings

    def inverse(self, hand: Array) -> dict[str, float]:
        """The degrees that :meth:`__call__` maps to ``hand`` (6,): for simulated operators."""
        degrees = self._closed + np.asarray(hand, np.float64) * self._range
        return {name: float(value) for name, value in zip(self.names, degrees, strict=True)}


def calibrate(
    open_hand: Sequence[Mapping[str, float]], closed_hand: Sequence[Mapping[str, float]]
) -> RetargetingConfig:
    """Reference values from samples of the open hand and of the closed one (fist, thumb across).

    Takes medians of the default channels' values. Raises ValueError where samples are missing and
    ConfigError where a range is too small to be a hand's.
    """
    if not open_hand or not closed_hand:
        raise ValueError("glove calibration: no samples; hold each pose for about a second")
    defaults, channels = RetargetingConfig(), {}
    for joint in HAND_JOINTS:
        name = getattr(defaults, joint).ergonomics
        try:
            opened = float(np.median([canonical_ergonomics(s)[name] for s in open_hand]))
            closed = float(np.median([canonical_ergonomics(s)[name] for s in closed_hand]))
        except KeyError:
            raise ValueError(f"glove calibration: a sample has no {name}") from None
        channels[joint] = {"ergonomics": name, "open_deg": opened, "closed_deg": closed}
    return from_dict(RetargetingConfig, channels, "glove calibration")
