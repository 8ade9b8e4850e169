"""Typed configs: frozen dataclasses, YAML files, ``a.b=c`` overrides, strict checks.

A config is a frozen dataclass made with :func:`config`; its field docstrings or comments say the
unit. Loading never guesses: an unknown key, a wrong type or a value out of range is a
:class:`ConfigError` that names the file, the key and what to do.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import os
import subprocess
import tempfile
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as _pydantic_dataclass
from typing_extensions import dataclass_transform

from dexpie_ros import __version__

T = TypeVar("T")


class ConfigError(ValueError):
    """A config that cannot be used; the message names file, key and remedy."""


def _of_unit_length(
    quaternion: tuple[float, float, float, float],
) -> tuple[float, float, float, float]:
    length = math.hypot(*quaternion)
    if not abs(length - 1.0) < 1e-3:
        raise ValueError(
            f"a quaternion of length {length:.4g}; expected x y z w of length 1, 0 0 0 1 for no turn"
        )
    return quaternion


Finite = Annotated[float, Field(allow_inf_nan=False)]
"""YAML knows .nan and .inf, and a comparison with NaN lets it pass."""
FinitePosition = tuple[Finite, Finite, Finite]
UnitQuaternion = Annotated[tuple[float, float, float, float], AfterValidator(_of_unit_length)]
"""x y z w. One of another length is refused, not scaled: 1 1 1 1 would be a turn by 120 degrees."""


@dataclass_transform(frozen_default=True)
def config(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose values are checked when it is made."""
    decorate = _pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=False))
    return decorate(cls)  # type: ignore[return-value]


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Make ``cls`` from nested plain values; raises ConfigError naming ``where`` and the key."""
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise ConfigError(_explain(cls, error, where)) from None


def load(cls: type[T], path: str | Path | None = None, overrides: Sequence[str] = ()) -> T:
    """Read ``cls`` from a YAML file (or its defaults) with ``a.b=c`` overrides on top."""
    values: dict[str, Any] = {}
    where = f"{cls.__name__} (defaults)"
    if path is not None:
        values, where = read_yaml(path), str(path)
    for override in overrides:
        set_override(values, override)
        where = f"{path or cls.__name__} with {override}"
    return from_dict(cls, values, where)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError where the file is missing, broken or no mapping."""
    file = Path(path)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds a {type(values).__name__}, expected `key: value` lines")
    return values


def set_override(values: dict[str, Any], override: str) -> None:
    """Apply one ``a.b=c`` (the value is read as YAML) to nested ``values`` in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        example = next(iter(listed(values)), "limits.speed=0.2")
        raise ConfigError(
            f"override {override!r}: expected key=value, for instance {example} "
            "(--set help lists the keys)"
        )
    node = values
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent} is a value, not a group of keys")
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is no YAML: {error}") from None


def listed(value: Any) -> list[str]:
    """``key=value`` of every key of a config or of nested plain values, as overrides are written."""
    lines = []
    for key, item in (value if isinstance(value, dict) else to_dict(value)).items():
        if isinstance(item, dict) and item:
            lines += [f"{key}.{line}" for line in listed(item)]
            continue
        text = yaml.safe_dump(item, default_flow_style=True, sort_keys=False, width=10**6)
        lines.append(f"{key}={text.removesuffix('...' + chr(10)).strip()}")
    return lines


def merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put nested ``values`` on top of ``into``, in place; only groups of keys are merged."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def overridden(value: T, overrides: Sequence[str], where: str, path: str | Path | None = None) -> T:
    """A config with the YAML file ``path`` and then ``a.b=c`` overrides on top; the very same where
    there is neither.
    """
    if not overrides and path is None:
        return value
    values = to_dict(value)
    if path is not None:
        merge(values, read_yaml(path))
        where = str(path)
    for override in overrides:
        set_override(values, override)
    return from_dict(type(value), values, where)


def to_dict(value: Any) -> dict[str, Any]:
    """Nested plain values of a config, fit for YAML, JSON and :func:`from_dict`."""
    plain: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return plain


def save_yaml(value: Any, path: str | Path) -> None:
    """Write a config so that :func:`load` gives it back equal."""
    write_atomic(path, yaml.safe_dump(to_dict(value), sort_keys=False, allow_unicode=True))


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def provenance() -> dict[str, str]:
    """Version and git commit of this code, kept with every run.

    Looked up once in a process: the files may have changed by the end of a long run.
    """
    return {"version": __version__, "commit": _commit()}


@functools.cache
def _commit() -> str:
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _explain(cls: type, error: ValidationError, where: str) -> str:
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            known = _keys_at(cls, item["loc"][:-1])
            close = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
            lines.append(f"{where}: unknown key {key}; {hint}")
        else:
            lines.append(f"{where}: {key} = {item.get('input')!r}: {item['msg']}")
    return "\n".join(lines)


def _keys_at(cls: Any, location: Sequence[int | str]) -> list[str]:
    hints: dict[str, Any] = {}
    for part in (*location, None):
        if not dataclasses.is_dataclass(cls):
            return []
        hints = {f.name: f.type for f in dataclasses.fields(cls)}
        if part is None:
            return list(hints)
        cls = typing.get_type_hints(cls).get(str(part))
    return list(hints)
