"""The pose of the operator's wrist: a Vive tracker, or a cube of ArUco markers before a camera."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from dexpie_ros.devices.aruco_cube import ArucoSource, aruco_tracker
from dexpie_ros.devices.device import Status
from dexpie_ros.devices.driver_parameters import TrackerDriverParameters
from dexpie_ros.devices.pose_source import TrackerSample
from dexpie_ros.devices.vive_tracker import vive_tracker
from dexpie_ros.messages import read_image, stamp_ns
from dexpie_ros.nodes.device_node import DeviceNode
from dexpie_ros.runtime import declare_config, run_node

RATE_HZ = 100.0
WORLD_FRAME = "tracker_world"


class TrackerDriver(DeviceNode):
    """Thin shell around `devices.vive_tracker` and `devices.aruco_cube`."""

    def __init__(self) -> None:
        super().__init__("tracker_driver")
        p = declare_config(self, TrackerDriverParameters)
        p.check_calibration()  # here, where the device is known: teleop sees poses of any tracker
        self._hardware = p.hardware
        self._output = self.publisher("/teleop/tracker")
        if p.tracker == "vive":
            self.drive(vive_tracker(p.vive), self._publish_sample, RATE_HZ)
            return
        self._source = ArucoSource(p.cube)
        base = f"/camera/{p.camera}/color"
        self.subscribe(f"{base}/camera_info", self._on_info)
        self.subscribe(f"{base}/image_raw", self._on_image, depth=1)
        self.drive(aruco_tracker(self._source, p.cube), self._publish_sample, RATE_HZ)

    def judge(self, status: Status) -> Status:
        return replace(status, values={"hardware": self._hardware, **status.values})

    def _on_info(self, message: Any) -> None:
        self._source.calibrate(np.array(message.k), np.array(message.d))

    def _on_image(self, message: Any) -> None:
        # The detector's thread reads it later, when the message is gone.
        self._source.offer(stamp_ns(message.header.stamp), read_image(message).copy())

    def _publish_sample(self, sample: TrackerSample) -> None:
        self._output.publish(self.messages.pose_stamped(sample.time_ns, WORLD_FRAME, sample.pose))


def main() -> int:
    return run_node(TrackerDriver, images=True)


if __name__ == "__main__":
    sys.exit(main())
