"""A ROS parameter file as nodes read it, without ROS: whose sections it has and what they say.

ROS skips a section that is no node's without a word, and the node keeps its defaults, limits included:
:func:`refuse_unknown_nodes` does not.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dexpie_ros.config import ConfigError, merge, read_yaml

PARAMETERS = "ros__parameters"


def sections(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Name as it stands there, namespaces above it included, and parameters of every section.

    ConfigError where the file is missing or no parameter file.
    """
    return list(_below(str(path), (), read_yaml(path)))


def means(name: str, node: str, anywhere: bool = False) -> bool:
    """Whether the section ``name`` is for ``node`` in no namespace (``anywhere``: in any)."""
    parts = [part for part in name.split("/") if part and part != "**"]
    return (parts[-1:] if anywhere else parts) in ([], ["*"], [node])


def refuse_unknown_nodes(path: str | Path, known: Collection[str], anywhere: bool = False) -> None:
    """ConfigError naming the section that is for none of the nodes ``known``."""
    for name, _ in sections(path):
        if any(means(name, node, anywhere) for node in known):
            continue
        last = name.rsplit("/", 1)[-1]
        close = difflib.get_close_matches(last, known, 1)
        if last in known:
            hint = f"nodes are in no namespace here, write {last}"
        elif close:
            hint = f"did you mean {close[0]}?"
        else:
            hint = f"known: {', '.join(known)}, /** for all"
        raise ConfigError(f"{path}: section {name} is for no node; {hint}")


def of_node(path: str | Path, node: str) -> dict[str, Any]:
    """Nested parameters for ``node``, in whatever namespace; a later section wins."""
    values: dict[str, Any] = {}
    for name, parameters in sections(path):
        if means(name, node, anywhere=True):
            merge(values, _nested(parameters, f"{path}: {name}"))
    return values


def _below(
    path: str, above: tuple[str, ...], values: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    name = "/".join(above).replace("//", "/")
    for key, value in values.items():
        if not isinstance(value, dict) or (key == PARAMETERS and not name.strip("/")):
            where = f"{path}: {name or key}"
            raise ConfigError(
                f"{where}: expected `{PARAMETERS}:` with parameters below it, and a node's name above"
            )
        if key == PARAMETERS:
            yield name, value
        else:
            yield from _below(path, (*above, str(key)), value)


def _nested(section: dict[str, Any], where: str) -> dict[str, Any]:
    """``{"arm.host": x}`` -> ``{"arm": {"host": x}}``; both ways of writing may be mixed."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        *groups, leaf = str(key).split(".")
        inside = found
        for group in groups:
            inside = inside.setdefault(group, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"{where}: {key}: {group} is a value and a group of parameters")
        if isinstance(value, dict):
            inside.setdefault(leaf, {}).update(_nested(value, where))
        else:
            inside[leaf] = value
    return found
