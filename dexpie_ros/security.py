"""SROS 2: who may say what on the graph, and `dexpie security` that makes the keys for it.

The policy follows from the contract: every node may publish its own topics and serve its own
services, so that only the arbiter may publish /control/command, and only those who lead or operate
may ask. Everybody may listen. `config/sros2_policy.xml` is this policy as `ros2 security` reads it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from dexpie_ros import contract
from dexpie_ros.config import ConfigError, write_atomic
from dexpie_ros.resources import share

POLICY_FILE = "sros2_policy.xml"
ROOT = "/dexpie"
ENCLAVES: dict[str, tuple[str, ...]] = {
    "arm_driver": ("arm_driver",),
    "hand_driver": ("hand_driver",),
    "camera_driver": ("camera_front", "camera_wrist"),
    "tracker_driver": ("tracker_driver",),
    "glove_driver": ("glove_driver",),
    "teleop": ("teleop",),
    "policy_server": ("policy_server",),
    "intervention_arbiter": ("intervention_arbiter",),
    "session": ("session",),
    "recorder": ("recorder",),
    "keyboard": ("keyboard",),
    "simulated_cell": ("simulated_cell",),
    "simulated_operator": ("simulated_operator",),
    "glove_motion": ("glove_motion",),
    "replay": ("replay",),
    "operator": (
        *("session_client", "trials", "web_page", "monitor", "bench", "jog"),
        *("glove_listener", "dexpie_doctor"),
    ),
}
"""Executable, or ``replay`` and ``operator`` for programs beside the graph -> names of its nodes."""
SERVERS = {
    "intervention": "intervention_arbiter",
    "session": "session",
    "recorder": "recorder",
    "policy": "policy_server",
    "teleop": "teleop",
    "simulation": "simulated_cell",
    "arm": "arm_driver",
    "hand": "hand_driver",
}
"""First part of a service's name -> who serves it."""
ASKS: dict[str, tuple[str, ...]] = {
    "session": ("/intervention/", "/recorder/", "/policy/", "/simulation/"),
    "keyboard": ("/intervention/", "/session/", "/teleop/"),
    "operator": ("/intervention/", "/session/", "/teleop/", "/arm/", "/hand/"),
    "replay": ("/session/",),
    "simulated_operator": ("/intervention/toggle", "/teleop/calibrate", "/session/end_episode"),
}
"""Who may ask which services, by the beginnings of their names."""
MANUS = ("/manus_glove_0", "/manus_glove_1")
"""The default of the glove driver's `topics`."""
HEARS: dict[str, tuple[str, ...]] = {
    "glove_driver": MANUS,
    "glove_listener": MANUS,
    "dexpie_doctor": ("/dexpie_doctor/echo",),
}
"""Topics beside the contract that a node listens to: the vendor's of the glove, the doctor's own."""
SAYS: dict[str, tuple[str, ...]] = {"dexpie_doctor": ("/dexpie_doctor/echo",)}
"""Likewise, that it publishes."""
_OWN_SERVICES = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters",
                 "set_parameters", "set_parameters_atomically", "get_type_description")  # fmt: skip


def publishes(enclave: str) -> list[str]:
    """Topics that ``enclave`` may publish."""
    names = []
    for topic in contract.TOPICS:
        who = topic.publisher.split("|")
        anyone = topic.publisher == contract.ANYONE and enclave in ("operator", "keyboard")
        if enclave in who or topic.publisher == "all" or anyone:
            names.append(topic.name)
    return names


def serves(enclave: str) -> list[str]:
    """Services that ``enclave`` answers."""
    return [name for name in contract.SERVICES if SERVERS[name.split("/")[1]] == enclave]


def asks(enclave: str) -> list[str]:
    """Services that ``enclave`` may call."""
    return [name for name in contract.SERVICES if name.startswith(ASKS.get(enclave, ("//",)))]


