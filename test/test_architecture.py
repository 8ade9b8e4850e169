"""The house rules that a machine can check: who imports whom, what, and how long files are.

Reads the sources with `ast`; nothing is imported except in the last test.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dexpie_ros"
LONGEST = 350

LEVELS = (
    # a room imports only rooms of lower levels, or of its own level without a circle
    {"geometry", "config", "resources", "contract", "control.types", "realtime"},
    {"command_line", "messages", "control_loop", "shared_memory", "node_spec", "graph_robot", "graph", "security", "graph_log", "supervisor",
     "running_graph", "launching", "parameters", "transport", "runtime", "asking", "parameter_file"},
    {"control", "episodes", "devices", "emulators", "policy", "critic"},
    {"simulation", "training", "evaluation"},
    {"nodes", "web", "doctor", "doctor_hardware", "demo", "bench"},
    {"cli"},
)  # fmt: skip

ROS = {
    "rclpy", "launch", "launch_ros", "builtin_interfaces", "rcl_interfaces", "std_msgs", "std_srvs",
    "sensor_msgs", "geometry_msgs", "diagnostic_msgs", "rosgraph_msgs", "dexpie_msgs",
    "rosidl_runtime_py", "ament_index_python",
}  # fmt: skip
MAY_USE_ROS = {
    "runtime",
    "transport",
    "parameters",
    "launching",
    "nodes",
    "doctor",
    "cli",
    "demo",
    "web",
}
MAY_USE_TORCH = {"policy", "critic", "training"}
MAY_USE_TORCH_WHEN_NEEDED = {"evaluation", "doctor", "demo", "cli", "simulation"}
HARDWARE = {
    "rtde_control", "rtde_receive", "rtde_io", "dashboard_client", "script_client", "pymodbus",
    "serial", "pyrealsense2", "openvr", "zmq", "libusb_package",
}  # fmt: skip
UNSAFE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def statements(tree: ast.AST, at_import_only: bool) -> Iterator[ast.AST]:
    """Nodes that run; with ``at_import_only`` those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if at_import_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield node
        yield from statements(node, at_import_only)


def imports(module: str, at_import_only: bool) -> set[str]:
    """Modules that ``module`` imports, by full name; own ones resolved to existing modules."""
    found = set()
    for node in statements(TREES[module], at_import_only):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: import by the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return found


def closure(module: str) -> set[str]:
    """All that importing ``module`` imports: own modules and the names of foreign packages."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            parents = name.split(".")
            waiting += [".".join(parents[:i]) for i in range(1, len(parents))]
            waiting += imports(name, at_import_only=True)
    return {name if name in MODULES else name.split(".")[0] for name in seen}


def room(module: str) -> str:
    short = module.removeprefix("dexpie_ros").lstrip(".")
    return short if short == "control.types" else short.split(".")[0]


def level(name: str) -> int:
    for number, rooms in enumerate(LEVELS):
        if name in rooms:
            return number
    raise AssertionError(f"dexpie_ros/{name}: say in LEVELS of this test where it belongs")


def rooms_imported() -> dict[str, set[str]]:
    """Room -> the other rooms that its modules import, anywhere in them."""
    edges: dict[str, set[str]] = {}
    for module in MODULES:
        if room(module):
            targets = {room(name) for name in imports(module, False) if name in MODULES}
            edges.setdefault(room(module), set()).update(targets - {room(module), ""})
    return edges


def test_imports_go_downwards():
    wrong = [
        f"{source} imports {target}"
        for source, targets in rooms_imported().items()
        for target in targets
        if level(target) > level(source)
    ]
    assert not wrong, wrong


def test_no_circles():
    edges = rooms_imported()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        for target in edges.get(name, ()):
            visit(target, (*path, name))

    for name in edges:
        visit(name, ())


def test_nothing_below_imports_nodes():
    clients = {
        "demo",
        "web",
        "cli",
        "bench",
    }  # talk to a running graph through nodes.session_client
    for source, targets in rooms_imported().items():
        assert "nodes" not in targets or source in clients, f"{source} imports nodes"


def test_ros_only_where_it_belongs():
    for module in MODULES:
        if room(module) in MAY_USE_ROS:
            continue
        used = {name.split(".")[0] for name in imports(module, False)} & ROS
        assert not used, f"{module} imports {used}"
        through = closure(module) & ROS
        assert not through, f"importing {module} imports {through}"


def test_torch_only_where_it_belongs():
    for module in MODULES:
        name = room(module)
        if name in MAY_USE_TORCH or module == "dexpie_ros.nodes.policy_server":
            continue
        if name not in MAY_USE_TORCH_WHEN_NEEDED:
            used = {name.split(".")[0] for name in imports(module, False)}
            assert "torch" not in used, f"{module} imports torch"
        if name == "nodes":
            assert "torch" not in closure(module), f"importing {module} imports torch"


def test_hardware_libraries_only_when_a_driver_starts():
    for module in MODULES:
        at_import = closure(module) & HARDWARE
        assert not at_import, f"importing {module} imports {at_import}"
        if room(module) != "devices":
            used = {name.split(".")[0] for name in imports(module, False)} & HARDWARE
            assert room(module) in ("emulators", "doctor") or not used, f"{module} imports {used}"


def test_no_code_from_data():
    for module in MODULES:
        used = {name.split(".")[0] for name in imports(module, False)} & UNSAFE
        assert used <= {"pickle"}, f"{module} imports {used}"
        for node in ast.walk(TREES[module]):
            text = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.Call)) else ""
            where = f"{module}:{getattr(node, 'lineno', 0)}: {text}"
            if text.startswith("pickle.") and isinstance(node, ast.Attribute):
                # what torch.load(weights_only=True) raises may be caught
                assert text == "pickle.UnpicklingError", where
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in ("eval", "exec", "compile"), where
                assert call != "torch.load" or "weights_only=True" in text, where
            if isinstance(node, ast.ImportFrom):
                assert node.module != "pickle", where


def test_files_are_short():
    folders = (PACKAGE, ROOT / "launch", ROOT / "test", ROOT / "docs")
    long = {
        str(path.relative_to(ROOT)): count
        for folder in folders
        for path in folder.rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert not long, f"one idea a file, at most {LONGEST} lines: {long}"


def test_pure_rooms_import_where_there_is_no_ros():
    pure = [name for name in MODULES if room(name) and room(name) not in MAY_USE_ROS]
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in sorted(ROS))
    code = f"import sys, importlib\n{blocked}for m in {pure}: importlib.import_module(m)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
