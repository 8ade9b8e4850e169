"""The description of the stacks: arguments, errors, and that nodes know what they are given."""

import dataclasses
import importlib
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dexpie_ros.config import ConfigError
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.driver_parameters import ArmDriverParameters
from dexpie_ros.graph import (
    NODES,
    SIMULATED_TASKS,
    STACKS,
    TASK_LETTERS,
    NodeSpec,
    parse_arguments,
    stack,
)
from dexpie_ros.graph_robot import CONTROL_PORTS

NODE_FOLDER = Path(__file__).parent.parent / "dexpie_ros/nodes"


def kinds(specs):
    return [spec.kind for spec in specs]


def by_name(specs):
    return {spec.name: spec for spec in specs}


def test_simulated_collection():
    specs = stack("collect")
    assert kinds(specs) == [
        "simulated_cell",
        "simulated_operator",
        "teleop",
        "intervention_arbiter",
        "session",
        "recorder",
    ]
    assert all(s.parameters["use_sim_time"] for s in specs if s.kind != "simulated_cell")
    assert all(spec.required for spec in specs)
    assert by_name(specs)["intervention_arbiter"].parameters["wait_for_policy"] is False


def test_deployment_in_simulation_waits_for_the_policy(tmp_path):
    specs = by_name(stack("deploy", policy=tmp_path, mode="sync"))
    assert specs["policy_server"].parameters["policy"] == str(tmp_path)
    assert specs["policy_server"].parameters["inference.mode"] == "sync"
    assert specs["intervention_arbiter"].parameters["wait_for_policy"] is True
    assert specs["session"].parameters["policy"] is True


def test_how_a_policy_is_asked_is_one_argument_each(tmp_path):
    own = {"beta": 2.0, "steps": 5, "optimality": 0.75, "noise": 0.5, "backend": "inductor"}
    given = {**own, "max_delay": 3}
    specs = by_name(stack("deploy", policy=tmp_path, **given))
    server, arbiter = (specs[n].parameters for n in ("policy_server", "intervention_arbiter"))
    assert {n: server[n] for n in own} == own
    # the prefix is as long here as there
    assert server["inference.max_delay"] == arbiter["arbiter.max_delay"] == 3


def test_the_policy_server_knows_what_there_is_to_see(tmp_path):
    def sees(**arguments):
        server = by_name(stack("deploy", policy=tmp_path, **arguments))["policy_server"].parameters
        return server["images"], server["objects"]

    assert sees() == (True, True)
    assert sees(images="none") == (False, True)
    assert sees(sim=False) == (True, False)
    assert sees(hardware="emulated") == (True, False)


def test_robot_has_two_cameras_and_no_lockstep(tmp_path):
    specs = stack("deploy", sim=False, policy=str(tmp_path))
    named = by_name(specs)
    assert len(named) == len(specs)
    assert [named[n].parameters["camera"] for n in ("camera_front", "camera_wrist")] == [
        "front",
        "wrist",
    ]
    assert not {"simulated_cell", "simulated_operator"} & set(kinds(specs))
    assert not any(spec.parameters.get("lockstep") for spec in specs)
    assert not any(spec.parameters["use_sim_time"] for spec in specs)
    # whatever dies is started again while the others hold; without what is required at its start,
    # or with a configuration that it cannot use, all ends
    assert all(s.respawn for s in specs)
    assert {"arm_driver", "hand_driver", "intervention_arbiter", "recorder"} <= {
        s.kind for s in specs if s.required
    }


def test_the_arbiter_knows_that_a_robot_will_be_sent_home():
    def needed(**arguments):
        arbiter = by_name(stack("collect", **arguments))["intervention_arbiter"]
        return arbiter.parameters.get("home_needed", False)

    assert needed(sim=False, homing=True) and needed(hardware="emulated", homing=True)
    assert not needed(sim=False) and not needed(homing=True)


