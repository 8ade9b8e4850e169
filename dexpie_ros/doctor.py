"""What this machine has, what is missing, and the command that mends it: `dexpie doctor`.

Everything that can fail, hang or crash (loading GL, starting DDS) is tried in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dexpie_ros.resources import share_directories
from dexpie_ros.shared_memory import DIRECTORY as SHARED_MEMORY

GIB = 1 << 30
SETUP = "make setup"


class State(Enum):
    """How good a finding is."""

    GOOD = "good"
    OPTIONAL = "optional"
    """Missing, but the main job in simulation runs without it."""
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One row of the table."""

    what: str
    found: str
    state: State = State.GOOD
    remedy: str = ""


def find_all() -> list[Finding]:
    """Every check, in the order of the table."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _python,
        _ros,
        _messages,
        _round_trip,
        _libraries,
        _torch,
        _rendering,
        _hardware_libraries,
        _process_tools,
        _space,
    )
    return [finding for check in checks for finding in check()]


def run(console: Console | None = None) -> int:
    """Print the table; 1 if the main job (the demo in simulation) could not run here, else 0."""
    findings = find_all()
    table = Table(title="dexpie doctor")
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    marks = {State.GOOD: "[green]ok", State.OPTIONAL: "[yellow]-", State.MISSING: "[red]missing"}
    for finding in findings:
        table.add_row(marks[finding.state], finding.what, finding.found)
    console = console or Console()
    console.print(table)
    for finding in findings:
        if finding.state is not State.GOOD:
            kind = "to mend" if finding.state is State.MISSING else "optional"
            console.print(f"{kind}: {finding.what}: {finding.remedy}", soft_wrap=True, markup=False)
    missing = [finding for finding in findings if finding.state is State.MISSING]
    if missing:
        console.print("The main job cannot run here yet.")
        return 1
    console.print("The main job can run here: make demo")
    return 0


def _python() -> list[Finding]:
    version = platform.python_version()
    found = f"{version} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if (3, 10) <= sys.version_info < (3, 13):
        return [Finding("Python", found)]
    return [
        Finding(
            "Python", found, State.MISSING, "use Python 3.10 to 3.12: make setup PYTHON=python3.11"
        )
    ]


def _ros() -> list[Finding]:
    code = (
        "import rclpy, os; print(os.environ.get('ROS_DISTRO') or 'Kilted, wheels of PyPI');"
        "print(rclpy.get_rmw_implementation_identifier())"
    )
    answer, error = _try(code)
    if answer is None:
        remedy = f"source the setup.bash of a ROS 2 installation, or: {SETUP}"
        if os.environ.get("ROS_DISTRO"):
            remedy = (
                f"use the Python that ROS 2 {os.environ['ROS_DISTRO']} was made for, or: {SETUP}"
            )
        return [Finding("ROS 2", f"rclpy cannot be imported: {error}", State.MISSING, remedy)]
    distribution, middleware = answer.splitlines()
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return [
        Finding("ROS 2", distribution),
        Finding("RMW", f"{middleware}, domain {domain}"),
    ]


def _messages() -> list[Finding]:
    answer, error = _try("from dexpie_msgs.msg import ControlStep; print('there')")
    if answer is None:
        return [Finding("dexpie_msgs", f"cannot be imported: {error}", State.MISSING, SETUP)]
    folder = _message_folder()
    if folder is None:
        return [Finding("dexpie_msgs", "importable")]
    stale = _stale_messages(folder)
    if stale:
        found = f"built from other definitions than msg/ has: {', '.join(stale)}"
        return [Finding("dexpie_msgs", found, State.MISSING, SETUP)]
    count = len(list(folder.glob("*.msg")))
    return [Finding("dexpie_msgs", f"{count} messages, ControlStep {_type_hash(folder)}")]


def _message_folder() -> Path | None:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        folder = Path(prefix) / "share/dexpie_msgs/msg"
        if folder.is_dir():
            return folder
    return None


def _type_hash(folder: Path) -> str:
    """Start of the hash by which ROS 2 tells whether two machines mean the same ControlStep."""
    file = folder / "ControlStep.json"
    if not file.is_file():
        return "without type hash (Humble)"
    for entry in json.loads(file.read_text(encoding="utf-8"))["type_hashes"]:
        if entry["type_name"] == "dexpie_msgs/msg/ControlStep":
            return f"{entry['hash_string'][:19]}..."
    return "without type hash"


def _stale_messages(built: Path) -> list[str]:
    """Names of definitions that differ between the source tree, if this is one, and the build."""
    source = share_directories()[0] / "msg"
    stale = []
    for file in sorted([*source.glob("msg/*.msg"), *source.glob("srv/*.srv")]):
        copy = built.parent / file.parent.name / file.name
        if not copy.is_file() or _fields(copy) != _fields(file):
            stale.append(file.stem)
    return stale


def _fields(definition: Path) -> list[str]:
    """A definition without its comments: another comment is no other message."""
    lines = definition.read_text(encoding="utf-8").splitlines()
    return [line for line in (line.split("#", 1)[0].strip() for line in lines) if line]


_ROUND_TRIP = """
import subprocess, sys, time
from dexpie_ros.runtime import prepare_process
prepare_process()
import rclpy
from std_msgs.msg import String
sender = None
if len(sys.argv) == 1:
    sender = subprocess.Popen([sys.executable, "-c", "CODE = " + repr(CODE) + chr(10) + CODE, "send"])
