"""What is checked before every control step of a robot that is not in lockstep.

Streams that are silent, a session that is gone, a policy server that does not keep up, a second node
that commands the arm, drivers that report a stop. Pure: the arbiter's node feeds arrivals and asks.
Times are of a monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict

from pydantic import Field

from dexpie_ros.config import config
from dexpie_ros.control.modes import Modes
from dexpie_ros.control.session import EMERGENCY_STOP, PROTECTIVE_STOP
from dexpie_ros.control.staleness import StalenessMonitor, StreamConfig, StreamStatus
from dexpie_ros.control.types import Mode

ARM, TCP, HAND = "/arm/joint_states", "/arm/tcp_pose", "/hand/joint_states"
POLICY, SESSION = "/policy/status", "session"
ARM_DRIVER, HAND_DRIVER = "arm_driver", "hand_driver"
ERROR = 2
"""Level of a diagnostic status; STALE is above it."""
CLEAR_ERRORS = "clear the errors"
"""What the status of a finger that stopped tells a person to do. The hand has seen to that finger
itself, so whoever drives goes on; every other error of the hand means that nobody hears it."""
RECOVERY = "ask for recovery"
"""What the status of every stop of the arm tells a person to do."""
TOO_FAR = (" m away (", "is turned by", "behind its target")
"""What the arm's status tells of a target that it does not take because of where the arm is. It braked
while commands went on, and the arbiter may lead it by more than it takes at once."""
REFUSED_NS = 500_000_000
"""After so long the arm will not come: whoever drives goes on from where it stands."""
POLICY_SERVER, NO_OBSERVATION = "policy_server", "no observation"
"""Whose status begins with what, or is an ERROR, where a policy must not go on: it does not see."""
REMEMBERED = 250
"""Own commands that are known again: ten seconds."""
VOICE_NS = 500_000_000
"""After this silence a voice is gone; a node that was killed needs longer to come back."""


@config
class GuardConfig:
    """How long what the arbiter lives on may be silent, s."""

    arm_s: float = Field(0.1, gt=0)
    """joints and TCP; older than this and the robot holds"""
    hand_s: float = Field(0.2, gt=0)
    policy_s: float = Field(0.4, gt=0)
    """heartbeat of the policy server, while the policy drives"""
    session_s: float = Field(4.0, ge=0)
    """heartbeat of the session node (once a second); 0: not needed"""


class Guard:
    """Holds the arbiter while something is missing, and lets it go on."""

    def __init__(self, settings: GuardConfig | None = None) -> None:
        use = settings or GuardConfig()
        streams = [
            StreamConfig(ARM, use.arm_s),
            StreamConfig(TCP, use.arm_s),
            StreamConfig(HAND, use.hand_s),
            StreamConfig(POLICY, use.policy_s, needed=False),
        ]
        if use.session_s:
            streams.append(StreamConfig(SESSION, use.session_s))
        self._monitor = StalenessMonitor(streams)
        self._watched = {stream.name for stream in streams}
        self._sent: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._holding = False
        self._failed: dict[str, str] = {}
        """Why the robot holds, by driver."""
        self._blind = ""
        """What the policy server lacks, until it shows a sign of life again."""
        self._refusing = False
        self._refused_ns: int | None = None
        """Since when the arm takes no target for being too far."""

    def seen(self, stream: str, now_ns: int, age_ns: int = 0) -> None:
        """A message of ``stream`` arrived whose content is ``age_ns`` old; unknown ones are ignored."""
        if stream in self._watched:
            self._monitor.seen(stream, now_ns - max(0, age_ns))
        if stream == POLICY:
            self._blind = ""

    def device(self, name: str, level: int, message: str) -> None:
        """A status of /diagnostics. An arm that cannot follow goes on measuring: without this the
        commands would run away from it. A hand's driver knows of a silent line before its stream,
        which comes at 25 Hz, could be told from a late one. So does the policy server of a camera.
        """
        if name == POLICY_SERVER and (level >= ERROR or message.startswith(NO_OBSERVATION)):
            self._blind = message
        if name not in (ARM_DRIVER, HAND_DRIVER):
            return
        if name == ARM_DRIVER:
            self._refusing = any(text in message for text in TOO_FAR)
        self._failed.pop(name, None)
        if level >= ERROR and not (name == HAND_DRIVER and CLEAR_ERRORS in message):
            self._failed[name] = f"{name}: {message}"

    def check(self, arbiter: Modes, now_ns: int, policy: bool = True) -> str:
        """Before every step, and while none can be made: hold or go on; what is missing, or "".

        ``policy`` False: what drives in POLICY is not the policy server (the way home).
        """
        problem = self._monitor.problem(now_ns) or "; ".join(self._failed.values())
        if problem:
            arbiter.hold(problem)
            self._holding = True
        elif self._holding:
            arbiter.resume()
            self._holding = False
        elif self._refused_for_long(now_ns):
            # Nobody but the arbiter can end it: an arm that took the whole way at once when it
            # comes free would move unasked. A pause of no step: planned and anchored afresh.
            arbiter.hold("the arm does not take the command")
            arbiter.resume()
        if policy and arbiter.mode in (Mode.POLICY, Mode.HANDING_BACK):
            silent = self.policy_silence(now_ns)
            if silent:
                arbiter.policy_lost(silent)
        return problem

    def _refused_for_long(self, now_ns: int) -> bool:
        if not self._refusing or self._refused_ns is None:
            self._refused_ns = now_ns if self._refusing else None
        elif now_ns - self._refused_ns >= REFUSED_NS:
            self._refused_ns = now_ns
            return True
        return False

    def policy_silence(self, now_ns: int) -> str:
        """Why the policy cannot drive, or ""."""
        if self._blind:
            return f"the policy server: {self._blind}; holding, takeover is possible"
        if self._monitor.fresh(POLICY, now_ns):
            return ""
        return "the policy server is silent or lacks observations; holding, takeover is possible"

    def status(self, now_ns: int) -> tuple[StreamStatus, ...]:
        """Every stream that is watched."""
        return self._monitor.status(now_ns)

    def sent(self, time_ns: int, tick: int) -> None:
        """This arbiter published the command of that step."""
        self._sent[(time_ns, tick)] = None
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    def is_own(self, time_ns: int, tick: int) -> bool:
        """Whether a command that was heard is this arbiter's; any other means a second writer."""
        return (time_ns, tick) in self._sent


