"""Which nodes make up a stack: the one description that launch files and `dexpie launch` read.

    stack("collect", sim=True, task="bottle")  ->  [NodeSpec, ...]

Nothing here starts anything or imports ROS; :mod:`dexpie_ros.supervisor` and
:mod:`dexpie_ros.launching` do.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dexpie_ros.config import ConfigError
from dexpie_ros.graph_robot import ARBITER_LIMITS, CAMERAS, calibration, drivers
from dexpie_ros.node_spec import EXIT_CONFIG, PACKAGE, SUPERVISOR_VARIABLE, NodeSpec, Value
from dexpie_ros.parameter_file import refuse_unknown_nodes
from dexpie_ros.security import enclave_environment

__all__ = [
    "EXIT_CONFIG",
    "NODES",
    "NODE_NAMES",
    "PACKAGE",
    "STACKS",
    "SUPERVISOR_VARIABLE",
    "Argument",
    "NodeSpec",
    "Value",
    "parse_arguments",
    "stack",
]


@dataclass(frozen=True)
class Argument:
    """A ``name:=value`` of a stack."""

    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] = ()

    def parse(self, name: str, value: object) -> bool | int | float | str:
        """``value``, often a string of the command line, as the type of the default."""
        if isinstance(self.default, bool):
            words = {"true": True, "1": True, "false": False, "0": False}
            if str(value).lower() in words:
                return words[str(value).lower()]
            raise ConfigError(f"argument {name}:={value}: expected true or false")
        text = str(value)
        if isinstance(self.default, str):
            if self.choices and text not in self.choices:
                known = ", ".join(choice or "(empty)" for choice in self.choices)
                raise ConfigError(f"argument {name}:={value}: known values: {known}")
            return text
        try:
            return type(self.default)(text)
        except ValueError:
            what = "a whole number" if isinstance(self.default, int) else "a number"
            raise ConfigError(f"argument {name}:={value}: expected {what}") from None


_COMMON = {
    "sim": Argument(True, "simulated cell and operator in place of the robot and a person"),
    "hardware": Argument(
        "real",
        "with sim:=false: the devices; emulated: emulators on loopback, and no simulation",
        ("real", "emulated"),
    ),
    "emulators": Argument(
        "127.0.0.2", "with hardware:=emulated: loopback address of the emulators"
    ),
    "calibration": Argument(
        "", "folder of `dexpie calibrate`: hand.yaml, glove.yaml and tracker.yaml; empty: none"
    ),
    "task": Argument("bottle", "what to do; simulated are bottle, drawer and box, also A, B, C"),
    "regime": Argument(
        "retry",
        "in simulation: a mistake costs time, or ends the episode",
        ("retry", "terminal"),
    ),
    "record": Argument(True, "record every episode"),
    "images": Argument(
        "jpeg",
        "what of the cameras is recorded; none: nothing is rendered",
        ("jpeg", "raw", "none"),
    ),
    "plan": Argument("", "YAML file with the session's stages and quotas"),
    "homing": Argument(
        False, "on the robot: home before every episode; homing.* of the arbiter say where that is"
    ),
    "directory": Argument("outputs/episodes", "where the episodes go"),
    "policy": Argument("", "directory of a trained policy"),
    "mode": Argument(
        "async", "inference while the arm moves, or while it waits", ("async", "sync")
    ),
    "beta": Argument(-1.0, "guidance of the policy, 1 none; negative: as it was saved"),
    "steps": Argument(0, "denoising steps of the policy; 0: as it was saved"),
    "optimality": Argument(-1.0, "asked of the policy, 0 to 1; negative: as it was saved"),
    "noise": Argument(-1.0, "that chunks begin with, 0 to 1; negative: as the policy was saved"),
    "max_delay": Argument(4, "n: control steps that an inference may take; length of the prefix"),
    "backend": Argument("", "of torch.compile for the policy: inductor on a GPU; empty: none"),
    "device": Argument(
        "auto", "what the policy runs on: cpu, cuda, cuda:1 ...; auto: cuda where torch sees a GPU"
    ),
    "role": Argument(
        "by_kind",
        "what the simulated operator does; by_kind: what fits the kind of episode",
        ("by_kind", "demonstrate", "supervise", "judge"),
    ),
    "seed": Argument(0, "seed of the simulated operator"),
    "rtf": Argument(1.0, "real-time factor of the simulation; 0: as fast as lockstep allows"),
    "lockstep": Argument(
        True, "the simulation waits for every command: results do not depend on the machine's speed"
    ),
    "inference_delay_steps": Argument(
        2, "in lockstep: control steps that an inference takes in simulation time"
    ),
    "width": Argument(320, "of simulated images, pixel"),
    "height": Argument(240, "of simulated images, pixel"),
    "parameters": Argument("", "ROS parameter file for all nodes"),
}

STACKS: dict[str, dict[str, Argument]] = {"collect": _COMMON, "deploy": _COMMON}
"""Stacks and their arguments."""

TASK_LETTERS = {"A": "bottle", "B": "drawer", "C": "box"}
"""Names of the simulated tasks by the letters of the experiments; either is understood."""
SIMULATED_TASKS = tuple(TASK_LETTERS.values())

NODES = (
    "simulated_cell",
    "simulated_operator",
    "arm_driver",
    "hand_driver",
    "camera_driver",
    "tracker_driver",
    "glove_driver",
    "teleop",
    "policy_server",
    "intervention_arbiter",
    "session",
    "recorder",
    "keyboard",
    "glove_motion",
)
"""Every kind of node. The last two are in no stack: they want a terminal of their own."""

NODE_NAMES = (
    *(kind for kind in NODES if kind != "camera_driver"),
    *(f"camera_{camera}" for camera in CAMERAS),
)
"""What nodes are called, and so the sections of a parameter file."""


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """``["sim:=true", "task:=bottle"]`` -> keyword arguments of :func:`stack`."""
    arguments = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise ConfigError(f"argument {word!r}: expected name:=value, for instance sim:=true")
        arguments[name] = value
    return arguments


def stack(name: str, **arguments: object) -> list[NodeSpec]:
    """The nodes of stack ``name``; arguments as in :data:`STACKS`, values also as strings.

    Raises:
        ConfigError: unknown stack, argument or value (the message names what is known), or
            arguments that do not fit together.
    """
    if name not in STACKS:
        raise ConfigError(_unknown("stack", name, STACKS))
    for given in arguments:
        if given not in STACKS[name]:
            raise ConfigError(_unknown(f"argument of stack {name}", given, STACKS[name]))
    values = {
        key: argument.parse(key, arguments.get(key, argument.default))
        for key, argument in STACKS[name].items()
    }
    if values["hardware"] == "emulated":
        values["sim"] = False
    if name == "deploy" and not values["policy"]:
        raise ConfigError("stack deploy needs a trained policy: policy:=<directory>")
    if values["sim"]:  # on a robot a task is called what the laboratory calls it
        values["task"] = TASK_LETTERS[task_letter(str(values["task"]), "argument task:=")]
    for key in ("policy", "parameters", "calibration", "plan"):
        path = str(values[key])
        if path and not Path(path).exists():
            raise ConfigError(f"argument {key}:={path}: no such file or directory")
    if values["sim"] and values["calibration"]:
        raise ConfigError(
            f"argument calibration:={values['calibration']}: belongs to a person's devices, and the "
            "simulated operator has none of them; leave it out, or give sim:=false"
        )
    specs = [
        replace(spec, env={**enclave_environment(spec.kind), **spec.env}) if spec.is_node else spec
        for spec in _world(values) + _loop(values)
    ]
    if not values["parameters"]:
        return specs
    refuse_unknown_nodes(str(values["parameters"]), NODE_NAMES)
    files = (str(Path(str(values["parameters"])).absolute()),)
    return [replace(spec, parameter_files=files) if spec.is_node else spec for spec in specs]


def task_letter(name: str, where: str) -> str:
    """A, B or C of a simulated task by either of its names; ConfigError beginning with ``where``."""
    letters = {**{key: key for key in TASK_LETTERS}, **{v: k for k, v in TASK_LETTERS.items()}}
    if name not in letters:
        known = ", ".join(f"{value} ({key})" for key, value in TASK_LETTERS.items())
        raise ConfigError(f"{where}{name}: simulated are {known}")
    return letters[name]


def _world(v: dict[str, bool | int | float | str]) -> list[NodeSpec]:
    """Robot, cameras and the operator's devices, or what stands in for them."""
    clock: dict[str, Value] = {"use_sim_time": bool(v["sim"])}
    if v["sim"]:
        cell: dict[str, Value] = {k: v[k] for k in ("task", "rtf", "lockstep", "width", "height")}
        regime: dict[str, Value] = {f"{v['task']}.regime": v["regime"]}
        world = {**cell, **regime, "images": v["images"] != "none"}
        return [
            # the cell makes the clock and does not follow it
            NodeSpec("simulated_cell", parameters=world),
            NodeSpec(
                "simulated_operator",
                parameters={
                    **clock,
                    "role": v["role"],
                    "seed": v["seed"],
                    "operator.cell.task": v["task"],
                    **{f"operator.cell.{key}": value for key, value in regime.items()},
                },
            ),
        ]
    return drivers(v)


