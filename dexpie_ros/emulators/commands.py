"""`dexpie emulate NAME [options]` and `dexpie emulate tell ADDRESS REQUEST`: devices on loopback."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

import yaml

from dexpie_ros.config import ConfigError
from dexpie_ros.emulators.channel import control_address
from dexpie_ros.emulators.peer import NAMES, Control


def add_parser(groups: argparse._SubParsersAction) -> None:
    """Hook the commands into `dexpie`."""
    parser = groups.add_parser(
        "emulate", help="a device that speaks its real protocol on loopback, with faults"
    )
    actions = parser.add_subparsers(dest="emulator", required=True, metavar="DEVICE")
    for name in NAMES:
        # The emulator itself knows its options, --help too: here none of them may look like one.
        action = actions.add_parser(
            name, add_help=False, prefix_chars="\0", help=f"run the {name} emulator"
        )
        action.add_argument("arguments", nargs="*")
        action.set_defaults(run=_run_emulator)
    tell = actions.add_parser("tell", help="inject a fault into a running emulator")
    tell.add_argument("address", help="of its control channel, for instance 127.0.0.2:7101")
    tell.add_argument("request", help="what to do; `help` lists it")
    tell.add_argument("values", nargs="*", metavar="key=value", help="arguments of the request")
    tell.set_defaults(run=_run_tell)


def _run_emulator(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"dexpie_ros.emulators.{options.emulator}")
    module.main(options.arguments)
    return 0


def _run_tell(options: argparse.Namespace) -> int:
    values: dict[str, Any] = {}
    for word in options.values:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r}: expected key=value, for instance on=false")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{word!r}: {value!r} is no YAML value; quote it") from None
    try:
        address = control_address(options.address)
    except ValueError as error:
        raise ConfigError(
            f"address of the emulator: {error}; give that of its control channel, for instance "
            "127.0.0.2:7101 (with port 0 it prints the port when it starts)"
        ) from None
    with Control(*address) as control:
        print(json.dumps(control.ask(options.request, **values), indent=1))
    return 0
