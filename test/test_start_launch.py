"""`ros2 launch` and `dexpie launch` start the same command lines with the same parameters."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from dexpie_ros.graph import EXIT_CONFIG, NODES, STACKS, parse_arguments, stack
from dexpie_ros.supervisor import node_command

ROOT = Path(__file__).parent.parent
CASES = [
    ("collect", []),
    ("collect", ["sim:=true", "rtf:=0", "images:=none", "record:=false", "seed:=7"]),
    ("collect", ["sim:=false"]),
    ("collect", ["hardware:=emulated"]),
    ("deploy", ["policy:=POLICY", "mode:=sync", "parameters:=FILE"]),
    ("deploy", ["policy:=POLICY", "sim:=False", "record:=0"]),
]


@pytest.fixture
def words(request, tmp_path):
    (tmp_path / "policy").mkdir()
    file = tmp_path / "more.yaml"
    file.write_text("/teleop: {ros__parameters: {lockstep: true}}\n")
    return [
        w.replace("POLICY", str(tmp_path / "policy")).replace("FILE", str(file))
        for w in request.param
    ]


def started_by_supervisor(name, words):
    """(executable, ROS arguments with contents in place of files, environment) of each node."""
    described = []
    for spec in stack(name, **parse_arguments(words)):
        command = node_command(spec, "PARAMETERS")
        start = command.index(spec.module)
        assert command[start - 2 : start] == [sys.executable, "-m"]
        described.append(
            (spec.executable, with_contents(command[start + 1 :], {"PARAMETERS": spec}), spec.env)
        )
    return described


def with_contents(arguments, specs=None):
    """Parameter files by what they hold, so that temporary names do not matter."""
    shown = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        if before != "--params-file":
            shown.append(word)
        elif specs and word in specs:
            shown.append(specs[word].parameter_yaml())
        else:
            shown.append(yaml.safe_load(Path(word).read_text()))
    return shown


class FakeNode:
    """launch_ros.actions.Node as far as the command line goes (launch_ros 0.19 to 0.28)."""

    def __init__(self, *, package, executable, name, namespace, parameters, remappings, **options):
        assert package == "dexpie_ros"
        self.executable, self.options = executable, options
        self.arguments = ["--ros-args", "-r", f"__node:={name}", "-r", f"__ns:={namespace}"]
        for given in parameters:
            full_name = f"{namespace.rstrip('/')}/{name}"
            content = {full_name: {"ros__parameters": given}}
            if not isinstance(given, dict):
                content = yaml.safe_load(Path(given).read_text())
            self.arguments += ["--params-file", content]
        for source, target in remappings:
            self.arguments += ["-r", f"{source}:={target}"]


class FakeProcess:
    """launch.actions.ExecuteProcess likewise: what is no ROS node."""

    def __init__(self, *, cmd, name, **options):
        assert cmd[:2] == [sys.executable, "-m"]
        self.executable, self.arguments, self.options = "dexpie-emulator", cmd[3:], options
        assert cmd[2] == f"dexpie_ros.emulators.{MODULES.get(name, name.split('_')[1])}"


MODULES = {"emulator_front": "realsense", "emulator_wrist": "realsense"}


@pytest.fixture
def fake_launch(monkeypatch):
    def module(name, **members):
        made = types.ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)

    def action(kind):
        return lambda *args, **options: types.SimpleNamespace(kind=kind, args=args, **options)

    class Configuration:
        def __init__(self, name):
            self.name = name

        def perform(self, context):
            return context[self.name]

    module("launch", LaunchContext=dict, LaunchDescription=list)
    module(
        "launch.actions",
        DeclareLaunchArgument=action("argument"),
        EmitEvent=action("emit"),
        ExecuteProcess=FakeProcess,
        OpaqueFunction=action("function"),
        Shutdown=action("shutdown"),
    )
    module("launch.events")
    module(
        "launch.events.process", ProcessExited=object, ShutdownProcess=action("shutdown_process")
    )
    module("launch.substitutions", LaunchConfiguration=Configuration)
    module("launch_ros")
    module("launch_ros.actions", Node=FakeNode)
    monkeypatch.delitem(sys.modules, "dexpie_ros.launching", raising=False)
    yield
    sys.modules.pop("dexpie_ros.launching", None)


def load_launch_file(name):
    spec = importlib.util.spec_from_file_location(
        f"{name}_launch", ROOT / f"launch/{name}.launch.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.mark.parametrize(("name", "words"), CASES, indirect=["words"])
def test_launch_files_build_what_the_supervisor_starts(fake_launch, name, words):
    *arguments, function = load_launch_file(name)
    context = {argument.args[0]: argument.default_value for argument in arguments}
    assert list(context) == list(STACKS[name])
    context |= parse_arguments(words)
    nodes = function.function(context)

    assert [(n.executable, n.arguments) for n in nodes] == [
        (executable, arguments) for executable, arguments, _ in started_by_supervisor(name, words)
    ]
    for node, spec in zip(nodes, stack(name, **parse_arguments(words)), strict=True):
        assert node.options["respawn"] is spec.respawn
        # so that it is not started before it was told not to be
        assert node.options["respawn_delay"] > 0
        for code in (0, 1, -9, EXIT_CONFIG):
            assert done_about(node.options["on_exit"], code) == wanted(spec, code)


def done_about(on_exit, code):
    """ "shutdown" of the launch, "stopped" for this process alone, or "" where nothing is done."""
    this = object()
    done = on_exit(types.SimpleNamespace(returncode=code, action=this), None)
    if not done:
        return ""
    (action,) = done
    if action.kind == "shutdown":
        return "shutdown"
    matches = action.event.process_matcher
    assert action.event.kind == "shutdown_process" and matches(this) and not matches(object())
    return "stopped"


def wanted(spec, code):
    """As `dexpie launch` (test_start_supervisor): a crash is no reason to give up, a config is."""
    again = spec.respawn and (code in (1, -9) or (code == 0 and not spec.required))
    if again:
        return ""
    if spec.required:
        return "shutdown"
    return "stopped" if spec.respawn else ""


def test_there_is_a_launch_file_for_every_stack():
    assert {p.name.split(".")[0] for p in (ROOT / "launch").glob("*.launch.py")} == set(STACKS)


REAL = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *words = sys.argv[1:]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[w.split(":=") for w in words])]))
sys.exit(service.run())
"""

