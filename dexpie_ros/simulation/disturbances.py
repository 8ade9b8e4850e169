"""Things that go wrong by themselves: the held object slips or is knocked out, or is nudged away.

Everything about them is drawn when the scene is reset, so two policies on the same seed meet the
same disturbances. They act through an external force on the handled body, which is part of
MuJoCo's state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dexpie_ros.config import config
from dexpie_ros.geometry import Array

Kind = Literal["slip", "drop", "pose_error"]
_KINDS: tuple[Kind, ...] = ("slip", "drop", "pose_error")
_SLIP_N = 6.0
_DROP_N_PER_STEP = 15.0
_TICKS = {"slip": 6, "drop": 10, "pose_error": 6}


@config
class DisturbanceConfig:
    """Probability of each disturbance in an episode (at most once each), and its strength."""

    slip: float = 0.0
    """A pull on the object while it is carried."""
    drop: float = 0.0
    """A pull that grows until the hand has lost the object."""
    pose_error: float = 0.0
    """A sideways push at the object's foot, so that it slides, while the hand approaches it."""
    strength: float = 1.0
    """Scales all forces."""

    def __post_init__(self) -> None:
        for name in (*_KINDS, "strength"):
            value = getattr(self, name)
            if not 0 <= value <= (1 if name in _KINDS else 10):
                raise ValueError(f"disturbances.{name} = {value}: expected a value in 0..1")


@dataclass(frozen=True)
class Event:
    """One disturbance of this episode."""

    kind: Kind
    delay: int
    """Steps between the moment that it could happen and the moment that it does."""
    direction: float
    """rad, about the vertical."""
    progress: int = 0
    """Steps since its condition first held; the force acts in [delay, delay + duration)."""


def draw(config: DisturbanceConfig, rng: np.random.Generator) -> tuple[Event, ...]:
    """The disturbances of one episode. Draws the same number of values whatever the config."""
    events = []
    for kind in _KINDS:
        happens = rng.uniform() < getattr(config, kind)
        event = Event(kind, int(rng.integers(3, 16)), float(rng.uniform(0, 2 * np.pi)))
        if happens:
            events.append(event)
    return tuple(events)


def advance(
    events: tuple[Event, ...],
    lifted: bool,
    near: bool,
    held: bool,
    mass: float,
    strength: float,
    acceleration: float,
) -> tuple[tuple[Event, ...], Array, Array]:
    """Events one step on, and the forces (3,) in N that act on the object in this step: on its
    centre of mass, and on its foot.

    ``lifted``: in the hand and off the ground; ``near``: the hand is close; ``held``: the hand
    touches it; ``mass`` in kg; ``acceleration`` of a push in m/s².
    """
    force, push = np.zeros(3), np.zeros(3)
    moved = []
    for event in events:
        possible = near and not lifted if event.kind == "pose_error" else lifted
        step = event.progress + 1 if event.progress or possible else 0
        acting = step - event.delay
        if event.kind == "drop" and acting > 1 and not held:
            acting = _TICKS["drop"] + 1  # it is out of the hand: over
            step = event.delay + acting
        moved.append(replace(event, progress=step))
        if 0 < acting <= _TICKS[event.kind]:
            if event.kind == "pose_error":
                size = strength * acceleration * mass
                push += size * np.array([np.cos(event.direction), np.sin(event.direction), 0.0])
            elif event.kind == "drop":
                force[2] -= strength * _DROP_N_PER_STEP * acting
            else:
                force[2] -= strength * _SLIP_N
    return tuple(moved), force, push
