"""A Manus glove's ergonomics: from the vendor's ROS 2 package where it is installed, else ZMQ."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from dexpie_ros.devices.device import Level, Status
from dexpie_ros.devices.driver_parameters import GloveDriverParameters
from dexpie_ros.devices.manus_glove import GloveSample, ManusGlove
from dexpie_ros.nodes.device_node import DeviceNode
from dexpie_ros.nodes.glove_listener import vendor_class
from dexpie_ros.realtime import prefer_process
from dexpie_ros.runtime import declare_config, qos_profile, run_node

RATE_HZ = 90.0
"""At most; the hand's own clock (DexHiL). The vendor's SDK delivers up to 120 Hz."""


class GloveDriver(DeviceNode):
    """Thin shell around `devices.manus_glove`."""

    def __init__(self) -> None:
        super().__init__("glove_driver")
        self._parameters_read = p = declare_config(self, GloveDriverParameters)
        self._output = self.publisher("/teleop/glove")
        self._glove = ManusGlove(p.glove)
        self._vendor = self._subscribe_to_vendor()
        self.drive(self._glove, self._publish_sample, RATE_HZ, start=not self._vendor)

    def judge(self, status: Status) -> Status:
        p = self._parameters_read
        where = ", ".join(p.topics) if self._vendor else p.glove.endpoint
        status = replace(status, values={"hardware": p.hardware, "where": where, **status.values})
        if self._vendor and not self._glove.connected:
            message = f"nothing on {where}; is manus_data_publisher running?"
            return replace(status, level=Level.ERROR, message=message)
        return status

    def _subscribe_to_vendor(self) -> bool:
        p = self._parameters_read
        message_class = vendor_class(p)
        if message_class is None:
            return False
        # The vendor's QoS differs by version; best effort hears every publisher.
        qos = qos_profile("sensor", best_effort=True)
        for topic in p.topics:
            self.create_subscription(message_class, topic, self._on_vendor, qos)
        return True

    def _on_vendor(self, message: Any) -> None:
        self._glove.offer(message)

    def _publish_sample(self, sample: GloveSample) -> None:
        self._output.publish(self.messages.glove(sample.time_ns, sample.side, sample.ergonomics))


def main() -> int:
    prefer_process()  # its silence holds the arm after 40 ms
    return run_node(GloveDriver)


if __name__ == "__main__":
    sys.exit(main())
