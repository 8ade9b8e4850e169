"""Where RealSense devices come from: the USB bus, or a peer that sends frames over TCP.

The driver works on ``rs.device`` and its sensors only. A software device has the same ones, but no
context lists it; so finding a device is the one thing that differs between camera and emulator.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dexpie_ros.devices import realsense_library
from dexpie_ros.devices.device import DeviceError

FRAME = struct.Struct("<4sqdB")
"""Header of one frame: magic, number, timestamp in ms, clock domain; the pixels follow."""
MAGIC = b"RSF1"
DOMAINS = ("hardware_clock", "system_time", "global_time")
MAX_SIDE = 4096


class Discovery(Protocol):
    """Finds devices by serial number."""

    def find(self, serial: str) -> Any:
        """The ``rs.device``; DeviceError naming what is there when it is not."""

    def present(self, serial: str) -> bool:
        """Whether the device found last is still plugged in."""

    def close(self) -> None: ...


class UsbDiscovery:
    """Devices on this machine's USB."""

    def __init__(self) -> None:
        self._rs: Any = None
        self._context: Any = None
        self._device: Any = None
        self._removed = threading.Event()

    def find(self, serial: str) -> Any:
        if self._context is None:
            self._rs = realsense_library.load()
            self._context = self._rs.context()
            self._context.set_devices_changed_callback(self._on_change)
        number = self._rs.camera_info.serial_number
        devices = {d.get_info(number): d for d in self._context.query_devices()}
        if serial not in devices:
            there = ", ".join(sorted(devices)) or "none"
            raise DeviceError(
                f"no RealSense with serial {serial!r}; found: {there}; check the cable (USB 3) "
                "and the udev rules"
            )
        self._removed.clear()
        self._device = devices[serial]
        return self._device

    def _on_change(self, change: Any) -> None:
        if self._device is not None and change.was_removed(self._device):
            self._removed.set()

    def present(self, serial: str) -> bool:
        return not self._removed.is_set()

    def close(self) -> None:
        self._device = None


@dataclass(frozen=True)
class CameraDescription:
    """What a peer says of its camera: the first line on its connection, as JSON."""

    serial: str
    name: str
    width: int
    height: int
    fps: int
    fx: float
    fy: float
    ppx: float
    ppy: float

    @staticmethod
    def parse(line: bytes) -> CameraDescription:
        """From JSON; ValueError for anything else."""
        try:
            values = json.loads(line)
            made = CameraDescription(
                str(values["serial"]), str(values["name"]),
                int(values["width"]), int(values["height"]), int(values["fps"]),
                *(float(values[key]) for key in ("fx", "fy", "ppx", "ppy")),
            )  # fmt: skip
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a camera description: {error!r}") from None
        if not (0 < made.width <= MAX_SIDE and 0 < made.height <= MAX_SIDE and 0 < made.fps < 1000):
            raise ValueError(f"impossible camera {made}")
        return made


def parse_header(data: bytes) -> tuple[int, float, int]:
    """Number, timestamp in ms and clock domain of a frame; ValueError for anything else."""
    if len(data) != FRAME.size:
        raise ValueError(f"frame header of {len(data)} bytes")
    magic, number, stamp, domain = FRAME.unpack(data)
    if magic != MAGIC or number < 0 or not 0 <= stamp < 1e15 or domain >= len(DOMAINS):
        raise ValueError("not a frame header")
    return number, stamp, domain


class RemoteDiscovery:
    """A camera whose frames come over TCP and enter librealsense through a software device."""

    def __init__(self, host: str, port: int, timeout: float = 2.0) -> None:
        self._address, self._timeout = (host, port), timeout
        self._link: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def find(self, serial: str) -> Any:
        self.close()
        rs = realsense_library.load()
        host, port = self._address
        try:
            self._link = socket.create_connection(self._address, self._timeout)
            self._link.settimeout(self._timeout)
            stream = self._link.makefile("rb", buffering=0)
            camera = CameraDescription.parse(stream.readline(4096))
        except (OSError, ValueError) as error:
            self.close()
            raise DeviceError(
                f"no RealSense with serial {serial!r} at {host}:{port}: {error}"
            ) from (None)
        if camera.serial != serial:
            self.close()
            raise DeviceError(
                f"no RealSense with serial {serial!r}; {host}:{port} has {camera.serial!r}"
            )
        self._link.settimeout(None)
        device, sensor, profile = _software_device(rs, camera)
        self._thread = threading.Thread(
            target=_feed, args=(rs, self._link, camera, sensor, profile), daemon=True,
            name=f"camera {serial}",
        )  # fmt: skip
        self._thread.start()
        return device

    def present(self, serial: str) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        if self._link is not None:
            try:
                self._link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed by the peer
            self._link.close()
            self._link = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def _software_device(rs: Any, camera: CameraDescription) -> tuple[Any, Any, Any]:
    device = rs.software_device()
    sensor = device.add_sensor("RGB Camera")
    device.register_info(rs.camera_info.serial_number, camera.serial)
    device.register_info(rs.camera_info.name, camera.name)
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height = camera.width, camera.height
    intrinsics.fx, intrinsics.fy = camera.fx, camera.fy
    intrinsics.ppx, intrinsics.ppy = camera.ppx, camera.ppy
    intrinsics.model = rs.distortion.inverse_brown_conrady
    intrinsics.coeffs = [0.0] * 5
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid = rs.stream.color, 0, 1
    stream.width, stream.height, stream.fps = camera.width, camera.height, camera.fps
    stream.bpp, stream.fmt, stream.intrinsics = 3, rs.format.rgb8, intrinsics
    profile = sensor.add_video_stream(stream)
    for option, low, high, step, default in (
        (rs.option.enable_auto_exposure, 0, 1, 1, 1),
        (rs.option.auto_exposure_priority, 0, 1, 1, 1),
        (rs.option.exposure, 1, 10000, 1, 156),
        (rs.option.gain, 0, 128, 1, 64),
        (rs.option.enable_auto_white_balance, 0, 1, 1, 1),
        (rs.option.white_balance, 2800, 6500, 10, 4600),
    ):
        # By attributes: the constructor's arguments are named in another order than it takes them.
        limits = rs.option_range()
        limits.min, limits.max, limits.step, limits.default = map(float, (low, high, step, default))
        sensor.add_option(option, limits, True)
    return device, sensor, profile


def _feed(
    rs: Any, link: socket.socket, camera: CameraDescription, sensor: Any, profile: Any
) -> None:
    """Frames from the connection into the sensor, until the connection ends or makes no sense."""
    header = bytearray(FRAME.size)
    image = np.empty((camera.height, camera.width, 3), np.uint8)
    domains = [getattr(rs.timestamp_domain, name) for name in DOMAINS]
    video = profile.as_video_stream_profile()
    while _receive(link, memoryview(header)):
        try:
            number, stamp, domain = parse_header(bytes(header))
        except ValueError:
            return
        if not _receive(link, image.reshape(-1).data):
            return
        frame = rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp = image, camera.width * 3, 3
        frame.timestamp, frame.domain, frame.frame_number = stamp, domains[domain], number
        frame.profile = video
        sensor.on_video_frame(frame)


def _receive(link: socket.socket, into: memoryview) -> bool:
    """Fill ``into``; False when the connection ends before."""
    got = 0
    while got < len(into):
        try:
            count = link.recv_into(into[got:])
        except OSError:
            return False
        if count == 0:
            return False
        got += count
    return True
