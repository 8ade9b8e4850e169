"""What the packaging files say is true: versions, dependencies, executables, shipped files."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from test_architecture import MODULES, ROS, imports

import dexpie_ros
from dexpie_ros.graph import NODES

ROOT = Path(__file__).parent.parent
IMPORT_NAMES = {
    "opencv-python-headless": {"cv2"},
    "PyYAML": {"yaml"},
    "ur_rtde": {"rtde_control", "rtde_receive", "rtde_io", "dashboard_client", "script_client"},
    "pyserial": {"serial"},
    "pyzmq": {"zmq"},
    "libusb-package": {"libusb_package"},
    "pydantic": {"pydantic", "pydantic_core"},
}
"""Where the import is not called after the distribution."""


def declared() -> dict[str, list[str]]:
    """The lists of setup.py, read without running it."""
    lists: dict[str, list[str]] = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id == "REQUIRES":
                lists["required"] = ast.literal_eval(node.value)
            elif node.targets[0].id == "EXTRAS":
                lists.update(ast.literal_eval(node.value))
    return lists


def distribution(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement)[0]


def import_names(requirement: str) -> set[str]:
    name = distribution(requirement)
    return IMPORT_NAMES.get(name, {name.replace("-", "_")})


def used() -> dict[str, str]:
    """Foreign package -> a module that imports it."""
    found = {}
    for module in MODULES:
        for name in imports(module, at_import_only=False):
            found[name.split(".")[0]] = module
    own = {*sys.stdlib_module_names, *ROS, "dexpie_ros"}
    return {name: module for name, module in found.items() if name not in own}


def test_every_import_is_declared():
    lists = declared()
    known = {n for k in lists if k != "dev" for r in lists[k] for n in import_names(r)}
    # A benchmark may measure with what the tests use; it says so where that is not installed.
    tools = {n for r in lists["dev"] for n in import_names(r)}
    missing = {
        name: module
        for name, module in used().items()
        if name not in known and not (name in tools and module.endswith("benchmarks"))
    }
    assert not missing, f"add to setup.py: {missing}"


def test_nothing_is_required_that_nothing_imports():
    idle = [r for r in declared()["required"] if not import_names(r) & used().keys()]
    assert not idle, f"drop from setup.py: {idle}"


@pytest.mark.parametrize("kind", ["required", "wheels", "hardware", "dev"])
def test_ranges_have_both_ends(kind):
    for requirement in declared()[kind]:
        assert "==" in requirement or re.search(r">=.*,<", requirement), requirement


def test_installed_versions_are_in_range():
    packaging = pytest.importorskip("packaging.requirements")
    for text in declared()["required"]:
        requirement = packaging.Requirement(text)
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version, prereleases=True), f"{text}: {version}"


def test_message_build_and_runtime_use_the_same_ros_packages():
    text = (ROOT / "msg/pyproject.toml").read_text()
    build = dict(re.findall(r'"(ros-[a-z-]+)==([\d.]+)"', text))
    runtime = {distribution(r): r.split("==")[1] for r in declared()["wheels"]}
    shared = build.keys() & runtime.keys()
    assert shared >= {"ros-std-msgs", "ros-geometry-msgs"}
    assert {n: build[n] for n in shared} == {n: runtime[n] for n in shared}


def test_one_version_everywhere():
    setup = re.search(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())
    messages = re.search(r'^version = "([\d.]+)"', (ROOT / "msg/pyproject.toml").read_text(), re.M)
    assert setup and messages
    versions = {
        setup.group(1),
        messages.group(1),
        *(
            ElementTree.parse(ROOT / f).findtext("version")
            for f in ("package.xml", "msg/package.xml")
        ),
    }
    assert versions == {dexpie_ros.__version__}


def test_every_node_is_an_executable_and_known_to_the_graph():
    nodes = [m.rpartition(".")[2] for m in MODULES if m.startswith("dexpie_ros.nodes.")]
    with_main = {n for n in nodes if "def main(" in MODULES[f"dexpie_ros.nodes.{n}"].read_text()}
    assert with_main <= set(NODES), f"not in graph.NODES: {with_main - set(NODES)}"
    for name in with_main:
        text = MODULES[f"dexpie_ros.nodes.{name}"].read_text()
        ending = 'if __name__ == "__main__":\n    sys.exit(main())'
        assert ending in text, f"nodes/{name}.py: run with -m, its exit status would be lost"
    for name in set(nodes) & set(NODES):
        assert name in with_main, f"nodes/{name}.py has no main()"


def test_ros_dependencies_are_named_for_rosdep():
    tree = ElementTree.parse(ROOT / "package.xml")
    named = {e.text for e in tree.iter() if e.tag.endswith("depend")}
    needed = {n.split(".")[0] for m in MODULES for n in imports(m, False)} & ROS
    assert needed - {"launch_ros", "launch"} <= named, needed - named
    assert {"ros2launch", "launch_ros", "launch", "dexpie_msgs", "rclpy"} <= named
    assert tree.findtext("export/build_type") == "ament_python"


def test_metadata_that_colcon_and_ament_look_for():
    done = subprocess.run(
        [sys.executable, "setup.py", "--name", "--version"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-2:] == ["dexpie_ros", dexpie_ros.__version__]
    assert (ROOT / "resource/dexpie_ros").exists()
    assert "lib/dexpie_ros" in (ROOT / "setup.cfg").read_text()
