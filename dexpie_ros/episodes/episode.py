"""What an episode is: its description (:class:`EpisodeInfo`) and its arrays (:class:`Episode`).

Rows are control steps; every array comes from capture stamps (see :mod:`.align`), nothing from an
index divided by a rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dexpie_ros import config
from dexpie_ros.control.types import KINDS as KINDS  # many know it from here
from dexpie_ros.control.types import Kind, Mode, Source
from dexpie_ros.episodes.align import AlignConfig
from dexpie_ros.geometry import Array

Bool = NDArray[np.bool_]
Outcome = Literal["", "success", "failure", "aborted"]


BRIDGED_STEPS = 25
"""One second. A tracker lost for a tick does not make two interventions of one; a person whose
tracker is gone for longer shows nothing that a policy should learn."""


class EpisodeError(ValueError):
    """An episode that cannot be read or written; the message names file, topic and remedy."""


@config.config
class EpisodeInfo:
    """What is known of an episode besides its messages. Frozen; made anew to change."""

    episode_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$")]
    kind: Kind = "deployment"
    task: str = ""
    stage: str = ""
    seed: int = -1
    """Initial state in simulation; -1: none."""
    policy_id: str = ""
    """Empty: no policy took part."""
    pair_id: str = ""
    """Joins a failed episode and its watched redeployment."""
    outcome: Outcome = ""
    """Empty: not judged, for instance because the recording was cut off."""
    cause: str = ""
    """Of a failure or abortion, for instance ``tipped``, ``timeout``, ``collision``."""
    note: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Anything else, as JSON."""
    created: str = dataclasses.field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    )
    software: dict[str, str] = dataclasses.field(default_factory=dict)
    """Version and commit of the code that recorded it."""
    simulated: bool = False
    use_for_critic: bool = True
    """False where the cause of a failure cannot be seen in what the critic sees."""
    use_for_actor: bool = True


