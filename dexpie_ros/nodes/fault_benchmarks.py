"""How soon the arm holds when a device fails: `dexpie bench faults`.

The robot's graph over emulators with the settings of production (`dexpie launch collect
hardware:=emulated`, only the cameras smaller), an arm that moves all the time. Each fault is stamped
by whoever has it, and what came of it is read from the trace of the emulated controller; all stamps
are of one clock.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from dexpie_ros.config import ConfigError
from dexpie_ros.geometry import make_pose, rotation_exp
from dexpie_ros.graph import stack
from dexpie_ros.node_spec import NodeSpec, Value
from dexpie_ros.nodes.fault_cases import CELLS, SERIAL_ANSWER_S, Cell, Fault
from dexpie_ros.nodes.fault_cell import FaultCell
from dexpie_ros.nodes.fault_lone_arm import LoneArm
from dexpie_ros.nodes.session_client import SessionClient
from dexpie_ros.realtime import preferred_process
from dexpie_ros.running_graph import RunningGraph

HOST = "127.0.0.91"
SIZE = {"width": 320, "height": 240}
"""Of an image; of production's at full rate two cores have no time left."""
START_S = 180.0
"""The policy's library alone takes half a minute on a busy machine."""
OPERATORS = {
    *("tracker_driver", "glove_driver", "teleop", "emulator_vive", "emulator_manus"),
    *("camera_wrist", "emulator_wrist"),
}
"""What a policy that drives and looks through one camera does without, for two cores' sake; neither
is anything recorded then."""
SPEED, TURN = 0.06, 0.8
"""m/s and rad/s of the policy that drives: a circle of 7.5 cm."""


def bench_faults(quick: bool = False, only: str = "") -> dict[str, float]:
    """Takes about 4 min (quick: each fault once) or 13 (four times); ``only``: those whose name
    contains this.

    ``<fault>_held_ms``: from the fault to the last change of the target that the controller was
    sent before it stayed the same (worst of the times; 0: it never changed again).
    ``<fault>_rest_ms``: until the emulated arm itself was at rest: braking and the servo's lag of
    0.1 s included. ``<fault>_told_ms``: until /diagnostics named device and reason.
    ``<fault>_back_ms``: from the end of the fault until the arm followed again, half a second of
    looking included. -1: not within 1.5 s.
    """
    figures: dict[str, float] = {}
    for name, cell in CELLS.items():
        faults = {key: fault for key, fault in cell.faults.items() if only in key}
        if faults:
            print(f"-- {name} --", file=sys.stderr)
            figures |= _run(cell, faults, 1 if quick else 4)
    if not figures:
        known = ", ".join(key for cell in CELLS.values() for key in cell.faults)
        raise ConfigError(f"no fault is called {only!r}; there are {known}")
    return figures


def _run(cell: Cell, faults: dict[str, Fault], times: int) -> dict[str, float]:
    if not cell.graph:
        # like arm_driver, in whose place this process stands
        with preferred_process(), LoneArm(cell.arm, HOST) as arm:
            return _measure(arm, faults, times)
    with tempfile.TemporaryDirectory(prefix="dexpie-bench-") as name:
        specs = _specs(cell, Path(name))
        with (
            RunningGraph(specs, log_file=Path(name) / "graph.log") as graph,
            SessionClient("bench", watch=graph.check) as client,
        ):
            client.wait_ready(START_S, nodes=[spec.name for spec in specs if spec.is_node])
            policy = str(Path(name) / "policy") if cell.policy else ""
            # like the drivers, or what they say would be heard late
            with preferred_process(), FaultCell(client, graph, HOST, policy) as running:
                if cell.hand != "modbus_tcp":
                    running.ask("inspire", "slow", seconds=SERIAL_ANSWER_S)
                return _measure(running, faults, times)


