"""Who drives the robot at each control step: the policy, the operator, or nobody (it holds).

docs/operation.md says what a person sees of it. One :class:`ControlStep` per 40 ms tick; everything
that happens between two steps (chunks, services, faults) takes effect at the next one. The modes and
their transitions are in `modes`, the operator's anchoring in `takeover`, the limits in `limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.chunks import ChunkExecutor, check_chunk
from dexpie_ros.control.limits import Limiter, LimitsConfig, LimitStatistics
from dexpie_ros.control.modes import DRIVES, Answer, Modes
from dexpie_ros.control.quaternions import distance_and_angle, is_finite
from dexpie_ros.control.takeover import Takeover
from dexpie_ros.control.types import (
    STEP_NS,
    Chunk,
    Command,
    ControlStep,
    Mode,
    RobotState,
    Source,
)

REST = 0.02
"""rad/s of any joint below which a robot stands still."""


@config
class ArbiterConfig:
    """Settings of the arbiter."""

    max_delay: int = Field(4, ge=0)
    """n: largest expected inference delay in steps; length of `upcoming`"""
    blend_seconds: float = Field(0.4, ge=0)
    """the hand goes from the last command to the glove within this time after a takeover"""
    reanchor_seconds: float = Field(0.2, ge=0)
    """an operator who was lost for longer than this is anchored anew where he comes back"""
    follow: Literal["relative", "absolute"] = "relative"
    """relative: motion since the takeover; absolute: the follower is a pose in `base`"""
    approach_seconds: float = Field(2.0, gt=0)
    """absolute mode: time in which the robot comes to the operator's pose after a takeover"""
    require_alignment: bool = True
    """refuse a takeover while the operator is out of the alignment's limits"""
    rebase_distance: float = Field(0.02, gt=0)
    """m; a robot found farther than this from its last command after a hold is taken as it is"""
    rebase_angle: float = Field(0.1, gt=0)
    """rad, likewise"""
    fault_distance: float = Field(0.005, gt=0)
    """m; in FAULT a robot at rest farther than this from its command is held where it is: what
    stopped it may be in the way, and it must not go on when it is recovered"""
    fault_angle: float = Field(0.02, gt=0)
    """rad, likewise"""
    limits: LimitsConfig = Field(default_factory=LimitsConfig)


@dataclass
class EpisodeCounts:
    """Control steps since the episode began."""

    steps: int = 0
    stalls: int = 0
    """the policy drove but had no action due"""
    human_steps: int = 0
    lost_steps: int = 0
    """the operator drove but his devices were silent"""


