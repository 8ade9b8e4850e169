"""Modes of the arbiter and what leads from one to another; no robot, no time, no poses.

| event            | HOLD            | POLICY       | ALIGNING     | HUMAN               | HANDING_BACK | FAULT   |
|------------------|-----------------|--------------|--------------|---------------------|--------------|---------|
| toggle           | HUMAN (1)       | HUMAN (1)    | POLICY (2)   | HANDING_BACK (2)    | HUMAN (1)    | refused |
| request(POLICY)  | POLICY (3)      | -            | POLICY (3)   | HANDING_BACK (2)    | POLICY       | refused |
| request(HUMAN)   | HUMAN (1)       | HUMAN (1)    | HUMAN (1)    | -                   | HUMAN (1)    | refused |
| request(ALIGNING)| ALIGNING        | ALIGNING     | -            | ALIGNING            | ALIGNING     | refused |
| request(HOLD)    | HOLD            | HOLD         | HOLD         | HOLD                | HOLD         | refused |
| hold / resume    | HOLD and back   | likewise     | likewise     | likewise            | to POLICY    | nothing |
| fault            | FAULT           | FAULT        | FAULT        | FAULT               | FAULT        | -       |
| clear_fault      | refused         | refused      | refused      | refused             | refused      | HOLD    |
| operator aligned | -               | -            | HUMAN        | -                   | -            | -       |
| chunk due        | -               | drives       | -            | -                   | POLICY       | -       |

(1) refused without a follower and, unless forced, out of alignment. (2) HOLD where no policy drives,
as in a demonstration. (3) Refused in a demonstration. Entering POLICY, the robot holds until a chunk
that was planned from there. While :meth:`Modes.hold` is in force, everything but HOLD is refused.
"""

from __future__ import annotations

from typing import Literal

from dexpie_ros.control.alignment import Alignment
from dexpie_ros.control.types import KINDS, Mode

Answer = tuple[bool, str]
"""Whether a request was accepted, and why or why not, for a person."""

DRIVES = {Mode.POLICY: "the policy drives", Mode.HUMAN: "the operator drives"}


