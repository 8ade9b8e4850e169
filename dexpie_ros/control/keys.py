"""The operator's keys: one table for the terminal, the web page and a pedal.

A key, or the name of its action as an event, means the same everywhere; what it does depends on the
phase of the session only in so far as it may mean nothing there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Action(Enum):
    """What an operator can ask for."""

    EMERGENCY_STOP = "emergency_stop"
    TOGGLE = "toggle"
    FORCE = "force"
    ALIGN = "align"
    CALIBRATE = "calibrate"
    CLUTCH = "clutch"
    HOLD = "hold"
    CLEAR_FAULT = "clear_fault"
    START = "start"
    SUCCESS = "success"
    FAILURE = "failure"
    ABORTED = "aborted"
    RE_RECORD = "re_record"
    NEXT_STAGE = "next_stage"
    MARK_STAGE = "mark_stage"
    EXCLUDE = "exclude"
    QUIT = "quit"


class When(Enum):
    """Phases of a session in which an action means something."""

    ALWAYS = "always"
    BETWEEN = "between episodes"
    DURING = "during an episode"


@dataclass(frozen=True)
class Binding:
    """One row of the table."""

    keys: tuple[str, ...]
    """as a terminal sends them; the first is the one that is shown"""
    action: Action
    when: When
    help: str


BINDINGS: tuple[Binding, ...] = (
    Binding(("x", "X", "\x1b"), Action.EMERGENCY_STOP, When.ALWAYS, "stop: hold until cleared"),
    Binding((" ",), Action.TOGGLE, When.ALWAYS, "take over / give back"),
    Binding(("F",), Action.FORCE, When.ALWAYS, "take over although out of alignment"),
    Binding(("a",), Action.ALIGN, When.ALWAYS, "hold until aligned, then take over"),
    Binding(("k",), Action.CALIBRATE, When.ALWAYS, "my hand is aligned with the robot now"),
    Binding(("j",), Action.CLUTCH, When.ALWAYS, "let go of / take hold of the robot (clutch)"),
    Binding(("h",), Action.HOLD, When.ALWAYS, "hold"),
    Binding(("c",), Action.CLEAR_FAULT, When.ALWAYS, "clear a fault"),
    Binding(("\r", "\n"), Action.START, When.BETWEEN, "the scene is set up: start the episode"),
    Binding(("s",), Action.SUCCESS, When.DURING, "end: success"),
    Binding(("f",), Action.FAILURE, When.DURING, "end: failure (asks for the cause)"),
    Binding(("z",), Action.ABORTED, When.DURING, "end: aborted, kept but counts for nothing"),
    Binding(("r",), Action.RE_RECORD, When.ALWAYS, "discard this or the last one, record it again"),
    Binding(("n",), Action.NEXT_STAGE, When.BETWEEN, "go on with the next stage"),
    Binding(("b",), Action.MARK_STAGE, When.DURING, "the plan's next stage begins now"),
    Binding(("e",), Action.EXCLUDE, When.BETWEEN, "the last episode is not for the critic"),
    Binding(("q", "\x03"), Action.QUIT, When.ALWAYS, "end the session"),
)

SERVICES: dict[Action, str] = {
    Action.EMERGENCY_STOP: "/intervention/emergency_stop",
    Action.TOGGLE: "/intervention/toggle",
    Action.FORCE: "/intervention/force",
    Action.ALIGN: "/intervention/align",
    Action.HOLD: "/intervention/hold",
    Action.CLEAR_FAULT: "/intervention/clear_fault",
    Action.CALIBRATE: "/teleop/calibrate",
    Action.CLUTCH: "/teleop/clutch",
    Action.START: "/session/next",
    Action.RE_RECORD: "/session/re_record",
    Action.NEXT_STAGE: "/session/skip_stage",
    Action.MARK_STAGE: "/session/mark_stage",
    Action.EXCLUDE: "/session/exclude",
    Action.QUIT: "/session/quit",
}
"""The std_srvs/Trigger that carries an action out; the outcomes are /session/end_episode."""

CAUSES = ("tipped", "dropped", "missed", "misaligned", "stalled", "collision", "timeout", "other")
"""Of a failure, chosen by number after its key; ``collision`` is also set by a protective stop."""

_NAMES = {" ": "space", "\r": "enter", "\n": "enter", "\x1b": "esc", "\x03": "ctrl-c"}
_BY_KEY = {key: binding for binding in BINDINGS for key in binding.keys}
_BY_EVENT = {binding.action.value: binding for binding in BINDINGS}


def binding_of(event: str) -> Binding | None:
    """The binding of a key (" ", "s", ...) or of an action's name ("toggle"); None where unknown."""
    return _BY_KEY.get(event) or _BY_EVENT.get(event.strip().lower())


def resolve(event: str, episode_running: bool) -> tuple[Action | None, str]:
    """The action that an event asks for now, or None and why it asks for nothing."""
    binding = binding_of(event)
    if binding is None:
        return None, f"{key_name(event)!r} is no key here; see the list"
    if binding.when is When.BETWEEN and episode_running:
        return None, f"{key_name(event)}: only between episodes; this one is still running"
    if binding.when is When.DURING and not episode_running:
        return None, f"{key_name(event)}: no episode is running"
    return binding.action, binding.help


def cause_of(digit: str) -> str | None:
    """The cause chosen by ``1`` .. ``8``; None for anything else."""
    number = int(digit) if digit.isascii() and digit.isdigit() else 0
    return CAUSES[number - 1] if 1 <= number <= len(CAUSES) else None


def key_name(key: str) -> str:
    """A key as a person calls it."""
    return _NAMES.get(key, key)


def help_lines() -> list[str]:
    """The table for a person."""
    width = max(len(key_name(b.keys[0])) for b in BINDINGS)
    return [f"{key_name(b.keys[0]):>{width}}  {b.help}" for b in BINDINGS]
