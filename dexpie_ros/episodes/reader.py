"""``read_episode``: a bag directory -> :class:`Episode`, or an error that says what to do.

A recording that was cut off or damaged gives an episode with ``partial`` set and ``problems`` in
words. Nothing is filled in silently: steps that rest on old samples or that were lost themselves
are flagged.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import geometry
from dexpie_ros.contract import CAMERAS
from dexpie_ros.control.types import ARM_JOINTS, HAND_JOINTS, STEP_NS
from dexpie_ros.episodes import streams
from dexpie_ros.episodes.align import AlignConfig, Held, Times, hold, interpolate_poses
from dexpie_ros.episodes.annotations import apply, intervention_rows, read_annotations
from dexpie_ros.episodes.bag_reader import BagReader, find_bag
from dexpie_ros.episodes.episode import Bool, Episode, EpisodeError, EpisodeInfo, ImageSequence
from dexpie_ros.episodes.episode_file import (
    RECORD_NAME,
    EpisodeFile,
    from_record,
    read_episode_file,
)
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


def read_episode(directory: str | Path, settings: AlignConfig | None = None) -> Episode:
    """Read and align one episode. EpisodeError names file, topic and remedy."""
    settings = settings or AlignConfig()
    bag = BagReader(find_bag(directory))
    missing = [t for t in (STEP, TCP, JOINTS, HAND) if not len(bag.messages.get(t, ()))]
    if missing:
        recorded = ", ".join(sorted(t for t, s in bag.messages.items() if len(s))) or "nothing"
        raise EpisodeError(
            f"{bag.path}: no messages on {', '.join(missing)} (recorded: {recorded}); "
            "without them there are no control steps to align, so discard the episode"
            + "".join(f"; {problem}" for problem in bag.problems)
        )
    problems = list(bag.problems)
    steps = streams.read_steps(bag, STEP)
    grid = _Grid(steps, settings, bag.path, problems)
    times, flags = grid.times, grid.missing.copy()

    poses = streams.read_poses(bag, TCP)
    tcp, late, lost = interpolate_poses(
        poses.stamps - settings.latency_ns(TCP), poses.position, poses.quaternion, times, settings
    )
    _judge(bag, TCP, late, lost, flags, problems)
    arm = streams.read_joints(bag, JOINTS, ARM_JOINTS)
    (joints,) = _held(bag, JOINTS, arm.stamps, [arm.position], times, settings, flags, problems)
    fingers = streams.read_joints(bag, HAND, HAND_JOINTS)
    hand, force = _held(
        bag,
        HAND,
        fingers.stamps,
        [fingers.position, fingers.effort],
        times,
        settings,
        flags,
        problems,
    )
    names: tuple[str, ...] = ()
    objects, contact = np.zeros((len(times), 0, 7)), np.zeros(len(times), bool)
    if len(bag.messages.get(SIMULATION, ())):
        world = streams.read_simulation(bag, SIMULATION)
        names = world.names
        objects, touch = _held(
            bag, SIMULATION, world.stamps, [world.poses, world.contact.astype(np.float64)],
            times, settings, flags, problems,
        )  # fmt: skip
        contact = touch == 1.0
    cameras = {
        name: images
        for name in CAMERAS
        if (images := _camera(bag, name, times, settings, flags, problems)) is not None
    }
    late_steps = int(np.count_nonzero(flags & ~grid.missing))
    if late_steps:
        problems.append(f"{bag.path}: {late_steps} of {len(times)} steps out of tolerance")
    events = [
        e for topic in EVENTS if topic in bag.messages for e in streams.read_texts(bag, topic)
    ]
    description, partial = _info(directory, bag, problems)
    annotation = read_annotations(directory).current
    info = apply(description, annotation)
    proposal = _absent(steps.proposal[grid.row], grid.missing)
    human = _absent(steps.human[grid.row], grid.missing)
    return Episode(
        info=info,
        path=Path(directory),
        time_ns=times,
        tick=grid.tick,
        tcp=tcp,
        joints=joints,
        hand=hand,
        hand_force=force,
        source=steps.source[grid.row],
        mode=steps.mode[grid.row],
        stalls=steps.stalls[grid.row],
        command_tcp=_tcp(steps.command[grid.row]),
        command_hand=steps.command[grid.row, 7:],
        proposal_tcp=_tcp(proposal),
        proposal_hand=proposal[:, 7:],
        human_tcp=_tcp(human),
        human_hand=human[:, 7:],
        object_names=names,
        objects=objects,
        contact=contact,
        flags=flags,
        events=tuple(sorted((_event_time(t, text), text) for t, text in events)),
        cameras=cameras,
        stages=tuple(annotation.stages or ()),
        intervention=intervention_rows(annotation, times),
        partial=partial or grid.cut or not bag.indexed or bool(bag.problems),
        problems=tuple(problems),
    )


class _Grid:
    """Rows of the episode: consecutive ticks. A lost control step keeps its row, flagged, with the
    command before it, which is what the robot went on doing.
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