class Modes:
    """The state machine. Its orders are carried out by the arbiter at the next control step."""

    def __init__(self, require_alignment: bool = True) -> None:
        self._require_alignment = require_alignment
        self._mode, self._reason = Mode.HOLD, "no episode"
        self._kind = ""
        self._resume: Mode | None = None
        self._policy_wanted = False
        self._follower_seen: bool | None = None
        self._aligned: bool | Alignment | None = None
        self._takeovers = 0
        # Orders for the next step.
        self._waiting = False
        self._plan_afresh = True
        self._anchor_afresh = True
        self._rebase: Literal["no", "far", "always"] = "always"

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
        return self._takeovers

    @property
    def suspended(self) -> bool:
        """Whether it holds because of :meth:`hold` and waits for :meth:`resume`."""
        return self._resume is not None

    def begin(self, kind: str) -> Answer:
        """An episode begins: a demonstration holds for the operator, other kinds for a chunk."""
        if kind not in KINDS:
            return False, f"unknown kind of episode {kind!r}; one of {', '.join(KINDS)}"
        if self._mode is Mode.FAULT:
            return False, f"in FAULT: {self._reason}; clear the fault first"
        self._kind, self._takeovers = kind, 0
        self._policy_wanted = kind != "demonstration"
        self._rebase = "always"
        if self._resume is not None:
            self._resume = Mode.POLICY if self._policy_wanted else Mode.HOLD
            return True, f"begins when it no longer holds: {self._reason}"
        if self._policy_wanted:
            self._await_chunk(Mode.POLICY, "waiting for the policy's first chunk")
        else:
            self._set(Mode.HOLD, "waiting for the operator to take over")
        return True, self._reason

    def stop(self) -> None:
        """The episode ends: hold."""
        self._kind, self._policy_wanted = "", False
        if self._resume is not None:
            self._resume = Mode.HOLD
        elif self._mode is not Mode.FAULT:
            self._set(Mode.HOLD, "no episode")

    def toggle(self, force: bool = False) -> Answer:
        """The operator's key: take over, give back, or stop aligning.

        Refused with the reason where that must not happen; ``force`` overrides the alignment only.
        """
        if self._mode is Mode.HUMAN:
            return self._give_back()
        if self._mode is Mode.ALIGNING:
            return self._end_alignment()
        return self._take_over(force)

    def request(self, mode: Mode, force: bool = False) -> Answer:
        """Ask for a mode; ``force`` overrides the alignment only."""
        if mode is Mode.FAULT:
            self.fault("requested")
            return True, self._reason
        if mode is Mode.HUMAN:
            return self._take_over(force)
        refusal = self._refusal(mode)
        if refusal:
            return False, refusal
        if mode is Mode.HOLD:
            return self._hold_on_request()
        if mode is self._mode:
            return True, f"already in {mode.name}"
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
        if self._rebase == "no":
            self._rebase = "far"
        if mode is Mode.POLICY:
            self._await_chunk(Mode.POLICY, "waiting for a chunk of the policy")
        elif mode is Mode.HUMAN:
            self._anchor_afresh = True
            self._set(Mode.HUMAN, DRIVES[Mode.HUMAN])
        elif mode is Mode.ALIGNING:
            self._set(Mode.ALIGNING, "holds until the operator is aligned")
        else:
            self._set(Mode.HOLD, "waiting for the operator" if self._kind else "no episode")

    def policy_lost(self, reason: str) -> None:
        """Hold until the policy plans afresh; may be repeated.

        Unlike :meth:`hold` nothing else is refused meanwhile: the operator may take over.
        """
        if self._mode in (Mode.POLICY, Mode.HANDING_BACK):
            self._await_chunk(self._mode, reason)

    def fault(self, reason: str) -> None:
        """Hold until :meth:`clear_fault`; the first reason stays."""
        if self._mode is not Mode.FAULT:
            self._resume = None
            self._set(Mode.FAULT, reason)

    def clear_fault(self) -> Answer:
        """FAULT -> HOLD; the arm is taken as it is then. Driving on needs a further request."""
        if self._mode is not Mode.FAULT:
            return False, "there is no fault"
        self._rebase = "always"
        self._set(Mode.HOLD, "fault cleared")
        return True, "the robot holds; start an episode or request a mode"

    def _set(self, mode: Mode, reason: str) -> None:
        self._mode, self._reason = mode, reason

    def _await_chunk(self, mode: Mode, reason: str) -> None:
        """Hold until a chunk that was planned from the next step or later."""
        self._waiting = self._plan_afresh = True
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
        if self._aligned is None or not self._require_alignment:
            return ""
        if isinstance(self._aligned, Alignment):
            return "" if self._aligned.aligned else self._aligned.describe()
        return "" if self._aligned else "the operator is out of the alignment's limits"

    def _hold_on_request(self) -> Answer:
        if self._resume is not None:
            self._resume = Mode.HOLD
        else:
            self._set(Mode.HOLD, "requested")
        return True, self._reason

    def _take_over(self, force: bool) -> Answer:
        if self._mode is Mode.HUMAN:
            return True, "already in HUMAN"
        refusal = self._refusal(Mode.HUMAN)
        if refusal:
            return False, refusal
        if self._follower_seen is False:
            return False, "no takeover: the operator's tracker or glove is silent"
        misalignment = self._misalignment()
        if misalignment and not force:
            return False, f"no takeover: {misalignment}"
        self._begin_takeover()
        return True, self._reason

    def _begin_takeover(self) -> None:
        self._takeovers += self._policy_wanted
        self._anchor_afresh, self._waiting = True, False
        self._set(Mode.HUMAN, DRIVES[Mode.HUMAN])

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
