"""All topics of a bag on the control steps: what an :class:`Episode` is made of, without its
description. Nothing is filled in silently; ``problems`` says what is missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS, STEP_NS
from dexpie_ros.episodes import streams
from dexpie_ros.episodes.align import AlignConfig, Held, Times, hold, interpolate_poses
from dexpie_ros.episodes.bag_reader import BagReader
from dexpie_ros.episodes.episode import Bool, EpisodeError
from dexpie_ros.episodes.episode_file import recorded_start
from dexpie_ros.episodes.images import RecordedImages
from dexpie_ros.geometry import Array

STEP, TCP, JOINTS, HAND = (
    "/control/step",
    "/arm/tcp_pose",
    "/arm/joint_states",
    "/hand/joint_states",
)
SIMULATION = "/simulation/state"
EVENTS = ("/session/events", "/simulation/events")
_MAX_GAP_STEPS = 25
"""More lost control steps in a row than this are not bridged: the episode ends there."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Arrays by the names of :class:`Episode`, and what was wrong with the bag."""

    arrays: dict[str, NDArray]
    object_names: tuple[str, ...]
    events: tuple[tuple[int, str], ...]
    cameras: dict[str, RecordedImages]
    partial: bool
    problems: tuple[str, ...]
    align: AlignConfig


def align_bag(bag: BagReader, settings: AlignConfig) -> Aligned:
    """Align a bag. EpisodeError names file, topic and remedy where that cannot be done rightly."""
    start_ns = _start(bag)
    _require_streams(bag)
    problems = list(bag.problems)
    steps = streams.read_steps(bag, STEP, start_ns)
    grid = _Grid(steps, settings, bag.path, problems)
    onto = _Onto(bag, settings, grid.times, grid.missing.copy(), problems)

    poses = streams.read_poses(bag, TCP)
    tcp, late, lost = interpolate_poses(
        poses.stamps - settings.latency_ns(TCP),
        poses.position,
        poses.quaternion,
        grid.times,
        settings,
    )
    onto.judge(TCP, late, lost)
    arm = streams.read_joints(bag, JOINTS, ARM_JOINTS)
    (joints,) = onto.hold(JOINTS, arm.stamps, arm.position)
    fingers = streams.read_hand(bag, HAND, HAND_JOINTS)
    hand, force = onto.hold(HAND, fingers.stamps, fingers.position, fingers.effort)
    names: tuple[str, ...] = ()
    objects, contact = np.zeros((len(grid.times), 0, 7)), np.zeros(len(grid.times), bool)
    if len(bag.messages.get(SIMULATION, ())):
        world = streams.read_simulation(bag, SIMULATION)
        names = world.names
        objects, touch = onto.hold(
            SIMULATION, world.stamps, world.poses, world.contact.astype(np.float64)
        )
        contact = touch == 1.0
    cameras = {name: images for name in CAMERAS if (images := onto.camera(name)) is not None}
    late_steps = int(np.count_nonzero(onto.flags & ~grid.missing))
    if late_steps:
        problems.append(f"{bag.path}: {late_steps} of {len(grid.times)} steps out of tolerance")
    command, proposal, human = (
        np.where(grid.missing[:, None], np.nan, rows[grid.row])
        for rows in (steps.command, steps.proposal, steps.human)
    )
    arrays: dict[str, NDArray] = {
        "time_ns": grid.times,
        "tick": grid.tick,
        "tcp": tcp,
        "joints": joints,
        "hand": hand,
        "hand_force": force,
        "source": steps.source[grid.row],
        "mode": steps.mode[grid.row],
        "stalls": steps.stalls[grid.row],
        "command_tcp": _tcp(command),
        "command_hand": command[:, 7:],
        "proposal_tcp": _tcp(proposal),
        "proposal_hand": proposal[:, 7:],
        "human_tcp": _tcp(human),
        "human_hand": human[:, 7:],
        "objects": objects,
        "contact": contact,
        "flags": onto.flags,
    }
    return Aligned(
        arrays=arrays,
        object_names=names,
        events=_events(bag, start_ns),
        cameras=cameras,
        partial=grid.cut or not bag.indexed or bool(bag.problems),
        problems=tuple(problems),
        align=settings,
    )


def _start(bag: BagReader) -> int:
    start_ns = recorded_start(bag.metadata, bag.path.parent)
    if start_ns is None:
        raise EpisodeError(
            f"{bag.path}: neither a sound description in the bag nor an episode.json beside it: either "
            "recorded by another program, and no episode, or episode.json must be restored from a backup"
        )
    return start_ns


def _require_streams(bag: BagReader) -> None:
    missing = [t for t in (STEP, TCP, JOINTS, HAND) if not len(bag.messages.get(t, ()))]
    if missing:
        recorded = ", ".join(sorted(t for t, s in bag.messages.items() if len(s))) or "nothing"
        raise EpisodeError(
            f"{bag.path}: no messages on {', '.join(missing)} (recorded: {recorded}); "
            "without them there are no control steps to align, so discard the episode"
            + "".join(f"; {problem}" for problem in bag.problems[:3])
        )