rclpy.init()
node = rclpy.create_node("dexpie_doctor")
got = []
start = time.monotonic()
if sender is None:
    out = node.create_publisher(String, "dexpie_doctor/echo", 10)
    while time.monotonic() - start < 20:
        out.publish(String(data="x"))
        time.sleep(0.02)
node.create_subscription(String, "dexpie_doctor/echo", got.append, 10)
while not got and time.monotonic() - start < 15:
    rclpy.spin_once(node, timeout_sec=0.05)
sender.kill()
assert got, "no message from another process within 15 s"
print(f"a message from another process after {time.monotonic() - start:.1f} s")
node.destroy_node()
rclpy.shutdown()
"""


def _round_trip() -> list[Finding]:
    answer, error = _try(f"CODE = {_ROUND_TRIP!r}\n" + _ROUND_TRIP)
    if answer is not None:
        return [Finding("DDS", answer.strip())]
    remedy = (
        "see the ROS 2 row; if that is good, check ROS_DOMAIN_ID, the loopback device and firewall"
    )
    return [Finding("DDS", error, State.MISSING, remedy)]


def _libraries() -> list[Finding]:
    rows = []
    names = ("numpy", "pydantic", "mujoco", "mcap", "rosbags", "diffusers", "accelerate", "rich")
    for name in (*names, "opencv-python-headless", "safetensors", "matplotlib"):
        try:
            rows.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found = f"{name} is not installed"
            return [Finding("Python packages", found, State.MISSING, SETUP)]
    return [Finding("Python packages", ", ".join(rows))]


def _torch() -> list[Finding]:
    code = (
        "import torch; print(torch.__version__);"
        "print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    )
    answer, error = _try(code)
    if answer is None:
        return [Finding("torch", f"cannot be imported: {error}", State.MISSING, SETUP)]
    version, _, device = answer.strip().partition("\n")
    if device:
        return [Finding("torch", f"{version}, {device}")]
    return [
        Finding("torch", f"{version}, CPU"),
        Finding(
            "GPU",
            "none that torch can use",
            State.OPTIONAL,
            "the demo needs none; vision actors do: see pytorch.org for the driver and the wheel",
        ),
    ]


_RENDER = """
import os
from dexpie_ros.simulation import rendering
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><light pos='0 0 3'/>"
    "<geom type='plane' size='1 1 1' rgba='1 1 1 1'/><camera name='c' pos='0 0 2'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = rendering.SceneRenderer(model, 64, 48)
assert renderer.render(data, "c").max() > 0, "the image is black"
renderer.close()
print(rendering.BACKEND)
"""


def _rendering() -> list[Finding]:
    answer, error = _try(_RENDER)
    if answer is not None:
        return [Finding("off-screen GL", f"{answer.strip()}: an image was rendered")]
    remedy = "apt-get install -y libegl1 libopengl0 libegl-mesa0 libgl1-mesa-dri"
    return [Finding("off-screen GL", error, State.MISSING, remedy)]


_HARDWARE = {
    "rtde_control": "UR5 (ur_rtde)",
    "pymodbus": "Inspire hand (pymodbus)",
    "serial": "Inspire hand (pyserial)",
    "pyrealsense2": "cameras (pyrealsense2)",
    "openvr": "Vive tracker (openvr)",
    "zmq": "Manus glove (pyzmq)",
}


def _hardware_libraries() -> list[Finding]:
    found: list[str] = []
    missing: list[str] = []
    for module, what in _HARDWARE.items():
        (found if importlib.util.find_spec(module) else missing).append(what)
    text = ", ".join(found) or "none"
    if not missing:
        return [Finding("hardware libraries", text)]
    return [
        Finding(
            "hardware libraries",
            f"{text}; not installed: {', '.join(missing)}",
            State.OPTIONAL,
            ".venv/bin/pip install -e '.[hardware]'",
        )
    ]


def _process_tools() -> list[Finding]:
    if shutil.which("setpriv"):
        return []
    found = "no setpriv: nodes would outlive a supervisor that is killed"
    return [Finding("util-linux", found, State.OPTIONAL, "apt-get install -y util-linux")]


def _space() -> list[Finding]:
    rows = []
    disk = shutil.disk_usage(Path.cwd())
    text = f"{disk.free / GIB:.1f} GiB free in {Path.cwd()}"
    if disk.free < 2 * GIB:
        rows.append(Finding("disk", text, State.MISSING, "free 2 GiB, or work in another folder"))
    else:
        rows.append(Finding("disk", text))
    if not SHARED_MEMORY.is_dir():
        return [*rows, Finding("shared memory", "no /dev/shm", State.OPTIONAL, "DDS will use UDP")]
    memory = shutil.disk_usage(SHARED_MEMORY)
    text = f"{memory.free / GIB:.2f} of {memory.total / GIB:.2f} GiB free in {SHARED_MEMORY}"
    if memory.free < 80 << 20:  # eight processes with a segment of 8 MB each, and ports
        remedy = "docker run --shm-size=256m, or: mount -o remount,size=256m /dev/shm"
        return [*rows, Finding("shared memory", text, State.OPTIONAL, remedy)]
    return [*rows, Finding("shared memory", text)]


def _try(code: str) -> tuple[str | None, str]:
    """Output of Python code in a process of its own, or None and the last line of its error."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return None, "did not answer within 60 s"
    if done.returncode == 0:
        return done.stdout, ""
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    last = lines[-1].strip() if lines else f"ended with status {done.returncode}"
    return None, last