def _measure(cell: FaultCell | LoneArm, faults: dict[str, Fault], times: int) -> dict[str, float]:
    figures: dict[str, list[float]] = {}
    for _ in range(times):
        for name, fault in faults.items():
            outcome = cell.measure(fault)
            for key, value in vars(outcome).items():
                figures.setdefault(f"{name}_{key}_ms", []).append(round(value, 1))
            untold = "" if outcome.told >= 0 else f"; what was said: {cell.said()}"
            print(
                f"{name}: held {outcome.held:.0f} ms, at rest {outcome.rest:.0f} ms, "
                f"told {outcome.told:.0f} ms, back {outcome.back:.0f} ms{untold}",
                file=sys.stderr,
            )
    # what never came about is the worst
    return {key: -1.0 if min(values) < 0 else max(values) for key, values in figures.items()}


def _specs(cell: Cell, folder: Path) -> list[NodeSpec]:
    """The stack of a cell."""
    policy = {"policy": str(circling_policy(folder / "policy"))} if cell.policy else {}
    specs = stack(
        "deploy" if cell.policy else "collect",
        sim=False,
        hardware="emulated",
        emulators=HOST,
        directory=str(folder / "episodes"),
        record=not cell.policy,
        **policy,
    )
    # a policy waits for images: how soon one is missed depends on their rate
    camera = {**SIZE, "fps": 60 if cell.policy else 15}
    parameters: dict[str, dict[str, Value]] = {
        "camera_driver": {f"realsense.{key}": value for key, value in camera.items()},
        "arm_driver": {"arm.model": cell.arm},
    }
    pictures = tuple(word for key, value in camera.items() for word in (f"--{key}", str(value)))
    arguments: dict[str, tuple[str, ...]] = {"realsense": pictures, "ur5": ("--model", cell.arm)}
    if cell.hand != "modbus_tcp":
        line = folder / ("eb90" if cell.hand == "eb90" else "rtu")
        parameters["hand_driver"] = {"hand.transport": cell.hand, "hand.device": str(line)}
        arguments["inspire"] = ("--folder", str(folder))
    return [
        replace(
            spec,
            parameters={**spec.parameters, **parameters.get(spec.kind, {})},
            arguments=None
            if spec.arguments is None
            else (*spec.arguments, *arguments.get(spec.module.rpartition(".")[2], ())),
        )
        for spec in specs
        if not (cell.policy and spec.name in OPERATORS)
    ]


def circling_policy(folder: Path) -> Path:
    """A policy that looks through the front camera and, whatever it sees, moves on a circle."""
    from dexpie_ros.policy import settings as options
    from dexpie_ros.policy.actions import pack
    from dexpie_ros.policy.actor import Actor
    from dexpie_ros.policy.encoders import build_encoder
    from dexpie_ros.policy.normalizer import Normalizer
    from dexpie_ros.policy.observation import ObservationSpec
    from dexpie_ros.policy.policy import Policy

    spec = ObservationSpec(parts=("tcp", "hand"), images=("front",))
    settings = options.PolicyConfig(
        observation=spec,
        encoder=options.EncoderConfig(arch="small_cnn", weights="random", image_size=64),
        denoiser=options.DenoiserConfig(kind="mlp", width=32, blocks=1),
        diffusion=options.DiffusionConfig(prediction="sample", clip_range=2.0),
        inference=options.InferenceSettings(steps=2),
    )
    normalizer = Normalizer(0.5, True, np.zeros(spec.size), np.ones(spec.size))
    # the command is ahead of the measured pose by the servo's lag
    times = (np.arange(settings.action.horizon) + 3) * 0.04
    poses = np.stack(
        [
            make_pose(
                rotation_exp(np.array([0.0, 0.0, TURN * t])),
                np.array([np.sin(TURN * t), 1 - np.cos(TURN * t), 0.0]) * (SPEED / TURN),
            )
            for t in times
        ]
    )
    chunk = normalizer.actions(pack(poses, np.full((len(times), 6), 0.5)))
    actor = Actor(settings, build_encoder(settings))
    weights = actor.state_dict()  # of the same memory
    weights["denoiser.output.weight"].numpy()[:] = 0.0
    weights["denoiser.output.bias"].numpy()[:] = chunk.reshape(-1)
    Policy(settings, actor, normalizer, policy_id="circle").save(folder)
    return folder
