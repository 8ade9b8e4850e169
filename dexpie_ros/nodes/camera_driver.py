"""One RealSense colour camera: raw images and JPEG beside each other, and camera_info."""

from __future__ import annotations

import sys
from dataclasses import replace

from dexpie_ros.devices.device import Status
from dexpie_ros.devices.driver_parameters import CameraDriverParameters
from dexpie_ros.devices.realsense import CameraSample, Intrinsics, RealSense, encode_jpeg
from dexpie_ros.nodes.device_node import DeviceNode
from dexpie_ros.runtime import declare_config, run_node


class CameraDriver(DeviceNode):
    """Thin shell around `devices.realsense`; what nobody listens to is not made."""

    def __init__(self) -> None:
        super().__init__("camera_driver")
        self._parameters_read = p = declare_config(self, CameraDriverParameters)
        base = f"/camera/{p.camera}/color"
        self._raw = self.publisher(f"{base}/image_raw")
        self._jpeg = self.publisher(f"{base}/image_raw/compressed")
        self._info = self.publisher(f"{base}/camera_info")
        self._described: Intrinsics | None = None
        self._camera = RealSense(p.realsense, self.get_name(), p.discovery())
        self.drive(self._camera, self._publish_sample, p.realsense.fps)

    def judge(self, status: Status) -> Status:
        return replace(status, values={"hardware": self._parameters_read.hardware, **status.values})

    def _publish_sample(self, sample: CameraSample) -> None:
        make, p = self.messages, self._parameters_read
        model = self._camera.intrinsics
        if model is not None and model is not self._described:
            self._described = model
            self._info.publish(
                make.camera_calibration(
                    sample.time_ns, p.camera, model.width, model.height, model.matrix(),
                    model.distortion,
                )
            )  # fmt: skip
        if self._raw.get_subscription_count():
            self._raw.publish(make.image(sample.time_ns, p.camera, sample.image))
        if self._jpeg.get_subscription_count():
            data = encode_jpeg(sample.image, p.jpeg_quality)
            self._jpeg.publish(make.compressed_image(sample.time_ns, p.camera, data))


def main() -> int:
    return run_node(CameraDriver, images=True)


if __name__ == "__main__":
    sys.exit(main())