def _events(bag: BagReader, start_ns: int) -> tuple[tuple[int, str], ...]:
    """What was said during the episode, in order."""
    # What is said of the first step may be logged a moment before it.
    return tuple(
        sorted(
            (at, text)
            for topic in EVENTS
            if topic in bag.messages
            for logged, text in streams.read_texts(bag, topic)
            if (at := _event_time(logged, text)) >= start_ns - STEP_NS
        )
    )


class _Grid:
    """Rows of the episode: consecutive ticks. A lost control step keeps its row, flagged, its
    commands NaN, source and mode those of the step before.
    """

    def __init__(
        self, steps: streams.Steps, settings: AlignConfig, path: Path, problems: list[str]
    ) -> None:
        jumps = np.diff(steps.tick)
        drift = np.abs(np.diff(steps.stamps) - jumps * STEP_NS)
        broken = (jumps > _MAX_GAP_STEPS) | (drift > settings.lost_ms * 1e6)
        ends = np.flatnonzero(broken)
        self.cut = len(ends) > 0
        stop = int(ends[0]) + 1 if self.cut else len(steps.tick)
        if self.cut:
            problems.append(
                f"{path}: {STEP}: after tick {steps.tick[stop - 1]} comes {steps.tick[stop]}, "
                f"{(steps.stamps[stop] - steps.stamps[stop - 1]) / 1e9:.3f} s later; the "
                f"{len(steps.tick) - stop} steps from there on are left out"
            )
        if steps.uncounted:
            self.cut = True
            problems.append(
                f"{path}: {STEP}: the arbiter was started anew; the {steps.uncounted} steps since then "
                "are left out"
            )
        ticks, stamps = steps.tick[:stop], steps.stamps[:stop]
        self.tick: NDArray[np.int64] = np.arange(ticks[0], ticks[-1] + 1)
        self.row = np.searchsorted(ticks, self.tick, side="right") - 1
        self.missing: Bool = ticks[self.row] != self.tick
        # Exact where the step was recorded; in between evenly spread.
        self.times: Times = stamps[self.row].copy()
        if self.missing.any():
            between = np.interp(
                self.tick[self.missing], ticks, (stamps - stamps[0]).astype(np.float64)
            )
            self.times[self.missing] = stamps[0] + np.rint(between).astype(np.int64)
            problems.append(f"{path}: {STEP}: {self.missing.sum()} of {len(self.tick)} steps lost")


@dataclass(frozen=True, eq=False)
class _Onto:
    """Puts one stream after the other onto the steps and collects flags and problems."""

    bag: BagReader
    settings: AlignConfig
    times: Times
    flags: Bool
    problems: list[str]

    def judge(self, topic: str, late: Bool, lost: Bool) -> None:
        """Flag late steps; EpisodeError where most of the episode has no sample at all."""
        self.flags[late | lost] = True
        if lost.any():
            if lost.mean() > 0.5:
                raise EpisodeError(
                    f"{self.bag.path}: {topic}: no sample near {lost.sum()} of {len(lost)} control "
                    "steps; its clock differs from the arbiter's or it stopped; exclude the episode"
                )
            self.problems.append(
                f"{self.bag.path}: {topic}: lost at {lost.sum()} of {len(lost)} steps (NaN)"
            )

    def hold(self, topic: str, stamps: Times, *values: Array) -> list[Array]:
        """The values in force at each step; NaN where lost."""
        held = self._held(topic, stamps)
        self.judge(topic, held.late, held.lost)
        result = [value[held.index] for value in values]
        for value in result:
            value[held.lost] = np.nan
        return result

    def camera(self, name: str) -> RecordedImages | None:
        base = f"/camera/{name}/color/image_raw"
        for topic in (f"{base}/compressed", base):
            if len(self.bag.messages.get(topic, ())):
                pictures = streams.read_pictures(self.bag, topic)
                held = self._held(topic, pictures.stamps)
                if held.lost.mean() > 0.5:
                    # The rest of the episode is sound; who needs these images is told they are not.
                    self.problems.append(
                        f"{self.bag.path}: {topic}: no picture near {held.lost.sum()} of "
                        f"{len(held.lost)} control steps; this camera is left out"
                    )
                    return None
                self.judge(topic, held.late, held.lost)
                rows = held.index
                where = f"{self.bag.path}: {topic}"
                shape = pictures.raw_shape
                return RecordedImages(where, pictures.encoded, rows, pictures.stamps, shape)
        return None

    def _held(self, topic: str, stamps: Times) -> Held:
        return hold(stamps - self.settings.latency_ns(topic), self.times, self.settings)


def _tcp(rows: Array) -> Array:
    """Position and quaternion of command rows (n, 13) -> poses (n, 4, 4); NaN where absent."""
    poses = np.full((len(rows), 4, 4), np.nan)
    there = ~np.isnan(rows[:, 0])
    poses[there] = geometry.make_pose(
        geometry.quaternion_to_matrix(rows[there, 3:7]), rows[there, :3]
    )
    return poses


def _event_time(log_time_ns: int, text: str) -> int:
    """The stamp inside a JSON event (``time_ns``), else the time at which it was logged."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return log_time_ns
    stamp = value.get("time_ns") if isinstance(value, dict) else None
    return stamp if type(stamp) is int else log_time_ns