class Arbiter(Modes):
    """Decides every control step. Not thread-safe: one thread calls it."""

    def __init__(self, settings: ArbiterConfig | None = None) -> None:
        self.config = settings or ArbiterConfig()
        super().__init__(self.config.require_alignment)
        self.executor = ChunkExecutor()
        self.limiter = Limiter(self.config.limits)
        self.counts = EpisodeCounts()
        self._takeover = Takeover(
            self.config.blend_seconds,
            self.config.reanchor_seconds,
            self.config.approach_seconds if self.config.follow == "absolute" else None,
        )
        self._tick = 0
        self._time_ns: int | None = None
        self._fence_ns = 0
        self._initial: Command | None = None
        self._scene_anew = False

    @property
    def last_command(self) -> Command | None:
        """The command of the last step; None before the first."""
        return self.limiter.last

    def statistics(self) -> dict[str, float]:
        """Plain numbers of the running episode: counts, chunks, seams, clipped steps."""
        return {
            "interventions": self.interventions,
            **vars(self.counts),
            **self.executor.statistics.as_dict(),
            **self.limiter.statistics.as_dict(),
        }

    def start(self, kind: str, initial: Command | None = None, scene_anew: bool = False) -> Answer:
        """Begin an episode: counters at zero, the command is the measured pose at the first step,
        with the fingers' last command.

        A demonstration holds until the operator takes over; other kinds hold until the policy's
        first chunk. ``initial`` replaces that where another command is known to be held;
        ``scene_anew`` says that a simulator put the fingers elsewhere, and they are as measured.
        """
        accepted, message = self.begin(kind)
        if accepted:
            self.counts = EpisodeCounts()
            self.executor.reset()
            self.limiter.statistics = LimitStatistics()
            self._initial, self._scene_anew = initial, scene_anew
        return accepted, message

    def stop(self) -> None:
        """End the episode: hold."""
        super().stop()
        self.executor.clear()

    def fault(self, reason: str) -> None:
        """Hold until :meth:`clear_fault`; the first reason stays."""
        super().fault(reason)
        self.executor.clear()

    def add_chunk(self, chunk: Chunk) -> bool:
        """A chunk from the policy; False where it is not used (outdated, or all of it too late).

        A chunk that could not be executed (NaN, wrong shapes) is a fault.
        """
        if self._plan_afresh or chunk.time_ns <= self._fence_ns - STEP_NS:
            # Planned before the episode, hand-back or hold: it does not go on from what is held.
            self.executor.statistics.outdated += 1
            return False
        problem = check_chunk(chunk)
        if problem:
            self.fault(f"the policy's chunk cannot be executed: {problem}")
            return False
        driving = self._mode is Mode.POLICY and not self._waiting
        return self.executor.add(chunk, record_seam=driving)

    def step(
        self,
        time_ns: int,
        robot: RobotState,
        follower: Command | None = None,
        aligned: bool | Alignment | None = None,
    ) -> ControlStep:
        """Decide the step at ``time_ns`` from the measured robot and the operator's follower.

        ``follower`` is None while a device of the operator is lost; ``aligned`` None where nobody
        judges it. ValueError where neither a finite measured pose nor a last command exists.
        """
        self._tick += 1
        if self._time_ns is not None and time_ns <= self._time_ns:
            self.fault(f"the clock went from {self._time_ns} back to {time_ns} ns")
        self._time_ns = time_ns
        if follower is not None and not _commandable(follower):
            follower = None
        self._follower_seen, self._aligned = follower is not None, aligned
        self._carry_out_orders(time_ns, robot)
        proposal = self.executor.command(time_ns)
        if self._mode is Mode.ALIGNING and follower is not None and not self._misalignment():
            self._begin_takeover()
        if self._mode is Mode.HANDING_BACK and proposal is not None:
            self._set(Mode.POLICY, DRIVES[Mode.POLICY])
        source, command, human = Source.HOLD, None, None
        if self._mode is Mode.POLICY:
            source, command = self._policy_step(proposal, robot)
        elif self._mode is Mode.HUMAN:
            source, command, human = self._human_step(time_ns, follower, robot)
        if command is None:
            command = self.limiter.hold()
        self.counts.steps += 1
        return ControlStep(
            time_ns=time_ns,
            tick=self._tick,
            command=command,
            source=source,
            mode=self._mode,
            proposal=proposal,
            human=human,
            upcoming=self._upcoming(time_ns, source, command),
            remaining=self.executor.remaining(time_ns),
            chunk_time_ns=self.executor.chunk.time_ns if self.executor.chunk else 0,
            stalls=self.counts.stalls,
        )

    def _carry_out_orders(self, time_ns: int, robot: RobotState) -> None:
        """What the transitions since the last step asked for."""
        if self._plan_afresh:
            self.executor.clear()
            self._plan_afresh, self._fence_ns = False, time_ns
        measured = Command(robot.tcp, np.clip(robot.hand, 0.0, 1.0))
        last = self.limiter.last
        if not _commandable(measured):
            if last is None:
                raise ValueError("arbiter: the measured pose is not finite and nothing is held yet")
            self.fault("the measured pose is not finite")
            return
        if self._rebase == "far" and last is not None:
            distance, angle = distance_and_angle(last.tcp, measured.tcp)
            if distance > self.config.rebase_distance or angle > self.config.rebase_angle:
                self._rebase = "always"
        # The fingers keep their command: what they hold keeps them more open than that, and what was
        # measured would let go of it. It moves nothing, also where the hand was switched off or its
        # fingers were opened by hand meanwhile: who holds says the same 25 times a second, so it is
        # what the hand is being told already. Only a first command has nothing to go on from.
        found = measured if last is None or self._scene_anew else Command(measured.tcp, last.hand)
        if self._rebase == "always" or last is None:
            self.limiter.reset(self._initial or found)
        elif self._mode is Mode.FAULT and _at_rest(robot):
            distance, angle = distance_and_angle(last.tcp, measured.tcp)
            if distance > self.config.fault_distance or angle > self.config.fault_angle:
                self.limiter.reset(found)
        self._rebase, self._initial, self._scene_anew = "no", None, False

    def _policy_step(
        self, proposal: Command | None, robot: RobotState
    ) -> tuple[Source, Command | None]:
        if proposal is None:
            self.counts.stalls += not self._waiting
            return Source.HOLD, None
        if self._waiting:
            self._waiting = False
            self._set(Mode.POLICY, DRIVES[Mode.POLICY])
        return Source.POLICY, self.limiter.limit(proposal, robot.hand_force, robot.tcp)

    def _human_step(
        self, time_ns: int, follower: Command | None, robot: RobotState
    ) -> tuple[Source, Command | None, Command | None]:
        if follower is None:
            self.counts.lost_steps += 1
            self._set(Mode.HUMAN, "the operator's tracker or glove is lost; holding")
            return Source.HOLD, None, None
        self._set(Mode.HUMAN, DRIVES[Mode.HUMAN])
        self.counts.human_steps += 1
        if self._anchor_afresh:
            self._takeover.reset()
            self._anchor_afresh = False
        goal = self._takeover.goal(time_ns, follower, self.limiter.require())
        source = Source.BLEND if goal.blending else Source.HUMAN
        return source, self.limiter.limit(goal.executed, robot.hand_force, robot.tcp), goal.human

    def _upcoming(self, time_ns: int, source: Source, command: Command) -> tuple[Command, ...]:
        n = self.config.max_delay
        if self._mode is Mode.HUMAN:
            return ()
        if source is Source.POLICY:
            following = self.executor.upcoming(time_ns + STEP_NS, n - 1)
            return (command, *self.limiter.preview(following))[:n]
        return (command,) * n


def _at_rest(robot: RobotState) -> bool:
    velocities = np.asarray(robot.joint_velocities, np.float64)
    return bool(np.isfinite(velocities).all() and np.abs(velocities).max(initial=0.0) < REST)


def _commandable(command: Command) -> bool:
    hand = np.asarray(command.hand, np.float64)
    return hand.shape == (6,) and bool(np.isfinite(hand).all()) and is_finite(command.tcp)
