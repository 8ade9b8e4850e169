"""The motion by which an operator's glove is calibrated, and the recording of it.

The robot's hand shows one posture after the other, the operator copies it with the glove. What was
shown is then known for every glove sample, up to the operator's reaction time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexpie_ros.config import ConfigError, write_json
from dexpie_ros.control.hand_geometry import pinch
from dexpie_ros.control.retargeting import ERGONOMICS, canonical_ergonomics
from dexpie_ros.control.takeover import smoothstep
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.geometry import Array

FORMAT = 1
MOVE_S = 1.0
"""s from one posture to the next"""
HOLD_S = 1.0
"""s that a posture is held"""


def postures() -> dict[str, Array]:
    """The postures shown, openings (6,) by name."""
    shown: dict[str, Array] = {"open": np.ones(6)}
    for index, name in enumerate(HAND_JOINTS):
        shown[name] = np.ones(6)
        shown[name][index] = 0.0
    shown["fist"] = np.zeros(6)
    shown["half"] = np.full(6, 0.5)
    shown["fingers"] = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    shown["thumb across"] = np.array([1.0, 1.0, 1.0, 1.0, 0.3, 0.0])
    shown["pinch index"] = pinch(3)
    shown["pinch middle"] = pinch(2)
    shown["pinch index, others closed"] = pinch(3, others=0.2)
    shown["tripod"] = np.minimum(pinch(3), pinch(2))
    return shown


class CalibrationMotion:
    """A schedule over the postures: ``rounds`` times all of them, each time in another order."""

    def __init__(self, rounds: int = 3, seed: int = 0) -> None:
        shown = postures()
        rng = np.random.default_rng(seed)
        self.names: list[str] = ["open"]
        for _ in range(rounds):
            order = list(shown)[1:]
            rng.shuffle(order)
            self.names += [*order, "open"]
        self._openings = [shown[name] for name in self.names]
        self.duration_s = len(self.names) * (MOVE_S + HOLD_S)

    def openings(self, seconds: float) -> Array:
        """What is shown ``seconds`` after the start: openings (6,)."""
        index = min(max(int(seconds / (MOVE_S + HOLD_S)), 0), len(self.names) - 1)
        before = self._openings[max(index - 1, 0)]
        share = smoothstep((seconds - index * (MOVE_S + HOLD_S)) / MOVE_S)
        return before + share * (self._openings[index] - before)

    def prompt(self, seconds: float) -> str:
        """What to tell the operator."""
        index = min(max(int(seconds / (MOVE_S + HOLD_S)), 0), len(self.names) - 1)
        return f"{index + 1}/{len(self.names)}: {self.names[index]}"


@dataclass(frozen=True, eq=False)
class CalibrationRecording:
    """Glove samples and what was shown at their times."""

    time_ns: NDArray[np.int64]
    """(T,) increasing"""
    ergonomics: Array
    """(T, 20) deg, in the order of `retargeting.ERGONOMICS`"""
    openings: Array
    """(T, 6) shown"""

    def __post_init__(self) -> None:
        count = len(self.time_ns)
        shapes = self.ergonomics.shape, self.openings.shape
        if shapes != ((count, len(ERGONOMICS)), (count, 6)):
            raise ConfigError(
                f"calibration recording: {count} times, ergonomics and openings of shapes {shapes}; "
                f"expected ({count}, {len(ERGONOMICS)}) and ({count}, 6)"
            )
        if not (np.isfinite(self.ergonomics).all() and np.isfinite(self.openings).all()):
            raise ConfigError("calibration recording: holds NaN or infinity; record it again")
        if count and np.any(np.diff(self.time_ns) <= 0):
            raise ConfigError("calibration recording: its times do not increase; record it again")

    def __len__(self) -> int:
        return len(self.time_ns)

    @staticmethod
    def from_samples(
        times_ns: Sequence[int],
        ergonomics: Sequence[Mapping[str, float]],
        openings: Sequence[Array],
        side: str = "right",
    ) -> CalibrationRecording:
        """From glove messages; ConfigError names the values that one of them lacks."""
        rows = []
        for index, sample in enumerate(ergonomics):
            values = canonical_ergonomics(sample, side)
            missing = [name for name in ERGONOMICS if name not in values]
            if missing:
                raise ConfigError(
                    f"calibration recording: sample {index} lacks {', '.join(missing)}; the learned "
                    "retargeting needs all 20 values of the glove"
                )
            rows.append([values[name] for name in ERGONOMICS])
        return CalibrationRecording(
            np.asarray(times_ns, np.int64),
            np.asarray(rows, np.float64).reshape(len(rows), len(ERGONOMICS)),
            np.asarray(openings, np.float64).reshape(len(rows), 6),
        )

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        content = {
            "format": FORMAT,
            "names": list(ERGONOMICS),
            "time_ns": self.time_ns.tolist(),
            "ergonomics": self.ergonomics.round(4).tolist(),
            "openings": self.openings.round(6).tolist(),
        }
        write_json(path, content)

    @staticmethod
    def load(path: str | Path) -> CalibrationRecording:
        """Read it; ConfigError names the file and what is wrong with it."""
        file = Path(path)
        if not file.is_file():
            raise ConfigError(
                f"{file}: no such recording; make one with `dexpie-glove_motion --ros-args -p "
                "output:=FILE` beside a running glove_driver"
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{file}: cannot be read as JSON: {error}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ConfigError(f"{file}: no calibration recording of format {FORMAT}")
        if content.get("names") != list(ERGONOMICS):
            raise ConfigError(f"{file}: `names` are not the glove's 20 values in their order")
        try:
            times = np.array(content["time_ns"], np.int64)
            ergonomics = np.array(content["ergonomics"], np.float64)
            openings = np.array(content["openings"], np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"{file}: time_ns, ergonomics or openings: {error!r}") from None
        try:
            return CalibrationRecording(times, ergonomics, openings)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