def policy_xml() -> str:
    """The policy of the graph in the format of SROS 2."""
    everything = [topic.name for topic in contract.TOPICS]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<policy version="0.2.0">', "  <enclaves>"]
    for enclave, nodes in ENCLAVES.items():
        lines += [f"    <enclave path={quoteattr(f'{ROOT}/{enclave}')}>", "      <profiles>"]
        for node in nodes:
            lines.append(f'        <profile ns="/" node={quoteattr(node)}>')
            own = [f"~/{service}" for service in _OWN_SERVICES]
            lines += _rule("service", "reply", [*own, *serves(enclave)])
            lines += _rule("service", "request", asks(enclave))
            said = ["/rosout", "/parameter_events", *publishes(enclave), *SAYS.get(node, ())]
            lines += _rule("topic", "publish", said)
            heard = ["/parameter_events", *everything, *HEARS.get(node, ())]
            lines += _rule("topic", "subscribe", heard)
            lines.append("        </profile>")
        lines += ["      </profiles>", "    </enclave>"]
    return "\n".join([*lines, "  </enclaves>", "</policy>", ""])


def _rule(kind: str, verb: str, names: Iterable[str]) -> list[str]:
    inside = [f"            <{kind}>{name}</{kind}>" for name in names]
    if not inside:
        return []
    return [f'          <{kind}s {verb}="ALLOW">', *inside, f"          </{kind}s>"]


def make_keystore(keystore: Path, policy: Path) -> None:
    """Keys and permissions for every enclave with `ros2 security`; what exists is kept.

    ConfigError where the tools are not installed or refuse.
    """
    if shutil.which("ros2") is None:
        raise ConfigError(
            "no `ros2` on the PATH: source a ROS 2 installation that has sros2 "
            "(apt install ros-<distro>-sros2); the wheels of PyPI do not have it"
        )
    if not (keystore / "enclaves").is_dir():
        _ros2("create_keystore", str(keystore))
    for enclave in ENCLAVES:
        path = f"{ROOT}/{enclave}"
        if not (keystore / "enclaves" / path.strip("/")).is_dir():
            _ros2("create_enclave", str(keystore), path)
        _ros2("create_permission", str(keystore), path, str(policy))


def _ros2(*arguments: str) -> None:
    command = ["ros2", "security", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ConfigError(f"`{' '.join(command)}` failed: {said}")


def enclave_environment(kind: str) -> dict[str, str]:
    """What a node's process needs to find its keys; empty unless security is switched on."""
    if os.environ.get("ROS_SECURITY_ENABLE", "").lower() != "true" or kind not in ENCLAVES:
        return {}
    return {"ROS_SECURITY_ENCLAVE_OVERRIDE": f"{ROOT}/{kind}"}


def add_parser(groups: Any) -> None:
    """Add the group ``security``."""
    parser = groups.add_parser("security", help="SROS 2: only the arbiter may command the arm")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    policy = actions.add_parser("policy", help="write who may say what as an SROS 2 policy")
    policy.add_argument("--output", type=Path, default=Path(POLICY_FILE))
    policy.set_defaults(run=_policy)
    keystore = actions.add_parser("keystore", help="make keys and permissions of all nodes")
    keystore.add_argument("keystore", type=Path)
    keystore.add_argument("--policy", type=Path, default=None, help="default: the one of config/")
    keystore.set_defaults(run=_keystore)


def _policy(options: argparse.Namespace) -> int:
    write_atomic(options.output, policy_xml())
    print(f"policy: {options.output}")
    return 0


def _keystore(options: argparse.Namespace) -> int:
    keystore = options.keystore.absolute()
    make_keystore(keystore, options.policy or share("config", POLICY_FILE))
    print(f"keystore: {keystore}; in every terminal before the graph is started:")
    print(f"  export ROS_SECURITY_KEYSTORE={keystore}")
    print("  export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce")
    print(
        f"programs beside the graph (web, monitor): ROS_SECURITY_ENCLAVE_OVERRIDE={ROOT}/operator"
    )
    return 0