def _loop(v: dict[str, bool | int | float | str]) -> list[NodeSpec]:
    """What decides, leads episodes and records: the same for robot and simulation."""
    sim, policy, record = bool(v["sim"]), str(v["policy"]), bool(v["record"])
    lockstep = sim and bool(v["lockstep"])
    common: dict[str, Value] = {"use_sim_time": sim}
    stepped: dict[str, Value] = {**common, "lockstep": lockstep}
    episodes: dict[str, Value] = {
        **common,
        "sim": sim,
        "directory": str(Path(str(v["directory"])).absolute()),
    }
    arbiter: dict[str, Value] = {
        **stepped,
        "wait_for_teleop": lockstep,
        "wait_for_policy": lockstep and bool(policy),
        "inference_delay_steps": v["inference_delay_steps"],
        "arbiter.max_delay": v["max_delay"],
        # a simulation measures at 25 Hz, and a busy machine makes it late
        **({"guard.arm_s": 0.4, "guard.hand_s": 0.4} if sim else ARBITER_LIMITS),
        **({"home_needed": True} if v["homing"] and not sim else {}),
    }
    teleop: dict[str, Value] = {
        **stepped,
        **({"teleop.glove_seconds": 0.2} if sim else {}),  # values come at 25 Hz, as above
        **calibration(v, "glove", "glove_calibration"),
        **calibration(v, "tracker", "tracker_calibration"),
    }
    session: dict[str, Value] = {
        **episodes,
        "task": v["task"],
        "record": record,
        "policy": bool(policy),
        "policy_directory": str(Path(policy).absolute()) if policy else "",
        "plan": str(Path(str(v["plan"])).absolute()) if v["plan"] else "",
        "homing": bool(v["homing"]) and not sim,
    }
    server: dict[str, Value] = {
        **stepped,
        "policy": str(Path(policy).absolute()),
        "device": v["device"],
        "beta": v["beta"],
        "inference_delay_steps": v["inference_delay_steps"],
        "inference.mode": v["mode"],
        "inference.max_delay": v["max_delay"],
        **{name: v[name] for name in ("steps", "optimality", "noise", "backend")},
        "images": not sim or v["images"] != "none",
        "objects": sim,
    }
    # a robot holds until the operator's side is back
    specs = [NodeSpec("teleop", parameters=teleop, required=sim, respawn=not sim)]
    if policy:
        # without it a robot holds until it is back; a simulation would wait for ever
        specs.append(NodeSpec("policy_server", parameters=server, required=sim, respawn=not sim))
    specs += [
        # on a robot the others hold meanwhile; a simulation would go on without what it missed
        NodeSpec("intervention_arbiter", parameters=arbiter, respawn=not sim),
        NodeSpec("session", parameters=session, respawn=not sim),
    ]
    if record:
        recorder: dict[str, Value] = {**episodes, "images": v["images"]}
        specs.append(NodeSpec("recorder", parameters=recorder, respawn=not sim))
    return specs


def _unknown(
    what: str, name: str, known: dict[str, dict[str, Argument]] | dict[str, Argument]
) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown {what}: {name}; {hint}known: {', '.join(known)}"
