"""Somebody who listens to a replay, on a thread of his own, for its tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor

from dexpie_ros.messages import stamp_ns
from dexpie_ros.nodes.base import ContractNode, interface
from dexpie_ros.nodes.replay import GraphReplay
from dexpie_ros.runtime import qos_profile


def until(true: Callable[[], Any], timeout: float = 60.0) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.01)


def matched(replay: GraphReplay, *more: Any) -> None:
    """Until whoever listens is matched with every output: what went out before would be lost."""
    until(lambda: all(p.get_subscription_count() for p in (*replay._outputs.values(), *more)))


class Listener:
    """Hears what is played, on a thread of its own."""

    def __init__(self, topics: dict[str, str], name: str = "listener") -> None:
        self.node = ContractNode(name)
        self.heard: dict[str, list[tuple[float, bytes]]] = {topic: [] for topic in topics}
        self.clock: list[int] = []
        for topic, kind in topics.items():
            self.node.create_subscription(
                interface(kind), topic,
                lambda data, topic=topic: self.heard[topic].append((time.monotonic(), data)),
                qos_profile("event", depth=1000), raw=True,
            )  # fmt: skip
        self.node.subscribe("/clock", lambda m: self.clock.append(stamp_ns(m.clock)))
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._going = True
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        while self._going:
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        self._going = False
        self._thread.join()
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