def test_emulated_hardware_adds_emulators_and_changes_addresses_only():
    real = stack("collect", sim=False)
    emulated = stack("collect", sim=False, hardware="emulated", emulators="127.7.7.7")
    assert emulated == stack("collect", hardware="emulated", emulators="127.7.7.7"), "no simulation"
    extra = [spec for spec in emulated if not spec.is_node]
    assert [s.name for s in real] == [s.name for s in emulated if s.is_node]
    assert [s.name for s in extra] == list(CONTROL_PORTS)
    assert emulated[: len(extra)] == extra, "they start first"
    for spec in extra:
        assert f"127.7.7.7:{CONTROL_PORTS[spec.name]}" in spec.arguments
    assert by_name(emulated)["arm_driver"].parameters["arm.host"] == "127.7.7.7"
    for spec in emulated:
        if spec.kind.endswith("_driver"):
            values = config_values(spec)
            assert parameters_of(spec.kind)(**values).hardware == "emulated"


def config_values(spec):
    """Dotted parameters of a spec as keyword arguments of the node's config."""
    nested = {}
    for key, value in spec.parameters.items():
        if key != "use_sim_time":
            *groups, leaf = key.split(".")
            inside = nested
            for group in groups:
                inside = inside.setdefault(group, {})
            inside[leaf] = value
    return nested


def test_emulated_drivers_do_not_look_into_the_laboratory():
    with pytest.raises(ConfigError, match="expected a loopback address"):
        stack("collect", sim=False, hardware="emulated", emulators="192.168.1.10")
    with pytest.raises(ValueError, match=r"arm.host = '192.168.1.10' is no loopback"):
        ArmDriverParameters(hardware="emulated")


def test_the_arbiter_stays_within_what_the_arm_driver_lets_through():
    """Else the arm would lag behind, or stand still beside, what is recorded as executed."""
    arm = ArmLimits()
    given = by_name(stack("collect", sim=False))["intervention_arbiter"].parameters
    limits = {key.rpartition(".")[2]: value for key, value in given.items() if "limits" in key}
    assert all(a > b for a, b in zip(limits["workspace_lower"], arm.workspace_low, strict=True))
    assert all(a < b for a, b in zip(limits["workspace_upper"], arm.workspace_high, strict=True))
    assert limits["linear_speed"] < arm.max_speed
    assert limits["angular_speed"] < arm.max_angular_speed
    # farther than that the arm is braked for lagging; what is refused until then the guard takes back
    assert limits["lead"] < arm.max_lag and limits["angular_lead"] < arm.max_turn
    assert limits["linear_acceleration"] < arm.max_acceleration
    assert limits["angular_acceleration"] < arm.max_angular_acceleration
    assert limits["linear_speed"] * 0.04 < arm.max_step


def test_cell_and_operator_are_of_one_regime():
    for task in SIMULATED_TASKS:
        for regime in ("retry", "terminal"):
            given = {} if regime == "retry" else {"regime": regime}  # as `dexpie evaluate` has it
            specs = by_name(stack("collect", task=task, **given))
            assert specs["simulated_cell"].parameters[f"{task}.regime"] == regime
            seen = specs["simulated_operator"].parameters[f"operator.cell.{task}.regime"]
            assert seen == regime


def test_simulated_tasks_are_those_of_the_simulation():
    from dexpie_ros.evaluation.experiments.settings import TASKS
    from dexpie_ros.simulation.cell import TaskName

    assert get_args(TaskName) == SIMULATED_TASKS
    for task in SIMULATED_TASKS:
        specs = by_name(stack("collect", task=task))
        assert specs["simulated_cell"].parameters["task"] == task
        assert specs["simulated_operator"].parameters["operator.cell.task"] == task
    letters = {key: setup.task for (key, _), setup in TASKS.items()}
    assert letters == TASK_LETTERS
    for letter, task in letters.items():
        assert stack("collect", task=letter) == stack("collect", task=task)
    for own in ("what a laboratory calls it", "A"):
        specs = by_name(stack("collect", sim=False, task=own))
        assert specs["session"].parameters["task"] == own


@pytest.mark.parametrize("images", ["jpeg", "raw", "none"])
def test_images(images):
    specs = by_name(stack("collect", images=images))
    assert specs["simulated_cell"].parameters["images"] is (images != "none")
    assert specs["recorder"].parameters["images"] == images


def test_strings_of_the_command_line_mean_the_same_as_values():
    words = ["sim:=True", "rtf:=0", "seed:=3", "record:=false", "lockstep:=0"]
    values = {"sim": True, "rtf": 0.0, "seed": 3, "record": False, "lockstep": False}
    assert stack("collect", **parse_arguments(words)) == stack("collect", **values)


