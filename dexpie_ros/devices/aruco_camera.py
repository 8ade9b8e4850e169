"""The ArUco cube before a RealSense, as one tracker: for commands that use devices without ROS.

In the graph the camera's own driver publishes the images; here the camera belongs to the tracker.
"""

from __future__ import annotations

from dexpie_ros.devices.aruco_cube import CubeConfig, CubeDetector
from dexpie_ros.devices.device import Backoff, DeviceError, Level, wait_until
from dexpie_ros.devices.pose_source import PoseTracker, Reading
from dexpie_ros.devices.realsense import RealSense

OPEN_S = 3.0
"""s that the camera gets for its first image."""


class CubeCamera:
    """A source of poses (`pose_source.PoseSource`)."""

    def __init__(self, camera: RealSense, settings: CubeConfig) -> None:
        self._camera, self._settings = camera, settings
        self._detector: CubeDetector | None = None
        self._seen = 0

    @property
    def where(self) -> str:
        return f"ArUco cube before {self._camera.name}"

    def open(self) -> None:
        camera = self._camera
        before = camera.samples.count
        camera.start()
        if not wait_until(lambda: camera.samples.count > before, OPEN_S):
            raise DeviceError(f"{camera.name}: {camera.status().message}")
        model = camera.intrinsics
        if model is None:
            raise DeviceError(f"{camera.name}: says nothing of its lens")
        self._detector = CubeDetector(self._settings, model.matrix(), model.distortion)
        self._seen = camera.samples.count

    def close(self) -> None:
        self._detector = None
        self._camera.stop()

    def read(self) -> Reading | None:
        sample = self._camera.wait(self._seen, 0.1)
        if sample is None or self._detector is None:
            status = self._camera.status()
            if status.level is Level.ERROR:
                raise DeviceError(f"{status.device}: {status.message}")
            return None
        self._seen = self._camera.samples.count
        pose, reason = self._detector.detect(sample.image)
        return Reading(sample.time_ns, pose, reason)


def cube_tracker(camera: RealSense, settings: CubeConfig, name: str = "tracker") -> PoseTracker:
    """The tracker that the cube before ``camera`` is; it starts and stops the camera."""
    source = CubeCamera(camera, settings)
    return PoseTracker(source, name, settings.rate_hz, settings.max_speed, Backoff(0.5, 1.0))
