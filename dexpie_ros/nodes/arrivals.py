"""When a message was sent, for those who measure how long it was on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy.subscription


def told() -> bool:
    """Whether this ROS 2 tells it: Jazzy and later do."""
    return hasattr(rclpy.subscription, "MessageInfo")


def sent_ns(info: Any) -> int:
    """When a message was sent, by the clock of the machine."""
    return int(info["source_timestamp"] if isinstance(info, dict) else info.source_timestamp)


def with_way(take: Callable[[Any, float | None], None]) -> Callable[..., None]:
    """A callback for a subscription: ``take`` gets the message and how long it came, in ms.

    None where this ROS 2 does not tell; the clocks of two machines are told apart by nobody.
    """
    if not told():
        return lambda message: take(message, None)

    def timed(message: Any, info: Any) -> None:
        take(message, (time.time_ns() - sent_ns(info)) * 1e-6)

    return timed
