"""A config dataclass as ROS parameters: one parameter per field, nested fields with dots.

    config = declare_config(node, ArbiterConfig)        # ... -p limits.linear_speed:=0.2

ROS checks a parameter's type only against its default and ignores names that nobody declared; here
both are errors that say what is known. The parameters are read-only, since a config is read once when
the node starts, but for those that a node names as ``changeable`` and watches itself.
"""

from __future__ import annotations

import array
import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter
from pydantic_core import PydanticUndefined
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from dexpie_ros.config import ConfigError, from_dict

T = TypeVar("T")

_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy itself declares; they may be given to every node."""


def declare_config(
    node: Node, cls: type[T], prefix: str = "", changeable: Collection[str] = ()
) -> T:
    """Declare the fields of ``cls`` on ``node`` and make the config from what was given.

    Args:
        node: its parameter overrides (``-p``, ``--params-file``) are what counts as given.
        cls: a class made with :func:`dexpie_ros.config.config`. Fields that ROS has no type for
            (nested lists, mappings) are parameters of type string that hold YAML.
        prefix: ``"limits"`` declares ``limits.<field>``; unknown names under it are refused.
        changeable: names of the parameters that may be set while the node runs.

    Raises:
        ConfigError: an unknown name under ``prefix`` or a value that ``cls`` refuses.
    """
    values = _declare(node, cls, f"{prefix}." if prefix else "", changeable)
    if prefix:
        refuse_unknown_parameters(node, prefix)
    return from_dict(cls, values, f"parameters of node {node.get_name()}")


def refuse_unknown_parameters(node: Node, prefix: str = "") -> None:
    """Raise ConfigError if a parameter (under ``prefix``) was given that ``node`` never declared.

    That includes the wildcard section of a parameter file: a file for several nodes wants one
    section for each node.
    """
    # rclpy keeps what was given here, in all versions from Humble on, and has no public name for it
    given: Mapping[str, Any] = getattr(node, "_parameter_overrides", {})
    inside = f"{prefix}." if prefix else ""
    known = sorted(name for name in node._parameters if name.startswith(inside))
    for name in given:
        if not name.startswith(inside) or name.startswith(_OF_ROS) or node.has_parameter(name):
            continue
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"node {node.get_name()}: unknown parameter {name}; {hint}")


def _declare(
    node: Node, cls: Any, prefix: str, changeable: Collection[str], outer: Any = None
) -> dict[str, Any]:
    """``outer``: the default instance of ``cls`` in the config around it, whose values win."""
    values: dict[str, Any] = {}
    for name, field in cls.__pydantic_fields__.items():
        key = prefix + name
        default = field.get_default(call_default_factory=True)
        if outer is not None:
            default = getattr(outer, name)
        if dataclasses.is_dataclass(field.annotation):
            inner = None if default is PydanticUndefined else default
            values[name] = _declare(node, field.annotation, f"{key}.", changeable, inner)
            continue
        plain = None
        if default is not PydanticUndefined:
            plain = TypeAdapter(field.annotation).dump_python(default, mode="json")
        text = field.description or ""
        value, is_yaml = _parameter_value(node, key, plain, text, key not in changeable)
        if value is not None:
            values[name] = _parse(node, key, value) if is_yaml else value
        elif default is not PydanticUndefined:
            values[name] = default
    return values


def _parameter_value(
    node: Node, key: str, plain: Any, description: str, fixed: bool
) -> tuple[Any, bool]:
    """Declare one parameter; its value (None if unset) and whether that is YAML in a string."""
    is_yaml = not _has_ros_type(plain)
    if is_yaml:
        plain = yaml.safe_dump(plain, default_flow_style=True).strip()
    elif isinstance(plain, list) and any(isinstance(item, float) for item in plain):
        plain = [float(item) for item in plain]
    # dynamic typing: the config checks the type itself, so that `-p rate:=1` may set a float
    descriptor = ParameterDescriptor(description=description, dynamic_typing=True, read_only=fixed)
    value = node.declare_parameter(key, plain, descriptor).value
    if isinstance(value, (array.array, tuple)):
        value = list(value)
    return value, is_yaml and isinstance(value, str)


def _has_ros_type(plain: Any) -> bool:
    if plain is None or isinstance(plain, (bool, int, float, str)):
        return True
    if not isinstance(plain, list):
        return False
    kinds = {type(item) for item in plain}
    return kinds <= {int, float} or any(kinds <= {kind} for kind in (bool, str))


def _parse(node: Node, key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = f"parameters of node {node.get_name()}: {key}"
        raise ConfigError(f"{where} = {text!r} is no YAML: {error}") from None
