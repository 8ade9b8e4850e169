"""Where the operator's glove comes from: the vendor's ROS 2 messages, or ZMQ.

For the driver, and for commands that use the glove without a graph (`dexpie calibrate glove`,
`dexpie doctor --hardware`), which are given :func:`glove_of`. Imports ROS only where it is needed.
"""

from __future__ import annotations

import threading
from typing import Any

from dexpie_ros.config import ConfigError
from dexpie_ros.devices.driver_parameters import GloveDriverParameters
from dexpie_ros.devices.manus_glove import ManusGlove

VENDOR_TYPE = "manus_ros2_msgs/msg/ManusGlove"


def vendor_class(p: GloveDriverParameters) -> Any:
    """Class of the vendor's messages, or None where the glove speaks ZMQ.

    ConfigError where ROS messages were asked for and the vendor's package is not there.
    """
    if p.source == "zmq" or p.hardware == "emulated":
        return None
    try:
        from dexpie_ros.nodes.base import interface

        return interface(VENDOR_TYPE)
    except ImportError:
        if p.source == "auto":
            return None
        raise ConfigError(
            "source is ros but manus_ros2_msgs is not installed: source the workspace of the "
            "vendor's package, or set source: zmq"
        ) from None


def glove_of(p: GloveDriverParameters) -> ManusGlove:
    """The glove of a cell, to be used without a graph."""
    message_class = vendor_class(p)
    return ManusGlove(p.glove) if message_class is None else ListeningGlove(p, message_class)


class ListeningGlove(ManusGlove):
    """A glove that is heard over ROS by a node of its own, between ``start`` and ``stop``."""

    def __init__(self, p: GloveDriverParameters, message_class: Any) -> None:
        super().__init__(p.glove)
        self._topics, self._class = p.topics, message_class
        self._end: threading.Event | None = None

    def start(self) -> None:
        if self._end is not None:
            return
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from dexpie_ros.runtime import prepare_process, qos_profile

        prepare_process()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C is the command's
        self._problem = f"nothing on {', '.join(self._topics)}; is manus_data_publisher running, in this domain?"
        node = rclpy.create_node("glove_listener")
        for topic in self._topics:
            node.create_subscription(
                self._class, topic, self._on_message, qos_profile("sensor", best_effort=True)
            )
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        self._end = end = threading.Event()

        def listen() -> None:
            while not end.is_set():
                executor.spin_once(timeout_sec=0.1)
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown()

        self._thread = threading.Thread(target=listen, name=self.name, daemon=True)
        self._thread.start()

    def _on_message(self, message: Any) -> None:
        self.offer(message)

    def stop(self, timeout: float = 5.0) -> None:
        if self._end is not None:
            self._end.set()
            self._end = None
        super().stop(timeout)
