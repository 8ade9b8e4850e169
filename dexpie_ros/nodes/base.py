"""What every node of the graph shares: topics by the contract, messages by name, diagnostics."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

from dexpie_ros import contract, messages
from dexpie_ros.asking import silence
from dexpie_ros.nodes.process_watch import PROCESS, own_process
from dexpie_ros.runtime import qos_profile

OK, WARN, ERROR = 0, 1, 2
"""Levels of diagnostic_msgs/DiagnosticStatus."""


def interface(name: str) -> Any:
    """Message or service class of a name like ``std_msgs/msg/String``."""
    package, kind, cls = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), cls)


def status_level(status: Any) -> int:
    """Level of a DiagnosticStatus: its ``byte`` is bytes in Python."""
    return status.level[0] if isinstance(status.level, bytes) else int(status.level)


class ContractNode(Node):
    """A node whose topics and services come from `dexpie_ros.contract`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        # A service callback that awaits holds its group: what it awaits must not be in the same
        # exclusive one, nor may the subscriptions starve meanwhile. There is one thread all the same.
        self._awaiting = ReentrantCallbackGroup()
        self.messages = messages.ros()
        self._diagnostics: Callable[[], tuple[int, str, dict[str, object]]] | None = None

    def publisher(self, topic: str) -> Any:
        row = contract.BY_NAME[topic]
        return self.create_publisher(interface(row.type), topic, qos_profile(row.qos))

    def subscribe(
        self, topic: str, callback: Callable[..., None], *, raw: bool = False, depth: int = 0
    ) -> Any:
        """``callback(message)``, or ``callback(message, info)`` to learn when it was sent."""
        row = contract.BY_NAME[topic]
        return self.create_subscription(
            interface(row.type), topic, callback, qos_profile(row.qos, depth=depth), raw=raw
        )

    def serve(self, service: str, callback: Callable[[Any, Any], Any]) -> Any:
        cls = interface(contract.SERVICES[service])
        return self.create_service(cls, service, callback, callback_group=self._awaiting)

    def client(self, service: str) -> Any:
        cls = interface(contract.SERVICES[service])
        return self.create_client(cls, service, callback_group=self._awaiting)

    def now_ns(self) -> int:
        """ROS time: the simulation's where use_sim_time is set."""
        return int(self.get_clock().now().nanoseconds)

    def report_diagnostics(self, read: Callable[[], tuple[int, str, dict[str, object]]]) -> None:
        """Publish ``read() -> (level, message, values)`` on /diagnostics once a second."""
        self._diagnostics, self._process = read, own_process()
        self._diagnostics_publisher = self.publisher("/diagnostics")
        # Wall time: a stopped simulation clock must not silence the report that says so.
        self.create_timer(
            1.0, self.publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def publish_diagnostics(self) -> None:
        """Publish at once; also called when something changes that a person must see."""
        if self._diagnostics is None:
            return
        level, message, values = self._diagnostics()
        values = {**values, PROCESS: self._process}
        self._diagnostics_publisher.publish(
            self.messages.diagnostics(self.now_ns(), self.get_name(), level, message, values)
        )

    def pause(self, seconds: float) -> Future:
        """Awaitable in a service callback: wall time passes while other callbacks run."""
        future: Future = Future()

        def done() -> None:
            timer.cancel()
            self.destroy_timer(timer)
            future.set_result(None)

        clock = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self.create_timer(seconds, done, self._awaiting, clock)
        return future

    async def call(
        self,
        client: Any,
        request: Any,
        timeout_s: float = 10.0,
        lost: Callable[[], str] = lambda: "",
    ) -> Any:
        """Await a service from within a callback; TimeoutError names the service that is silent.

        ``lost`` says while it is awaited why no answer will come, else "": TimeoutError says that.
        Never asked twice: a request that was only late would be carried out after what follows it.
        """
        waited = 0.0
        while not client.service_is_ready():
            if waited >= timeout_s:
                raise TimeoutError(f"{client.srv_name} is not there; is its node running?")
            await self.pause(0.05)
            waited += 0.05
        answer = client.call_async(request)
        while not answer.done():
            why = lost() or (silence(client.srv_name, timeout_s) if waited >= timeout_s else "")
            if why:
                client.remove_pending_request(answer)
                raise TimeoutError(why)
            await self.pause(0.01)
            waited += 0.01
        return answer.result()
