"""The SROS 2 policy: only the arbiter commands; the command that makes the keys."""

import ast
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import dexpie_ros
from dexpie_ros import contract, doctor
from dexpie_ros.cli import main
from dexpie_ros.devices.driver_parameters import GloveDriverParameters
from dexpie_ros.graph import NODES, STACKS, stack
from dexpie_ros.security import ENCLAVES, SERVERS, asks, policy_xml, publishes

FILE = Path(__file__).parent.parent / "config/sros2_policy.xml"


def allowed(verb: str, kind: str) -> dict[str, set[str]]:
    """Name -> enclaves that may ``verb`` it, read from the file as SROS 2 would."""
    found: dict[str, set[str]] = {}
    for enclave in ElementTree.parse(FILE).getroot().iter("enclave"):
        for rule in enclave.iter(f"{kind}s"):
            if rule.get(verb) == "ALLOW":
                for item in rule.iter(kind):
                    found.setdefault(item.text, set()).add(enclave.get("path"))
    return found


def test_the_file_is_the_policy():
    assert FILE.read_text(encoding="utf-8") == policy_xml(), "run `dexpie security policy`"


def test_only_the_arbiter_may_command_and_every_topic_has_its_publishers_only():
    may = allowed("publish", "topic")
    assert may["/control/command"] == {"/dexpie/intervention_arbiter"}
    for topic in contract.TOPICS:
        if topic.publisher not in ("all", contract.ANYONE):
            assert may[topic.name] == {f"/dexpie/{who}" for who in topic.publisher.split("|")}
    assert "/control/command" not in publishes("operator")


def test_services_have_one_server_and_few_who_ask():
    replies, requests = allowed("reply", "service"), allowed("request", "service")
    for name in contract.SERVICES:
        assert replies[name] == {f"/dexpie/{SERVERS[name.split('/')[1]]}"}
    assert requests["/recorder/start_episode"] == {"/dexpie/session"}
    assert "/dexpie/policy_server" not in set().union(*requests.values())
    assert asks("recorder") == []


def names_in_the_code() -> set[str]:
    """What the nodes are called that the code makes, by reading it."""
    makers = {"create_node", "ContractNode", "Node", "SessionClient"}
    found = set()
    for file in Path(dexpie_ros.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for part in ast.walk(tree):
            first = part.args[0] if isinstance(part, ast.Call) and part.args else None
            if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                continue
            made = part.func.attr if isinstance(part.func, ast.Attribute) else ""
            made = part.func.id if isinstance(part.func, ast.Name) else made
            shell = made == "__init__" and file.parent.name == "nodes"
            if made in makers or shell:
                found.add(first.value)
    # The doctor's node lives in the text of a program that it starts, the client's is a default.
    client = Path(dexpie_ros.__file__).parent / "nodes/session_client.py"
    found |= set(re.findall(r'create_node\("(\w+)"\)', Path(doctor.__file__).read_text()))
    return found | set(re.findall(r'name: str = "(session\w+)"', client.read_text()))


def test_every_node_is_named_in_the_policy(tmp_path):
    named = {name for nodes in ENCLAVES.values() for name in nodes}
    in_code = names_in_the_code()
    assert {"web_page", "dexpie_doctor", "glove_listener", "session_client", "jog"} <= in_code
    assert in_code - named == {"camera_driver"}, "which the graph starts under the cameras' names"
    robot = {"collect": {"sim": False}, "deploy": {"sim": False, "policy": str(tmp_path)}}
    started = {spec.name for name in STACKS for spec in stack(name, **robot[name])}
    assert {"camera_front", "camera_wrist"} <= started and started <= named
    for enclave in ElementTree.parse(FILE).getroot().iter("enclave"):
        profiles = {profile.get("node") for profile in enclave.iter("profile")}
        assert profiles == set(ENCLAVES[enclave.get("path").removeprefix("/dexpie/")])


def test_the_glove_is_heard_and_the_doctor_hears_himself():
    heard, said = allowed("subscribe", "topic"), allowed("publish", "topic")
    for topic in GloveDriverParameters().topics:
        assert heard[topic] == {"/dexpie/glove_driver", "/dexpie/operator"}
    assert said["/dexpie_doctor/echo"] == heard["/dexpie_doctor/echo"] == {"/dexpie/operator"}


def test_every_node_has_an_enclave(monkeypatch, tmp_path):
    assert set(NODES) <= set(ENCLAVES)
    monkeypatch.delenv("ROS_SECURITY_ENABLE", raising=False)
    assert all("ROS_SECURITY_ENCLAVE_OVERRIDE" not in spec.env for spec in stack("collect"))
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    for spec in stack("collect"):
        assert spec.env["ROS_SECURITY_ENCLAVE_OVERRIDE"] == f"/dexpie/{spec.kind}"


def test_the_keystore_is_made_with_the_tools_of_ros(tmp_path, monkeypatch, capsys):
    log, tool = tmp_path / "log", tmp_path / "bin" / "ros2"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    assert main(["security", "keystore", str(tmp_path / "keys")]) == 0
    calls = log.read_text().splitlines()
    assert calls[0] == f"security create_keystore {tmp_path / 'keys'}"
    assert sum("create_enclave" in call for call in calls) == len(ENCLAVES)
    assert sum("create_permission" in call for call in calls) == len(ENCLAVES)
    assert "ROS_SECURITY_KEYSTORE" in capsys.readouterr().out
    tool.write_text("#!/bin/sh\necho no openssl >&2\nexit 1\n")
    assert main(["security", "keystore", str(tmp_path / "other")]) == 2
    assert "no openssl" in capsys.readouterr().err


def test_without_the_tools_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["security"])
    assert main(["security", "keystore", str(tmp_path / "keys")]) == 2
    assert "sros2" in capsys.readouterr().err
