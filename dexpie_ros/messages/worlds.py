"""The two worlds that messages live in: a running ROS 2, and bags without any ROS."""

from __future__ import annotations

import array
import importlib
import os
import sys
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dexpie_ros.messages.building import Messages


@lru_cache(maxsize=1)
def ros() -> Messages:
    """Messages of the running ROS 2 (imports its Python packages)."""

    @cache
    def message_class(name: str) -> Any:
        package, _, kind = name.split("/")
        message: Any = getattr(importlib.import_module(f"{package}.msg"), kind)
        return message

    def numbers(code: str, values: Any) -> Any:
        result = array.array(code)
        dtype = {"d": np.float64, "B": np.uint8}[code]
        data: Any = np.ascontiguousarray(values, dtype)
        result.frombytes(memoryview(data).cast("B"))
        return result

    return Messages(lambda kind, /, **fields: message_class(kind)(**fields), numbers, "ros")


@lru_cache(maxsize=1)
def bag() -> Messages:
    """Messages of the ``rosbags`` library: no ROS needed; :func:`serialize` makes CDR of them."""
    types = bag_typestore().types

    def numbers(code: str, values: Any) -> Any:
        dtype = {"d": np.float64, "B": np.uint8}[code]
        return np.ascontiguousarray(values, dtype).reshape(-1)

    return Messages(lambda kind, /, **fields: types[kind](**fields), numbers, "bag")


def serialize(message: Any) -> bytes:
    """CDR of a message made by :func:`bag`, byte for byte what DDS would carry."""
    return bytes(bag_typestore().serialize_cdr(message, message.__msgtype__))


@lru_cache(maxsize=1)
def bag_typestore() -> Any:
    """rosbags' ROS 2 types together with those of ``dexpie_msgs``."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    for path in sorted(_message_folder().glob("*.msg")):
        name = f"dexpie_msgs/msg/{path.stem}"
        store.register(get_types_from_msg(path.read_text(encoding="utf-8"), name))
    return store


def _message_folder() -> Path:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    candidates = [Path(p) / "share" / "dexpie_msgs" / "msg" for p in prefixes if p]
    candidates.append(Path(__file__).resolve().parents[2] / "msg" / "msg")
    for folder in candidates:
        if (folder / "ControlStep.msg").is_file():
            return folder
    looked = ", ".join(map(str, candidates))
    raise FileNotFoundError(
        f"dexpie_msgs: no message definitions in {looked}; build them with `make setup`"
    )
