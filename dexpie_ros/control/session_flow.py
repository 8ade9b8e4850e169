"""A session at the robot, step by step: home, set up, run, judge, next.

Pure: events come in (keys, answers of other nodes), orders go out for the session's node to carry
out. The prompt always says what is expected of the person now.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dexpie_ros.control.keys import CAUSES, Action, cause_of
from dexpie_ros.control.session import Assignment, Finished, SessionPlan, label_of_fault


class Phase(Enum):
    """Where the session is."""

    IDLE = "idle"
    HOMING = "homing"
    SETTING_UP = "setting up"
    STARTING = "starting"
    RUNNING = "running"
    ASKING_CAUSE = "asking for the cause"
    FINISHING = "finishing"
    DONE = "done"


@dataclass(frozen=True)
class GoHome:
    """Move the robot home within its limits, then call :meth:`SessionFlow.homed`."""


@dataclass(frozen=True)
class Begin:
    """Start this episode, then call :meth:`SessionFlow.begun` or :meth:`SessionFlow.refused`."""

    assignment: Assignment


@dataclass(frozen=True)
class End:
    """End the episode, then call :meth:`SessionFlow.ended`."""

    outcome: str
    cause: str = ""
    discard: bool = False


@dataclass(frozen=True)
class Discard:
    """Throw away the recording of an episode that is already finished."""

    episode_id: str


@dataclass(frozen=True)
class Leave:
    """The session is over."""


Order = GoHome | Begin | End | Discard | Leave
WHY = "why did it fail?  " + "  ".join(f"{i}: {cause}" for i, cause in enumerate(CAUSES, 1))


class SessionFlow:
    """Turns events into orders; ``homing`` False where a simulator resets the robot itself."""

    def __init__(self, plan: SessionPlan, homing: bool = True, limit_s: float = 0.0) -> None:
        """``limit_s`` ends an episode as a failure by timeout; 0: nobody does."""
        self.plan = plan
        self._homing = homing
        self._limit_ns = round(limit_s * 1e9)
        self._phase = Phase.IDLE
        self._prompt = "enter: next episode"
        self._assignment: Assignment | None = None
        self._started_ns = 0
        self._leaving = False
        self._discardable: Finished | None = None
        """What `r` would throw away: the episode that ended last, until the next one begins."""
        self._asks_for_other = False
        """The cause of an episode that somebody else began is being asked for."""

    @property
    def phase(self) -> Phase:
        return Phase.ASKING_CAUSE if self._asks_for_other else self._phase

    @property
    def prompt(self) -> str:
        """What is expected of the person now."""
        return WHY if self._asks_for_other else self._prompt

    @property
    def assignment(self) -> Assignment | None:
        """The episode that is being set up or recorded."""
        return self._assignment

    @property
    def running(self) -> bool:
        """Whether an episode is being recorded."""
        return self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE, Phase.FINISHING)

    @property
    def leaving(self) -> bool:
        """Whether the session is over, or will be when its last recording is closed."""
        return self._leaving or self._phase is Phase.DONE

    def on_action(self, action: Action) -> list[Order]:
        """A key of the operator; actions that are the arbiter's business are ignored here."""
        if action is Action.QUIT:
            return self._quit()
        if action is Action.RE_RECORD:
            return self._re_record()
        if action is Action.START:
            return self._start()
        if action is Action.NEXT_STAGE and self._phase in (Phase.IDLE, Phase.SETTING_UP):
            self._go_idle(self.plan.skip_stage())
        if action is Action.SUCCESS and self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE):
            return self._end(End("success"))
        if action is Action.ABORTED and self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE):
            return self._end(End("aborted"))
        if action is Action.FAILURE and self._phase is Phase.RUNNING:
            self._phase = Phase.ASKING_CAUSE
            self._prompt = WHY
        return []

    def on_other(self, action: Action) -> list[Order]:
        """A key while an episode runs that somebody else began: it ends like one of the session's.

        The session stays where it is; :meth:`other_ended` follows.
        """
        if action is Action.FAILURE:
            self._asks_for_other = True
            return []
        if action in (Action.SUCCESS, Action.ABORTED):
            return [End(action.value)]
        if action is Action.RE_RECORD:
            return [End("aborted", "recorded again", discard=True)]
        if action is Action.QUIT:
            return [End("aborted", "session ended"), *self._quit()]
        return []

    def other_ended(self) -> None:
        """An episode is over that somebody else began; what ended before it is no longer the last."""
        self._asks_for_other, self._discardable = False, None

    def on_digit(self, digit: str) -> list[Order]:
        """An answer to the question for the cause."""
        cause = cause_of(digit)
        if cause is not None and self._asks_for_other:
            self._asks_for_other = False
            return [End("failure", cause)]
        if self._phase is not Phase.ASKING_CAUSE or cause is None:
            return []
        return self._end(End("failure", cause))

    def homed(self) -> list[Order]:
        """The robot is home."""
        if self._phase is Phase.HOMING:
            self._set_up()
        return []

    def not_home(self, message: str) -> list[Order]:
        """The robot did not get home."""
        if self._phase is Phase.HOMING:
            self._go_idle(f"not home: {message}; enter: try again")
        return []

    def begun(self, time_ns: int) -> list[Order]:
        """The episode is being recorded since ``time_ns``."""
        if self._phase is Phase.STARTING:
            self._phase, self._started_ns, self._discardable = Phase.RUNNING, time_ns, None
            self._prompt = "s: success   f: failure   z: aborted   r: record again"
            if self._leaving:
                return self._end(End("aborted", "session ended"))
        return []

    def refused(self, message: str) -> list[Order]:
        """The episode could not be started."""
        if self._phase is not Phase.STARTING:
            return []
        if self._leaving:
            return self._quit()
        self._set_up()
        self._prompt = f"not started: {message}.  {self._prompt}"
        return []

    def fault(self, reason: str) -> list[Order]:
        """The arbiter is in FAULT: the episode ends, labelled by what happened."""
        if self._phase not in (Phase.RUNNING, Phase.ASKING_CAUSE):
            return []
        return self._end(End(*label_of_fault(reason)))

    def tick(self, time_ns: int) -> list[Order]:
        """Time passes: an episode over its limit is a failure."""
        over = self._limit_ns and time_ns - self._started_ns > self._limit_ns
        if self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE) and over:
            return self._end(End("failure", "timeout"))
        return []

    def ended(self, episode: Finished | None, discarded: bool = False) -> list[Order]:
        """The recording is closed, or thrown away; None where nobody knows what became of it."""
        if self._phase is Phase.DONE or self._phase is Phase.IDLE:
            return []
        self._discardable = None if discarded else episode
        if episode is None or (discarded and self._assignment is None):
            self._go_idle("discarded; enter: the same start again")
        elif discarded and self._assignment is not None:
            self.plan.repeat(self._assignment, episode.episode_id)
            self._go_idle(f"{episode.episode_id} is discarded; enter: the same start again")
        else:
            self._go_idle(self.plan.finished(episode))
        return self._quit() if self._leaving else []

    def _start(self) -> list[Order]:
        if self._phase is Phase.SETTING_UP and self._assignment is not None:
            self._phase, self._prompt = Phase.STARTING, "starting"
            return [Begin(self._assignment)]
        if self._phase is Phase.DONE:  # somebody came back
            self._phase, self._leaving = Phase.IDLE, False
        if self._phase is not Phase.IDLE:
            return []
        self._assignment = self.plan.next()
        if self._assignment is None:
            self._prompt = "all that was wanted is there; q: leave"
            return []
        if self._homing:
            self._phase, self._prompt = Phase.HOMING, "hands off: the robot moves home"
            return [GoHome()]
        self._set_up()
        return []

    def _set_up(self) -> None:
        self._phase = Phase.SETTING_UP
        assert self._assignment is not None
        picture = self._assignment.same_start_as
        match = " (its first picture lies over the live one)" if picture else ""
        self._prompt = f"{self._assignment.prompt}{match}; enter: start"

    def _end(self, order: End) -> list[Order]:
        self._phase, self._prompt = Phase.FINISHING, "closing the recording"
        return [order]

    def _go_idle(self, message: str) -> None:
        self._phase, self._assignment, self._prompt = Phase.IDLE, None, message

    def _re_record(self) -> list[Order]:
        if self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE):
            return self._end(End("aborted", "recorded again", discard=True))
        if self._phase not in (Phase.IDLE, Phase.SETTING_UP):
            return []
        last, self._discardable = self._discardable, None
        if last is None:
            return []
        if last.outcome == "aborted":
            self._go_idle(f"{last.episode_id} was aborted: its start comes again anyway; enter")
            return []
        self.plan.re_record(last)
        self._go_idle(f"{last.episode_id} is discarded; enter: the same start again")
        return [Discard(last.episode_id)]

    def _quit(self) -> list[Order]:
        if self._phase in (Phase.RUNNING, Phase.ASKING_CAUSE):
            self._leaving = True
            return self._end(End("aborted", "session ended"))
        if self._phase is Phase.STARTING and not self._leaving:
            self._leaving = True
            return []
        if self._phase in (Phase.FINISHING, Phase.DONE):
            self._leaving = True
            return []
        self._phase, self._prompt = Phase.DONE, "the session is over; enter: go on"
        return [Leave()]
