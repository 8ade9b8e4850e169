"""What `dexpie bench faults` lets fail, in which cell, and who must say so on /diagnostics."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dexpie_ros.nodes.session_client import GraphError


class Hands(Protocol):
    """What a fault is made with."""

    def ask(self, emulator: str, do: str, **values: Any) -> Any: ...

    def pid(self, node: str) -> int: ...


@dataclass(frozen=True)
class Fault:
    """What fails, and how that ends; ``begin`` returns its stamp (``time.monotonic_ns``)."""

    begin: Callable[[Hands], int]
    tells: tuple[str, str]
    """Whose status says so, and a part of its message."""
    end: Callable[[Hands], object] = lambda hands: None


def _ask(name: str, do: str, **values: Any) -> Callable[[Hands], int]:
    def send(hands: Hands) -> int:
        stamp = hands.ask(name, do, **values)
        if not isinstance(stamp, int):
            raise GraphError(f"emulator {name}: {do} gives no stamp")
        return stamp

    return send


def _signal(name: str, number: int, child: str = "") -> Callable[[Hands], int]:
    """To a node's process, or to its child whose command line contains ``child``."""

    def send(hands: Hands) -> int:
        pid = hands.pid(name)
        if child:
            pid = _child(pid, child)
        now = time.monotonic_ns()
        os.kill(pid, number)
        return now

    return send


def _child(parent: int, word: str) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if above == parent and word in (folder / "cmdline").read_text():
                return int(folder.name)
        except OSError:  # it ended meanwhile
            continue
    raise GraphError(f"process {parent} has no child {word}")


def _paused(name: str, *tells: str) -> Fault:
    return Fault(_signal(name, signal.SIGSTOP), (tells[0], tells[1]), _signal(name, signal.SIGCONT))


def _killed(name: str, *tells: str, child: str = "") -> Fault:
    return Fault(_signal(name, signal.SIGKILL, child), (tells[0], tells[1]))


def _line(kind: str, text: str) -> Fault:
    return Fault(
        _ask("inspire", "line_fault", kind=kind),
        ("hand_driver", text),
        _ask("inspire", "line_fault", kind=""),
    )


def _camera(do: str, undo: str, **values: Any) -> Fault:
    return Fault(
        _ask("front", do), ("policy_server", "waiting for front"), _ask("front", undo, **values)
    )


ARM = {
    "connection_dropped": Fault(_ask("ur5", "drop"), ("arm_driver", "lost")),
    "silent": Fault(
        _ask("ur5", "freeze"), ("arm_driver", "no state for"), _ask("ur5", "freeze", on=False)
    ),
    "protective_stop": Fault(_ask("ur5", "protective_stop"), ("arm_driver", "protective stop")),
    "program_halted": Fault(
        _ask("ur5", "halt", reason="pendant"), ("arm_driver", "halted its program")
    ),
    "process_killed": _killed("arm_driver", "arm_driver", "signal SIGKILL", child="ur5_process"),
    "driver_killed": _killed("arm_driver", "intervention_arbiter", "arm_driver"),
}
HAND = {
    "silent": _line("silence", "hand at"),
    "noisy": _line("checksum", "hand at"),
    "unplugged": Fault(
        _ask("inspire", "unplug"), ("hand_driver", "hand at"), _ask("inspire", "plug")
    ),
}
OPERATOR = {
    "tracker_lost": Fault(
        _ask("vive", "tracking", result=201, valid=False),
        ("tracker_driver", "out of range"),
        _ask("vive", "tracking"),
    ),
    "tracker_frozen": Fault(
        _ask("vive", "freeze"), ("tracker_driver", "frozen"), _ask("vive", "freeze", on=False)
    ),
    "glove_silent": Fault(
        _ask("manus", "silence"),
        ("glove_driver", "no sample for"),
        _ask("manus", "silence", on=False),
    ),
    "glove_frozen": Fault(
        _ask("manus", "freeze"), ("glove_driver", "frozen"), _ask("manus", "freeze", on=False)
    ),
    "teleop_hangs": _paused("teleop", "intervention_arbiter", "operator"),
    "arbiter_hangs": _paused("intervention_arbiter", "arm_driver", "no /control/command"),
}
POLICY = {
    "camera_silent": _camera("stall", "stall", on=False),
    "camera_unplugged": _camera("unplug", "plug"),
    "policy_server_hangs": _paused("policy_server", "intervention_arbiter", "policy server"),
    "policy_server_killed": _killed("policy_server", "intervention_arbiter", "policy server"),
}


def _of(device: str, faults: dict[str, Fault]) -> dict[str, Fault]:
    return {f"{device}_{name}": fault for name, fault in faults.items()}


@dataclass(frozen=True)
class Cell:
    """One graph and what fails in it."""

    faults: dict[str, Fault]
    hand: str = "modbus_tcp"
    arm: Literal["ur5", "ur5e"] = "ur5"
    graph: bool = True
    """False: only the arm and its driver's library (`fault_lone_arm`)."""
    policy: bool = False
    """A policy drives, not the operator."""


SERIAL_ANSWER_S = 0.005
"""How long the emulated hand thinks on a serial line, which itself takes no time here: so a
transaction takes what was measured on hands (6 to 8.4 ms)."""
CELLS = {
    "modbus_tcp": Cell(
        {
            **_of("arm", ARM),
            **_of("hand", HAND),
            "hand_driver_killed": _killed("hand_driver", "intervention_arbiter", "hand_driver"),
            **OPERATOR,
        }
    ),
    "eb90": Cell(_of("hand_eb90", HAND), hand="eb90"),
    "modbus_rtu": Cell(_of("hand_rtu", HAND), hand="modbus_rtu"),
    "ur5e": Cell(
        _of("ur5e", {key: fault for key, fault in ARM.items() if key != "driver_killed"}),
        arm="ur5e",
        graph=False,
    ),
    "policy": Cell(POLICY, policy=True),
}
