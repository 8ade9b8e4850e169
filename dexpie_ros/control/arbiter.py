"""Who drives the robot at each control step: the policy, the operator, or nobody (it holds).

Algorithm sections 2, 7 and 8. One :class:`ControlStep` per 40 ms tick; everything between two steps
(chunks, services, faults) takes effect at the next one. The transitions stand in
`docs` and in :meth:`Arbiter.toggle`, :meth:`Arbiter.request`, :meth:`Arbiter.hold` and
:meth:`Arbiter.fault`; the human's anchoring is in `takeover`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.chunks import ChunkExecutor, check_chunk
from dexpie_ros.control.limits import Limiter, LimitsConfig
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

KINDS = ("demonstration", "deployment", "correction", "evaluation")
Answer = tuple[bool, str]


@config
class ArbiterConfig:
    """Settings of the arbiter."""

    max_delay: int = Field(4, ge=0)
    """n: largest expected inference delay in steps; length of `upcoming`"""
    execution_horizon: int = Field(20, ge=1)
    """s: steps of a chunk after which a fresh one is wanted"""
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
    limits: LimitsConfig = Field(default_factory=LimitsConfig)


@dataclass
class EpisodeCounts:
    """What the arbiter counted since the episode began."""

    steps: int = 0
    stalls: int = 0
    interventions: int = 0
    human_steps: int = 0
    lost_steps: int = 0
    """steps at which the operator drove but his devices were silent"""


class Arbiter:
    """Decides every control step. Not thread-safe: one thread calls it."""

    def __init__(self, settings: ArbiterConfig | None = None) -> None:
        self.config = settings or ArbiterConfig()
        self.executor = ChunkExecutor(self.config.max_delay, self.config.execution_horizon)
        self.limiter = Limiter(self.config.limits)
        self.counts = EpisodeCounts()
        self._takeover = Takeover(
            self.config.blend_seconds,
            self.config.reanchor_seconds,
            self.config.approach_seconds if self.config.follow == "absolute" else None,
        )
        self._mode, self._reason = Mode.HOLD, "no episode"
        self._kind = ""
        self._tick = 0
        self._time_ns: int | None = None
        self._resume: Mode | None = None
        self._policy_wanted = False
        self._waiting = False
        self._fence_ns: int | None = None
        self._initial: Command | None = None
        self._rebase: Literal["no", "far", "always"] = "always"
        self._follower_seen: bool | None = None
        self._aligned: bool | Alignment | None = None

    # What a person or a node may want to know -----------------------------------------------

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def reason(self) -> str:
        """Why it is in this mode, for a person."""
        return self._reason

    @property
    def kind(self) -> str:
        """Kind of the running episode, "" without one."""
        return self._kind

    @property
    def interventions(self) -> int:
        """Takeovers from the policy in the running episode."""
        return self.counts.interventions

    @property
    def last_command(self) -> Command | None:
        """The command of the last step; None before the first."""
        return self.limiter.last

    @property
    def suspended(self) -> bool:
        """Whether it holds because of :meth:`hold` and waits for :meth:`resume`."""
        return self._resume is not None

    def statistics(self) -> dict[str, float]:
        """Plain numbers of the running episode: counts, chunks, seams, clipped steps."""
        return {
            **vars(self.counts),
            **self.executor.statistics.as_dict(),
            **self.limiter.statistics.as_dict(),
        }

    # Events between steps -------------------------------------------------------------------

    def start(self, kind: str, initial: Command | None = None) -> Answer:
        """Begin an episode: counters at zero, the command is the measured pose at the first step.

        A demonstration holds until the operator takes over; other kinds hold until the policy's
        first chunk. ``initial`` replaces the measured pose where the command that the robot is
        holding is known: a grasp is held by a command that is more closed than the measurement.
        """
        if kind not in KINDS:
            return False, f"unknown kind of episode {kind!r}; one of {', '.join(KINDS)}"
        if self._mode is Mode.FAULT:
            return False, f"in FAULT: {self._reason}; clear the fault first"
        self._kind = kind
        self.counts = EpisodeCounts()
        self.executor.reset()
        self.limiter.statistics = type(self.limiter.statistics)()
        self._initial, self._rebase = initial, "always"
        self._policy_wanted = kind != "demonstration"
        target = Mode.POLICY if self._policy_wanted else Mode.HOLD
        if self._resume is not None:
            self._resume = target
            return True, f"begins when it no longer holds: {self._reason}"
        if target is Mode.POLICY:
            self._await_chunk(Mode.POLICY, "waiting for the policy's first chunk")
        else:
            self._set(Mode.HOLD, "waiting for the operator to take over")
        return True, self._reason

    def stop(self) -> None:
        """End the episode: hold."""
        self._kind, self._policy_wanted = "", False
        self.executor.clear()
        if self._mode is Mode.FAULT:
            return
        if self._resume is not None:
            self._resume = Mode.HOLD
        else:
            self._set(Mode.HOLD, "no episode")

    def add_chunk(self, chunk: Chunk) -> bool:
        """A chunk from the policy; False where it is not used (outdated, or all of it too late).

        A chunk that could not be executed (NaN, wrong shapes) is a fault.
        """
        if self._fence_ns is None or chunk.time_ns <= self._fence_ns - STEP_NS:
            # Planned before the episode, the hand-back or the hold: it does not continue what is held.
            self.executor.statistics.outdated += 1
            return False
        problem = check_chunk(chunk)
        if problem:
            self.fault(f"the policy's chunk cannot be executed: {problem}")
            return False
        driving = self._mode is Mode.POLICY and not self._waiting
        return self.executor.add(chunk, record_seam=driving)

    def toggle(self, force: bool = False) -> Answer:
        """The operator's key: take over (POLICY, HOLD, HANDING_BACK), give back (HUMAN), or stop
        aligning. Refused with the reason where that must not happen; ``force`` overrides the
        alignment only.
        """
        if self._mode is Mode.HUMAN:
            return self._give_back()
        if self._mode is Mode.ALIGNING:
            return self._end_alignment()
        return self._take_over(force)

    def request(self, mode: Mode, force: bool = False) -> Answer:
        """Ask for a mode; (accepted, why or why not)."""
        if mode is self._mode and mode is not Mode.HOLD:
            return True, f"already in {mode.name}"
        if mode is Mode.HUMAN:
            return self._take_over(force)
        if mode is Mode.FAULT:
            self.fault("requested")
            return True, self._reason
        refusal = self._refusal(mode)
        if refusal:
            return False, refusal
        if mode is Mode.HOLD:
            if self._resume is not None:
                self._resume = Mode.HOLD
            else:
                self._set(Mode.HOLD, "requested")
            return True, self._reason
        if mode is Mode.ALIGNING:
            self._set(Mode.ALIGNING, "holds until the operator is aligned")
            return True, self._reason
        if self._mode is Mode.HUMAN:
            return self._give_back()
        if mode is Mode.HANDING_BACK:
            return False, "only the operator can hand back, and he is not driving"
        self._policy_wanted = True
        self._await_chunk(Mode.POLICY, "waiting for a chunk of the policy")
        return True, self._reason

    def hold(self, reason: str) -> None:
        """Hold while something is missing (a stale stream, a node that is gone); may be repeated.

        :meth:`resume` goes on with what was interrupted.
        """
        if self._mode is Mode.FAULT:
            return
        if self._resume is None:
            self._resume = Mode.POLICY if self._mode is Mode.HANDING_BACK else self._mode
        self._set(Mode.HOLD, reason)

    def resume(self) -> None:
        """Go on after :meth:`hold`; the policy plans afresh, the operator is anchored anew."""
        if self._resume is None:
            return
        mode, self._resume = self._resume, None
        self._rebase = "far" if self._rebase == "no" else self._rebase
        if mode is Mode.POLICY:
            self._await_chunk(Mode.POLICY, "waiting for a chunk of the policy")
        elif mode is Mode.HUMAN:
            self._takeover.reset()
            self._set(Mode.HUMAN, "the operator drives")
        elif mode is Mode.ALIGNING:
            self._set(Mode.ALIGNING, "holds until the operator is aligned")
        else:
            self._set(Mode.HOLD, "no episode" if not self._kind else "waiting for the operator")

    def fault(self, reason: str) -> None:
        """Hold until :meth:`clear_fault`; the first reason stays."""
        if self._mode is not Mode.FAULT:
            self._resume = None
            self.executor.clear()
            self._set(Mode.FAULT, reason)

    def clear_fault(self) -> Answer:
        """FAULT -> HOLD; the robot is taken as it is then. Driving on needs a further request."""
        if self._mode is not Mode.FAULT:
            return False, "there is no fault"
        self._rebase = "always"
        self._set(Mode.HOLD, "fault cleared")
        return True, "the robot holds; start an episode or request a mode"

    # The control step -----------------------------------------------------------------------

    def step(
        self,
        time_ns: int,
        robot: RobotState,
        follower: Command | None = None,
        aligned: bool | Alignment | None = None,
    ) -> ControlStep:
        """Decide the step at ``time_ns`` from the measured robot and the operator's follower.

        ``follower`` is None while a device of the operator is lost; ``aligned`` None where nobody
        judges it. Raises ValueError where there is neither a finite measured pose nor a last command.
        """
        self._tick += 1
        if self._time_ns is not None and time_ns <= self._time_ns:
            self.fault(f"the clock went from {self._time_ns} back to {time_ns} ns")
        self._time_ns = time_ns
        if self._fence_ns is None:
            self._fence_ns = time_ns
        if follower is not None and not _commandable(follower):
            follower = None
        self._follower_seen, self._aligned = follower is not None, aligned
        self._take_measured(robot)
        proposal = self.executor.command(time_ns)
        if self._mode is Mode.ALIGNING and follower is not None and not self._misalignment():
            self._begin_takeover()
        if self._mode is Mode.HANDING_BACK and proposal is not None:
            self._set(Mode.POLICY, "the policy drives")
        human: Command | None = None
        source, command = Source.HOLD, None
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

    def _policy_step(
        self, proposal: Command | None, robot: RobotState
    ) -> tuple[Source, Command | None]:
        if proposal is None:
            if not self._waiting:
                self.counts.stalls += 1
            return Source.HOLD, None
        if self._waiting:
            self._waiting = False
            self._set(Mode.POLICY, "the policy drives")
        return Source.POLICY, self.limiter.limit(proposal, robot.hand_force)

    def _human_step(
        self, time_ns: int, follower: Command | None, robot: RobotState
    ) -> tuple[Source, Command | None, Command | None]:
        if follower is None:
            self.counts.lost_steps += 1
            self._set(Mode.HUMAN, "the operator's tracker or glove is lost; holding")
            return Source.HOLD, None, None
        if self._reason != "the operator drives":
            self._set(Mode.HUMAN, "the operator drives")
        self.counts.human_steps += 1
        goal = self._takeover.goal(time_ns, follower, self.limiter.require())
        source = Source.BLEND if goal.blending else Source.HUMAN
        return source, self.limiter.limit(goal.executed, robot.hand_force), goal.human

    def _upcoming(self, time_ns: int, source: Source, command: Command) -> tuple[Command, ...]:
        n = self.config.max_delay
        if self._mode is Mode.HUMAN:
            return ()
        if source is Source.POLICY:
            following = self.executor.upcoming(time_ns + STEP_NS, n - 1)
            return (command, *self.limiter.preview(following))[:n]
        return (command,) * n

    def _take_measured(self, robot: RobotState) -> None:
        """Let the last command be what is measured where the step demands it."""
        measured = Command(robot.tcp, np.clip(robot.hand, 0.0, 1.0))
        last = self.limiter.last
        if not _commandable(measured):
            if last is None:
                raise ValueError("arbiter: the measured pose is not finite and nothing is held yet")
            self.fault("the measured pose is not finite")
            return
        if self._rebase == "far" and last is not None:
            distance, angle = distance_and_angle(last.tcp, measured.tcp)
            far = distance > self.config.rebase_distance or angle > self.config.rebase_angle
            self._rebase = "always" if far else "no"
        if self._rebase == "always" or last is None:
            self.limiter.reset(self._initial or measured)
        self._rebase, self._initial = "no", None

    # Transitions ----------------------------------------------------------------------------

    def _set(self, mode: Mode, reason: str) -> None:
        self._mode, self._reason = mode, reason

    def _await_chunk(self, mode: Mode, reason: str) -> None:
        """Hold until a chunk that was planned from the next step or later."""
        self.executor.clear()
        self._waiting, self._fence_ns = True, None
        self._set(mode, reason)

    def _refusal(self, mode: Mode) -> str:
        if self._mode is Mode.FAULT:
            return f"in FAULT: {self._reason}; clear the fault first"
        if self._resume is not None and mode is not Mode.HOLD:
            return f"holding: {self._reason}"
        if mode in (Mode.POLICY, Mode.HANDING_BACK) and self._kind == "demonstration":
            return "no policy drives in a demonstration"
        return ""

    def _misalignment(self) -> str:
        """Why the operator is not aligned, or ""."""
        if self._aligned is None or not self.config.require_alignment:
            return ""
        if isinstance(self._aligned, Alignment):
            return "" if self._aligned.aligned else self._aligned.describe()
        return "" if self._aligned else "the operator is out of the alignment's limits"

    def _take_over(self, force: bool) -> Answer:
        refusal = self._refusal(Mode.HUMAN)
        if refusal:
            return False, refusal
        if self._mode is Mode.HUMAN:
            return True, "already in HUMAN"
        if self._follower_seen is False:
            return False, "no takeover: the operator's tracker or glove is silent"
        misalignment = self._misalignment()
        if misalignment and not force:
            return False, f"no takeover: {misalignment}"
        self._begin_takeover()
        return True, self._reason

    def _begin_takeover(self) -> None:
        self.counts.interventions += self._policy_wanted
        self._takeover.reset()
        self._waiting = False
        self._set(Mode.HUMAN, "the operator drives")

    def _give_back(self) -> Answer:
        if self._policy_wanted:
            self._await_chunk(Mode.HANDING_BACK, "holds until the policy's next chunk")
        else:
            self._set(Mode.HOLD, "the operator let go")
        return True, self._reason

    def _end_alignment(self) -> Answer:
        if self._policy_wanted:
            self._await_chunk(Mode.POLICY, "waiting for a chunk of the policy")
        else:
            self._set(Mode.HOLD, "alignment ended")
        return True, self._reason


def _commandable(command: Command) -> bool:
    hand = np.asarray(command.hand, np.float64)
    return hand.shape == (6,) and bool(np.isfinite(hand).all()) and is_finite(command.tcp)