class Voices:
    """How many nodes speak on /control/command, by what they say: each counts its own ticks.

    Names cannot tell: DDS lists a node that was killed until its lease ends (20 s), so a restarted
    arbiter and two arbiters look the same.
    """

    def __init__(self) -> None:
        self._voices: list[tuple[int, int]] = []
        """Last tick and when it was heard (ns, monotonic), of each."""

    def heard(self, tick: int, now_ns: int) -> bool:
        """A command with this tick; True where it continues nothing that was heard lately."""
        self._forget(now_ns)
        gaps = [(tick - last, k) for k, (last, _) in enumerate(self._voices)]
        gap, k = min((g for g in gaps if 0 < g[0] <= REMEMBERED), default=(0, -1))
        if not gap:
            self._voices.append((tick, now_ns))
            return True
        self._voices[k] = (tick, now_ns)
        return False

    def several(self, now_ns: int) -> bool:
        """Whether more than one spoke within the last half second."""
        self._forget(now_ns)
        return len(self._voices) > 1

    def _forget(self, now_ns: int) -> None:
        self._voices = [voice for voice in self._voices if now_ns - voice[1] < VOICE_NS]


def fault_of_status(name: str, level: int, message: str) -> str:
    """The fault that a driver's diagnostic status stands for, or ""; labels follow from its text."""
    if level < ERROR or not name.startswith(("arm", "hand", "simulated_cell")):
        return ""
    text = message.lower()
    # a stopped arm goes on sending its state, so nothing but its status tells
    for known in (PROTECTIVE_STOP, EMERGENCY_STOP, "halted its program", "safeguard stop"):
        if known in text:
            return f"{known}: {name}: {message}"
    # whatever else waits for the operator: safety violation, brakes, power, ...
    return f"stopped: {name}: {message}" if RECOVERY in text else ""
