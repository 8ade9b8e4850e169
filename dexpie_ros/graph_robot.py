"""The robot's part of a stack: drivers of the devices, and emulators in place of the devices.

The drivers are the same ones either way; only addresses differ. Every emulator of a stack listens
on one loopback address of its own, because the ports of some protocols cannot be chosen.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dexpie_ros.config import ConfigError
from dexpie_ros.node_spec import PACKAGE, NodeSpec, Value

CAMERAS = ("front", "wrist")
HAND_PORT, GLOVE_PORT = 6000, 8000
CAMERA_PORTS = {"front": 7001, "wrist": 7002}
CONTROL_PORTS = {
    "emulator_ur5": 7101, "emulator_inspire": 7102, "emulator_front": 7103,
    "emulator_wrist": 7104, "emulator_vive": 7105, "emulator_manus": 7106,
}  # fmt: skip
"""Where each emulator of a stack takes its faults, on the emulators' loopback address."""
TRACKER = "LHR-EMULATED"

ARBITER_LIMITS: dict[str, Value] = {
    "arbiter.limits.workspace_lower": [-0.74, -0.74, 0.03],
    "arbiter.limits.workspace_upper": [0.74, 0.74, 0.89],
    "arbiter.limits.linear_speed": 0.45,
    "arbiter.limits.angular_speed": 1.4,
    "arbiter.limits.linear_acceleration": 4.5,
    "arbiter.limits.angular_acceleration": 18.0,
    "arbiter.limits.lead": 0.14,
    "arbiter.limits.angular_lead": 0.4,
}
"""Inside the arm driver's own limits (`devices.arm_limits.ArmLimits`), which are a net below: what
the arbiter executes and records is then what the arm does."""


def drivers(v: Mapping[str, bool | int | float | str]) -> list[NodeSpec]:
    """Drivers, and with ``hardware:=emulated`` the emulators before them.

    ConfigError where the address of the emulators is not a loopback one.
    """
    emulated, host = v["hardware"] == "emulated", str(v["emulators"])
    if emulated and not host.startswith("127."):
        raise ConfigError(f"argument emulators:={host}: expected a loopback address, 127.x.y.z")
    common: dict[str, Value] = {"use_sim_time": False, "hardware": v["hardware"]}
    where: dict[str, dict[str, Value]] = _emulated_addresses(host) if emulated else {}

    def device(name: str) -> dict[str, Value]:
        return {**common, **where.get(name, {})}

    cameras = [
        # the arm holds while a camera is away, and goes on when it is back
        NodeSpec(
            "camera_driver",
            name=f"camera_{camera}",
            parameters={**device(f"camera_{camera}"), "camera": camera},
            required=False,
            respawn=True,
        )
        for camera in CAMERAS
    ]
    tracker = {**device("tracker_driver"), **calibration(v, "tracker", "calibration")}
    operator = [
        NodeSpec(kind, parameters=parameters, required=False, respawn=True)
        for kind, parameters in (
            ("tracker_driver", tracker),
            ("glove_driver", device("glove_driver")),
        )
    ]
    hand = {**device("hand_driver"), **calibration(v, "hand", "calibration")}
    robot = [
        NodeSpec("arm_driver", parameters=device("arm_driver"), respawn=True),
        NodeSpec("hand_driver", parameters=hand, respawn=True),
    ]
    return [*(_emulators(host) if emulated else []), *robot, *cameras, *operator]


def calibration(
    v: Mapping[str, bool | int | float | str], kind: str, parameter: str
) -> dict[str, Value]:
    """``{parameter: file}`` of the stack's calibration folder, nothing without a folder.

    ConfigError where the folder lacks the file: nobody would notice that nominal values are used.
    """
    folder = str(v["calibration"])
    if not folder:
        return {}
    file = Path(folder).absolute() / f"{kind}.yaml"
    if not file.is_file():
        raise ConfigError(
            f"argument calibration:={folder}: it holds no {file.name}; make it with `dexpie "
            f"calibrate {kind} --output {folder}`, or, to go without this one, leave calibration:= "
            "away and name the others in the parameter file (teleop: glove_calibration, "
            "tracker_calibration; hand_driver: calibration)"
        )
    return {parameter: str(file)}


def uncalibrated(specs: Sequence[NodeSpec]) -> str:
    """What to say where a real hand is driven and neither stack nor parameter file name a
    calibration; else empty.
    """
    real = any(s.kind == "hand_driver" and s.parameters["hardware"] == "real" for s in specs)
    named = any(key.endswith("calibration") for s in specs for key in s.parameters)
    files = {file for s in specs for file in s.parameter_files}
    if not real or named or any(_names_calibration(Path(file)) for file in files):
        return ""
    return (
        "no calibration: glove, tracker and hand go by nominal values, which fit no person and no "
        "mounting exactly; `dexpie calibrate glove`, `tracker` and `hand` make the files, "
        "calibration:=FOLDER uses them"
    )


def _names_calibration(file: Path) -> bool:
    # what is wrong with a file, the nodes say
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return re.search(r"^[^#\n]*calibration\"?\s*:", text, re.MULTILINE) is not None


def _emulated_addresses(host: str) -> dict[str, dict[str, Value]]:
    """Parameters that lead each driver to its emulator."""
    found: dict[str, dict[str, Value]] = {
        "arm_driver": {"arm.host": host},
        "hand_driver": {"hand.transport": "modbus_tcp", "hand.host": host, "hand.port": HAND_PORT},
        "tracker_driver": {
            "tracker": "vive",
            "vive.serial": TRACKER,
            "vive.path_registry": str(_vive_folder(host) / "openvrpaths.vrpath"),
        },
        "glove_driver": {"glove.endpoint": f"tcp://{host}:{GLOVE_PORT}"},
    }
    for camera in CAMERAS:
        found[f"camera_{camera}"] = {
            "realsense.serial": f"emulated-{camera}",
            "emulator": f"{host}:{CAMERA_PORTS[camera]}",
        }
    return found


def _vive_folder(host: str) -> Path:
    return Path(tempfile.gettempdir()) / f"dexpie-vive-{host}"


def _emulators(host: str) -> list[NodeSpec]:
    def emulator(module: str, name: str, *arguments: str) -> NodeSpec:
        name = f"emulator_{name}"
        control = ("--control", f"{host}:{CONTROL_PORTS[name]}")
        return NodeSpec(
            "emulator",
            name=name,
            module=f"{PACKAGE}.emulators.{module}",
            arguments=(*arguments, *control),
        )

    return [
        emulator("ur5", "ur5", "--host", host),
        emulator("inspire", "inspire", "--host", host, "--port", str(HAND_PORT)),
        *(
            emulator(
                "realsense", camera, "--serial", f"emulated-{camera}", "--host", host,
                "--port", str(CAMERA_PORTS[camera]),
            )
            for camera in CAMERAS
        ),
        emulator("vive", "vive", "--serial", TRACKER, "--folder", str(_vive_folder(host))),
        emulator("manus", "manus", "--host", host, "--port", str(GLOVE_PORT)),
    ]  # fmt: skip