def _judge(
    bag: BagReader, topic: str, late: Bool, lost: Bool, flags: Bool, problems: list[str]
) -> None:
    """Flag late steps; EpisodeError where most of the episode has no sample at all."""
    flags |= late | lost
    if lost.any():
        if lost.mean() > 0.5:
            raise EpisodeError(
                f"{bag.path}: {topic}: no sample near {lost.sum()} of {len(lost)} control steps; "
                "its clock differs from the arbiter's or it stopped; exclude the episode"
            )
        problems.append(f"{bag.path}: {topic}: lost at {lost.sum()} of {len(lost)} steps (NaN)")


def _held(
    bag: BagReader,
    topic: str,
    stamps: Times,
    values: list[Array],
    times: Times,
    settings: AlignConfig,
    flags: Bool,
    problems: list[str],
) -> list[Array]:
    held = _hold(bag, topic, stamps, times, settings, flags, problems)
    result = [value[held.index] for value in values]
    for value in result:
        value[held.lost] = np.nan
    return result


def _hold(
    bag: BagReader,
    topic: str,
    stamps: Times,
    times: Times,
    settings: AlignConfig,
    flags: Bool,
    problems: list[str],
) -> Held:
    held = hold(stamps - settings.latency_ns(topic), times, settings)
    _judge(bag, topic, held.late, held.lost, flags, problems)
    return held


def _camera(
    bag: BagReader, name: str, times: Times, settings: AlignConfig, flags: Bool, problems: list[str]
) -> ImageSequence | None:
    base = f"/camera/{name}/color/image_raw"
    topic = next((t for t in (f"{base}/compressed", base) if len(bag.messages.get(t, ()))), None)
    if topic is None:
        return None
    pictures = streams.read_pictures(bag, topic)
    held = _hold(bag, topic, pictures.stamps, times, settings, flags, problems)
    return RecordedImages(
        f"{bag.path}: {topic}", pictures.encoded, held.index, pictures.stamps, pictures.raw_shape
    )


def _tcp(rows: Array) -> Array:
    """Position and quaternion of command rows (n, 13) -> poses (n, 4, 4); NaN where absent."""
    poses = np.full((len(rows), 4, 4), np.nan)
    there = ~np.isnan(rows[:, 0])
    poses[there] = geometry.make_pose(
        geometry.quaternion_to_matrix(rows[there, 3:7]), rows[there, :3]
    )
    return poses


def _absent(rows: Array, missing: Bool) -> Array:
    return np.where(missing[:, None], np.nan, rows)


def _event_time(log_time_ns: int, text: str) -> int:
    """The stamp inside a JSON event (``time_ns``), else the time at which it was logged."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return log_time_ns
    stamp = value.get("time_ns") if isinstance(value, dict) else None
    return stamp if type(stamp) is int else log_time_ns


def _info(directory: str | Path, bag: BagReader, problems: list[str]) -> tuple[EpisodeInfo, bool]:
    """The description: from episode.json, else from the bag; and whether it says unfinished."""
    content: EpisodeFile | None = None
    try:
        content = read_episode_file(directory)
    except EpisodeError as error:
        problems.append(str(error))
    if content is None:
        for name, record in reversed(bag.metadata):
            if name == RECORD_NAME:
                content = from_record(record, str(bag.path))
                break
    if content is None:
        raise EpisodeError(
            f"{directory}: neither episode.json nor a description in the bag; a bag of another "
            "program is read with `dexpie episodes import`"
        )
    unfinished = content.status == "recording"
    if unfinished:
        problems.append(
            f"{directory}: the recording was never finished; `dexpie episodes repair` makes it whole"
        )
    return content.info, unfinished or content.status == "repaired"