def test_command_line_of_a_node():
    spec = NodeSpec("x", name="n", namespace="/a/b", remaps={"in": "/out"}, parameters={"p": 1})
    assert spec.ros_arguments("f.yaml") == [
        "--ros-args", "-r", "__node:=n", "-r", "__ns:=/a/b", "--params-file", "f.yaml",
        "-r", "in:=/out",
    ]  # fmt: skip
    assert spec.parameter_yaml() == {"/a/b/n": {"ros__parameters": {"p": 1}}}
    assert (spec.executable, spec.module) == ("dexpie-x", "dexpie_ros.nodes.x")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("colect", {}, "unknown stack: colect; did you mean collect? known: collect, deploy"),
        ("collect", {"tsk": "a"}, "unknown argument of stack collect: tsk; did you mean task?"),
        ("collect", {"images": "png"}, "images:=png: known values: jpeg, raw, none"),
        ("collect", {"rtf": "fast"}, "rtf:=fast: expected a number"),
        ("collect", {"seed": "1.5"}, "seed:=1.5: expected a whole number"),
        ("collect", {"sim": "yes"}, "sim:=yes: expected true or false"),
        (
            "collect",
            {"task": "juggle"},
            "task:=juggle: simulated are bottle (A), drawer (B), box (C)",
        ),
        ("collect", {"hardware": "fake"}, "hardware:=fake: known values: real, emulated"),
        ("deploy", {}, "needs a trained policy: policy:=<directory>"),
        ("deploy", {"policy": "/no/such"}, "policy:=/no/such: no such file or directory"),
        ("collect", {"parameters": "/no.yaml"}, "parameters:=/no.yaml: no such file"),
        ("collect", {"calibration": "/"}, "calibration:=/: belongs to a person's devices"),
    ],
)
def test_errors_name_what_is_known(name, arguments, message):
    with pytest.raises(ConfigError) as caught:
        stack(name, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("word", ["sim=true", "sim", ":=true", ""])
def test_malformed_words(word):
    with pytest.raises(ConfigError, match="expected name:=value"):
        parse_arguments([word])


def present_kinds():
    return [kind for kind in NODES if (NODE_FOLDER / f"{kind}.py").exists()]


@pytest.mark.parametrize("kind", present_kinds())
def test_nodes_declare_every_parameter_that_stacks_give_them(kind, tmp_path):
    pytest.importorskip("rclpy")
    config = parameters_of(kind)
    everything = [
        spec
        for name in STACKS
        for sim in (True, False)
        for spec in stack(name, sim=sim, policy=str(tmp_path))
        if spec.kind == kind
    ]
    for spec in everything:
        for key, value in spec.parameters.items():
            if key != "use_sim_time":
                check_declared(config, key, value)


def parameters_of(kind):
    module = importlib.import_module(f"dexpie_ros.nodes.{kind}")
    configs = [
        value
        for name, value in vars(module).items()
        if dataclasses.is_dataclass(value) and name.endswith("Parameters")
    ]
    assert len(configs) == 1, f"nodes/{kind}.py: expected one class ...Parameters"
    return configs[0]


def check_declared(config, key, value):
    *groups, leaf = key.split(".")
    for group in groups:
        config = config.__pydantic_fields__[group].annotation
    fields = config.__pydantic_fields__
    assert leaf in fields, f"{config.__name__} has no {key}; it has {', '.join(fields)}"
    required = {n: value for n, f in fields.items() if f.is_required()}
    taken = getattr(config(**{**required, leaf: value}), leaf)
    assert taken == (tuple(value) if isinstance(value, list) else value)


def test_example_parameter_file_names_parameters_that_nodes_have():
    pytest.importorskip("rclpy")
    file = NODE_FOLDER.parent.parent / "config/parameters.example.yaml"
    for kind, section in yaml.safe_load(file.read_text()).items():
        assert kind in NODES
        for key, value in section["ros__parameters"].items():
            check_declared(parameters_of(kind), key, value)
    assert stack("collect", parameters=str(file))[0].parameter_files == (str(file),)