class ImageSequence(Protocol):
    """Images of one camera aligned with the steps of an episode."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """uint8 (height, width, 3) RGB shown at step ``index``."""
        ...

    def shrunk(self, index: int, size: int = 224) -> NDArray[np.uint8]:
        """The same, as networks see it: (size, size, 3)."""
        ...


@dataclass(frozen=True, eq=False)
class Episode:
    """T control steps of one recording, aligned. Poses are 4x4 in ``base``, metres.

    A proposal or a human command that did not exist at a step is NaN in its row; so is the command
    of a control step that was lost, and a measurement that was lost for more than a second. ``flags`` marks the steps at which some
    stream was out of tolerance, ``problems`` says in words what is wrong with the recording and
    ``partial`` that some of it is missing.
    """

    info: EpisodeInfo
    path: Path
    time_ns: NDArray[np.int64]
    """(T,) ROS time of the control steps."""
    tcp: Array
    """(T, 4, 4) measured."""
    joints: Array
    """(T, 6) rad."""
    hand: Array
    """(T, 6) openings, 0 closed .. 1 open."""
    hand_force: Array
    """(T, 6) N."""
    command_tcp: Array
    """(T, 4, 4) executed."""
    command_hand: Array
    """(T, 6) executed."""
    source: NDArray[np.uint8]
    """(T,) :class:`~dexpie_ros.control.types.Source` of the executed command."""
    mode: NDArray[np.uint8]
    """(T,) :class:`~dexpie_ros.control.types.Mode` of the arbiter."""
    proposal_tcp: Array
    proposal_hand: Array
    human_tcp: Array
    human_hand: Array
    object_names: tuple[str, ...] = ()
    objects: Array = field(default_factory=lambda: np.zeros((0, 0, 7)))
    """(T, n, 7) position and quaternion x y z w; simulation only."""
    contact: Bool = field(default_factory=lambda: np.zeros(0, bool))
    """(T,) the hand touches the object; simulation only."""
    flags: Bool = field(default_factory=lambda: np.zeros(0, bool))
    """(T,) some stream was out of tolerance at this step."""
    events: tuple[tuple[int, str], ...] = ()
    """(time_ns, text): what the operator or the session noted, mostly JSON."""
    tick: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(T,) the arbiter's step counter; consecutive."""
    stalls: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(T,) steps so far at which the policy drove but had no action due."""
    cameras: Mapping[str, ImageSequence] = field(default_factory=dict)
    partial: bool = False
    problems: tuple[str, ...] = ()
    intervention: Bool | None = None
    """(T,) corrected human segments from the annotations; None: as recorded."""
    stages: tuple[tuple[int, str], ...] = ()
    """Annotated stage boundaries: (ROS time in ns from which on, name)."""
    align: AlignConfig | None = None
    """How the streams were put onto the steps; None: not from a bag."""

    def __post_init__(self) -> None:
        steps = len(self.time_ns)
        defaults = {
            "objects": lambda: np.zeros((steps, len(self.object_names), 7)),
            "contact": lambda: np.zeros(steps, bool),
            "flags": lambda: np.zeros(steps, bool),
            "tick": lambda: np.arange(steps, dtype=np.int64),
            "stalls": lambda: np.zeros(steps, np.int64),
        }
        for name, make in defaults.items():
            if steps and not len(getattr(self, name)):
                object.__setattr__(self, name, make())
        for name, shape in _SHAPES.items():
            value = getattr(self, name)
            if value.shape != (steps, *shape):
                raise EpisodeError(
                    f"{self.path}: {name} has shape {value.shape}, expected {(steps, *shape)}"
                )
        if self.objects.shape != (steps, len(self.object_names), 7):
            raise EpisodeError(
                f"{self.path}: objects has shape {self.objects.shape}, expected "
                f"{(steps, len(self.object_names), 7)}"
            )

    def __len__(self) -> int:
        return len(self.time_ns)

    @property
    def id(self) -> str:
        return self.info.episode_id

    @property
    def outcome(self) -> Outcome:
        return self.info.outcome

    @property
    def success(self) -> bool:
        return self.info.outcome == "success"

    @property
    def cause(self) -> str:
        return self.info.cause

    @property
    def human(self) -> Bool:
        """(T,) the operator had a hand in the executed command, or held still for a moment because
        their tracker was lost: no more than `BRIDGED_STEPS` between two steps that they drove.
        """
        if self.intervention is not None:
            return self.intervention
        drove = np.isin(self.source, (Source.HUMAN, Source.BLEND))
        steps = np.flatnonzero(drove)
        apart = np.diff(steps) - 1
        for index in np.flatnonzero((apart > 0) & (apart <= BRIDGED_STEPS)):
            gap = slice(steps[index] + 1, steps[index + 1])
            if np.all(self.mode[gap] == Mode.HUMAN):
                drove[gap] = True
        return drove

    @property
    def stage_names(self) -> tuple[str, ...]:
        """(T,) the stage of each step: ``info.stage`` until the first annotated boundary."""
        starts = np.array([time for time, _ in self.stages], np.int64)
        names = (self.info.stage, *(name for _, name in self.stages))
        return tuple(names[i] for i in np.searchsorted(starts, self.time_ns, side="right"))

    def images(self, camera: str) -> ImageSequence:
        """Images of ``front`` or ``wrist``, decoded when looked at; EpisodeError without any."""
        try:
            return self.cameras[camera]
        except KeyError:
            known = ", ".join(self.cameras) or "none"
            raise EpisodeError(
                f"{self.path}: no images of camera {camera}; recorded: {known}"
            ) from None

    def object_index(self, name: str) -> int:
        """Column of an object in ``objects``; EpisodeError if it was not recorded."""
        if name not in self.object_names:
            known = ", ".join(self.object_names) or "none"
            raise EpisodeError(f"{self.path}: no object {name}; recorded: {known}")
        return self.object_names.index(name)


_SHAPES: dict[str, tuple[int, ...]] = {
    "tcp": (4, 4),
    "joints": (6,),
    "hand": (6,),
    "hand_force": (6,),
    "command_tcp": (4, 4),
    "command_hand": (6,),
    "source": (),
    "mode": (),
    "proposal_tcp": (4, 4),
    "proposal_hand": (6,),
    "human_tcp": (4, 4),
    "human_hand": (6,),
    "contact": (),
    "flags": (),
    "tick": (),
    "stalls": (),
}
