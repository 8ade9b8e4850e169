"""Which inputs a control step must wait for in lockstep: the bookkeeping, without ROS.

The rule that makes a run independent of the machine's speed: the step of time t is made when the
measurements of t, the operator's command of t (where there is one) and the policy's answer to the
step before are here, and a chunk whose observation was taken at t takes effect exactly
``delay_steps`` later, however long its inference took.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from dexpie_ros.control.types import STEP_NS, Chunk, Command

FRESH_NS = 5 * STEP_NS
"""Where the operator's command is not waited for: an older one counts as lost."""


@dataclass
class Ready:
    """All inputs of one control step."""

    time_ns: int
    arm: Any
    hand: Any
    tcp: Any
    follower: Command | None
    chunks: list[Chunk]


class LockstepInputs:
    """Collects inputs by stamp; :meth:`ready` gives a step's inputs once, when they are complete."""

    def __init__(self, teleop: bool, policy: bool, delay_steps: int) -> None:
        if delay_steps < 1:
            raise ValueError("inference_delay_steps must be at least 1: no chunk is there at once")
        self._wait_teleop, self._wait_policy, self._delay = teleop, policy, delay_steps
        self._measured: dict[str, tuple[int, Any]] = {}
        self._teleop: tuple[int, Command] | None = None
        self._answered: dict[int, bool] = {}
        self._chunks: deque[Chunk] = deque()
        self._due: deque[int] = deque()
        self._last_step_ns = 0
        self._ask_policy = False
        self._first_step = True
        self._scene_ns = 0
        self._newest_chunk_ns = self._newest_answer_ns = 0
        self.repeated = False
        """The world said the same state again: somebody did not hear something."""

    def start_episode(self, policy: bool, scene_ns: int = 0, replayed: bool = False) -> None:
        """From the next step on the policy server answers each step, if ``policy``.

        ``replayed``: a recording answers in its place, also where there is no policy server.
        Measurements from before ``scene_ns`` are of the scene before and make no step.
        """
        self._scene_ns = scene_ns
        self._ask_policy = policy and (self._wait_policy or replayed)
        self._first_step = True
        self._answered.clear()
        self._chunks.clear()
        self._due.clear()

    def end_episode(self) -> None:
        self.start_episode(policy=False)

    def begins_anew(self, time_ns: int) -> bool:
        """A measurement of long before the last step: the world was started again. Forgets all."""
        if time_ns >= self._last_step_ns - STEP_NS:
            return False
        self._measured.clear()
        self._teleop = None
        self._last_step_ns = 0
        self.end_episode()
        return True

    def measured(self, stream: str, time_ns: int, message: Any) -> None:
        if stream == "tcp" and self._measured.get("tcp", (0, None))[0] == time_ns:
            self.repeated = True
        self._measured[stream] = (time_ns, message)

    def teleop(self, time_ns: int, command: Command) -> None:
        self._teleop = (time_ns, command)

    def chunk(self, chunk: Chunk) -> None:
        if chunk.time_ns > self._newest_chunk_ns:
            self._newest_chunk_ns = chunk.time_ns
            self._chunks.append(chunk)

    def policy_answered(self, time_ns: int, inferred: bool) -> None:
        if time_ns <= self._newest_answer_ns:
            return  # said twice
        self._newest_answer_ns = time_ns
        self._answered[time_ns] = inferred
        if inferred:
            self._due.append(time_ns + self._delay * STEP_NS)

    def stepped(self, time_ns: int) -> None:
        self._last_step_ns = time_ns
        self._first_step = False

    def missing(self) -> str:
        """What the next step waits for, in words; empty where nothing is missing."""
        stamps = {
            self._measured[s][0] if s in self._measured else 0 for s in ("arm", "hand", "tcp")
        }
        if (
            len(stamps) != 1
            or stamps == {self._last_step_ns}
            or min(stamps) < max(1, self._scene_ns)
        ):
            return "measurements of arm and hand"
        now = stamps.pop()
        if self._wait_teleop and (self._teleop is None or self._teleop[0] != now):
            return "/teleop/command"
        if self._ask_policy and not self._first_step:
            if self._last_step_ns not in self._answered:
                return "/policy/status (policy_server)"
            if sum(at <= now for at in self._due) > len(self._chunks):
                return "/policy/chunk (policy_server)"
        return ""

    def ready(self) -> Ready | None:
        """The inputs of the next step, or None while something is missing."""
        if self.missing():
            return None
        now = self._measured["tcp"][0]
        chunks = []
        while self._due and self._due[0] <= now:
            self._due.popleft()
            chunks.append(self._chunks.popleft())
        self._answered.pop(self._last_step_ns, None)
        follower = None
        if self._teleop is not None and now - self._teleop[0] <= FRESH_NS:
            follower = self._teleop[1]
        parts = {stream: message for stream, (_, message) in self._measured.items()}
        return Ready(now, parts["arm"], parts["hand"], parts["tcp"], follower, chunks)