EXECUTABLE = """#!{python}
import json, os, sys, time
sys.path.insert(0, {tests!r})
from test_start_launch import with_contents
out = os.path.join({out!r}, os.path.basename(sys.argv[0]) + str(os.getpid()))
with open(out, "w") as file:
    json.dump([os.path.basename(sys.argv[0]), with_contents(sys.argv[1:])], file)
os.rename(out, out + ".json")
while len([f for f in os.listdir({out!r}) if f.endswith(".json")]) < {count}:
    time.sleep(0.02)
"""


@pytest.mark.parametrize(("name", "words"), CASES[4:5], indirect=["words"])
def test_real_ros2_launch_starts_the_same(name, words, tmp_path):
    pytest.importorskip("launch.actions", reason="needs a ROS 2 installation with launch")
    pytest.importorskip("launch_ros.actions")
    expected = started_by_supervisor(name, words)
    out, folder = tmp_path / "out", tmp_path / "prefix/lib/dexpie_ros"
    index = tmp_path / "prefix/share/ament_index/resource_index/packages"
    for path in (out, folder, index):
        path.mkdir(parents=True)
    (index / "dexpie_ros").touch()
    for kind in NODES:
        script = folder / f"dexpie-{kind}"
        values = {"python": sys.executable, "tests": str(ROOT / "test"), "out": str(out)}
        script.write_text(EXECUTABLE.format(count=len(expected), **values))
        script.chmod(0o755)
    prefixes = [str(tmp_path / "prefix"), os.environ.get("AMENT_PREFIX_PATH", "")]
    environment = {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, prefixes))}
    file = str(ROOT / f"launch/{name}.launch.py")
    done = subprocess.run(
        [sys.executable, "-c", REAL, file, *words],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    started = [json.loads(file.read_text()) for file in out.glob("*.json")]
    assert sorted(started, key=str) == sorted(([e, a] for e, a, _ in expected), key=str)
