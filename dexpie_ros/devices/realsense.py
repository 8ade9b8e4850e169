"""One RealSense colour camera by serial number, on librealsense's sensor level.

Sensor level, because it is the same for cameras and software devices, needs no pipeline (which
blocks 15 s for an absent camera) and gives frames one by one with the camera's own stamps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexpie_ros import config
from dexpie_ros.devices import realsense_library
from dexpie_ros.devices.clock import ClockMap, ClockWatch, host_times
from dexpie_ros.devices.device import Backoff, DeviceError, Level, Worker
from dexpie_ros.devices.realsense_discovery import Discovery, UsbDiscovery

WAIT_MS = 20
"""For a frame, until one looks whether the camera is still there."""
MAX_MISSES = 50
"""Waits in a row without a frame until the camera is opened anew."""
LONGEST_S = 0.2
"""That the promptest frame may take from its capture to here."""
RESET_AFTER = 3
"""Openings in a row without any frame until the camera is reset."""


@config.config
class RealSenseConfig:
    """One camera."""

    serial: str = ""
    """As printed by `rs-enumerate-devices -s`, twelve digits; must be given."""
    width: int = 640
    height: int = 480
    fps: int = 60
    auto_exposure: bool = True
    exposure: float | None = None
    """In the camera's unit (100 us for D400 colour); needs auto_exposure=false."""
    gain: float | None = None
    auto_white_balance: bool = True
    white_balance: float | None = None
    """K; needs auto_white_balance=false."""
    constant_fps: bool = True
    """Do not let auto exposure lower the frame rate in the dark."""
    silent_after: float = 0.0
    """s without a frame until a policy that needs the camera holds; 0: three frames and a half."""

    def __post_init__(self) -> None:
        if self.auto_exposure and self.exposure is not None:
            raise ValueError("exposure has no effect with auto_exposure; set auto_exposure=false")
        if self.auto_white_balance and self.white_balance is not None:
            raise ValueError("white_balance needs auto_white_balance=false")
        for name in ("width", "height", "fps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be positive")
        if self.silent_after < 0:
            raise ValueError(f"silent_after = {self.silent_after}: must not be negative")


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole model of the delivered image, for sensor_msgs/CameraInfo (``plumb_bob``)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float]
    """k1 k2 p1 p2 k3; zero for RealSense colour streams, whose model is the inverse one."""

    def matrix(self) -> NDArray[np.float64]:
        """K (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class CameraSample:
    """One image, captured at ``time_ns`` (ROS time)."""

    time_ns: int
    image: NDArray[np.uint8]
    """(height, width, 3) RGB, owned by the sample."""
    number: int
    """The camera's frame counter."""
    arrival_ns: int


class RealSense(Worker[CameraSample]):
    """One camera; see :mod:`dexpie_ros.devices` for the common shape. It takes no commands."""

    def __init__(
        self,
        settings: RealSenseConfig,
        name: str = "camera",
        discovery: Discovery | None = None,
        backoff: Backoff | None = None,
        resets: bool = True,
    ) -> None:
        """``resets``: a camera that sends nothing may be reset; not where one only looks at it."""
        if not settings.serial:
            raise config.ConfigError(
                f"{name}: serial is empty; list cameras with rs-enumerate-devices -s"
            )
        super().__init__(name, stale_after=0.5, backoff=backoff or Backoff(0.5, 1.0))
        self._config = settings
        self._silent_after = settings.silent_after or 3.5 / settings.fps
        self._frame_at = 0.0
        self._discovery = discovery or UsbDiscovery()
        self._sensor: Any = None
        self._device: Any = None
        self._running = False
        self.intrinsics: Intrinsics | None = None
        """Of the running stream; None before the camera was opened."""
        self.dropped = 0
        """Frames that the camera counted and that never came."""
        self._unsupported: list[str] = []
        self._resets = resets
        self._clock_watch = ClockWatch()
        self._barren = 0
        """Openings in a row after which no frame came; a camera that another has open is not one."""

    def _open(self) -> None:
        rs = realsense_library.load()
        settings = self._config
        try:
            self._device = self._discovery.find(settings.serial)
            if self._resets and self._barren >= RESET_AFTER:
                self._barren = 0
                self._reset()
            self._sensor, profile = self._choose(rs)
            self._set_options(rs)
            self._queue = rs.frame_queue(2)
            self._sensor.open(profile)
            self._sensor.start(self._queue)
            self._running = True
            self._barren += 1  # until a frame comes
            self.intrinsics = _intrinsics(profile)
        except DeviceError:
            raise
        except RuntimeError as error:  # busy, or unplugged while it was being opened
            raise DeviceError(f"camera {settings.serial}: cannot be started: {error}") from None
        self._clock, self._misses, self._last_number = ClockMap(), 0, -1
        self._frame_at = time.monotonic()
        self._hardware_clock = rs.timestamp_domain.hardware_clock

    def _choose(self, rs: Any) -> tuple[Any, Any]:
        """Sensor and profile of the wanted stream; DeviceError naming what there is."""
        settings, offered = self._config, set()
        for sensor in self._device.query_sensors():
            for profile in sensor.get_stream_profiles():
                if profile.stream_type() != rs.stream.color or profile.format() != rs.format.rgb8:
                    continue
                video = profile.as_video_stream_profile()
                shape = (video.width(), video.height(), profile.fps())
                if shape == (settings.width, settings.height, settings.fps):
                    return sensor, profile
                offered.add("{}x{}@{}".format(*shape))
        raise DeviceError(
            f"camera {settings.serial} has no rgb8 stream {settings.width}x{settings.height}@"
            f"{settings.fps}; it offers {', '.join(sorted(offered)) or 'none'} (USB 2 cable?)"
        )

    def _set_options(self, rs: Any) -> None:
        settings = self._config
        wanted = {
            "enable_auto_exposure": float(settings.auto_exposure),
            "auto_exposure_priority": float(not settings.constant_fps),
            "exposure": settings.exposure,
            "gain": settings.gain,
            "enable_auto_white_balance": float(settings.auto_white_balance),
            "white_balance": settings.white_balance,
            "global_time_enabled": 1.0,
        }
        self._unsupported = []
        for name, value in wanted.items():
            if value is None:
                continue
            option = getattr(rs.option, name)
            if self._sensor.supports(option):
                self._sensor.set_option(option, value)
            else:
                self._unsupported.append(name)

    def _reset(self) -> None:
        """Last resort for a camera that is there but sends nothing; it leaves the bus and returns."""
        try:
            self._device.hardware_reset()
        except RuntimeError:
            return  # not every device can; the next opening is tried all the same
        raise DeviceError(f"camera {self._config.serial} sent nothing and has been reset")

    def _close(self) -> None:
        if self._sensor is not None and self._running:
            try:
                self._sensor.stop()
                self._sensor.close()
            except RuntimeError:
                pass  # an unplugged camera cannot be stopped
        self._running, self._sensor, self._device = False, None, None
        self._discovery.close()

    def _cycle(self) -> None:
        try:
            frame = self._queue.wait_for_frame(WAIT_MS)
        except RuntimeError:
            self._misses += 1
            if not self._discovery.present(self._config.serial):
                raise DeviceError(f"camera {self._config.serial} was unplugged") from None
            if self._misses >= MAX_MISSES:
                seconds = MAX_MISSES * WAIT_MS * 1e-3
                raise DeviceError(
                    f"camera {self._config.serial} sent no frame for {seconds:.1f} s"
                ) from None
            if self._silence() > self._silent_after:
                self.samples.wake()  # the arm holds for it
            return
        self._misses = self._barren = 0
        self._frame_at = time.monotonic()
        arrival, steady = host_times()
        try:
            # The frame's memory belongs to librealsense and its pool is small: copy at once.
            image = np.array(np.asanyarray(frame.get_data()), np.uint8, copy=True)
            number = int(frame.get_frame_number())
            stamp = float(frame.get_timestamp()) * 1e-3
            hardware = frame.get_frame_timestamp_domain() == self._hardware_clock
        except RuntimeError as error:  # an empty frame, as the queue gives when it is torn down
            raise DeviceError(f"camera {self._config.serial}: unreadable frame: {error}") from None
        captured = capture_time(stamp, arrival, self._clock, hardware, steady)
        if self._last_number >= 0 and number > self._last_number + 1:
            self.dropped += number - self._last_number - 1
        self._last_number = number
        self.samples.put(CameraSample(int(captured * 1e9), image, number, int(arrival * 1e9)))

    def _values(self) -> dict[str, str]:
        values = {"serial": self._config.serial, "dropped": str(self.dropped)}
        if self._unsupported:
            values["unsupported_options"] = ", ".join(self._unsupported)
        return values

    def _silence(self) -> float:
        """s since the last frame, or since the camera was opened."""
        return time.monotonic() - self._frame_at

    def _health(self) -> tuple[Level, str]:
        silence = self._silence()
        if silence > self._silent_after:
            return Level.STALE, f"no frame for {silence:.2f} s"
        wanted = {
            name for name in ("exposure", "gain", "white_balance") if name in self._unsupported
        }
        if wanted:
            return Level.WARN, f"the camera does not support {', '.join(sorted(wanted))}"
        return Level.OK, f"ok{self._clock_watch.said()}"


def capture_time(
    stamp: float, arrival: float, clock: ClockMap, hardware: bool, steady: float | None = None
) -> float:
    """ROS time in s of a frame stamped ``stamp`` s that arrived at ``arrival``.

    A stamp in the host's clock is taken as it is, unless it lies in the future or further back than
    a frame takes (the camera's time mapping has not settled, or the host's clock was set).
    """
    mapped = clock(stamp, arrival, steady)
    if hardware or arrival - stamp <= -0.005 or mapped - stamp >= LONGEST_S:
        return mapped
    return stamp


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """JPEG of an RGB image (height, width, 3)."""
    import cv2

    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be encoded as JPEG")
    return bytes(data.tobytes())


def _intrinsics(profile: Any) -> Intrinsics:
    k = profile.as_video_stream_profile().get_intrinsics()
    coefficients = [float(c) for c in k.coeffs]
    # D400 colour streams name the inverse Brown-Conrady model with (near) zero coefficients; the
    # forward model of CameraInfo only takes over what means the same there.
    if "inverse" in str(k.model):
        coefficients = [0.0] * 5
    k1, k2, p1, p2, k3 = coefficients
    return Intrinsics(
        int(k.width), int(k.height), float(k.fx), float(k.fy), float(k.ppx), float(k.ppy),
        (k1, k2, p1, p2, k3),
    )  # fmt: skip
