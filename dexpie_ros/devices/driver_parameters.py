"""Parameters of the driver nodes: also read by commands that use a device without ROS.

A ROS parameter file for the whole cell is the one place of addresses and serial numbers
(config/hardware.example.yaml); :func:`read` takes a node's section of it without rclpy.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from dexpie_ros import config
from dexpie_ros.devices import calibration
from dexpie_ros.devices.aruco_cube import CubeConfig
from dexpie_ros.devices.inspire_hand import InspireConfig
from dexpie_ros.devices.manus_glove import ManusConfig
from dexpie_ros.devices.realsense import RealSenseConfig
from dexpie_ros.devices.realsense_discovery import Discovery, RemoteDiscovery, UsbDiscovery
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.devices.vive_tracker import ViveConfig
from dexpie_ros.graph import NODE_NAMES
from dexpie_ros.parameter_file import of_node, refuse_unknown_nodes

Hardware = Literal["real", "emulated"]
T = TypeVar("T")


@config.config
class ArmDriverParameters:
    """Parameters of arm_driver."""

    hardware: Hardware = "real"
    arm: Ur5Config = Ur5Config()
    command_timeout_s: float = Field(0.2, gt=0, le=1.0)
    """s without a command from the arbiter until the arm counts as left alone: it holds"""

    def __post_init__(self) -> None:
        if self.hardware == "emulated":
            require_loopback("arm.host", self.arm.host)


@config.config
class HandDriverParameters:
    """Parameters of hand_driver."""

    hardware: Hardware = "real"
    hand: InspireConfig = InspireConfig()
    command_timeout_s: float = Field(0.2, gt=0, le=1.0)
    calibration: str = ""
    """file of `dexpie calibrate hand`; its values replace hand.raw_closed and hand.raw_open"""

    def __post_init__(self) -> None:
        if self.hardware == "emulated" and self.hand.transport == "modbus_tcp":
            require_loopback("hand.host", self.hand.host)

    def calibrated(self) -> InspireConfig:
        """The hand's config with its calibration; ConfigError where the file is another hand's."""
        if not self.calibration:
            return self.hand
        found = calibration.load(self.calibration, "hand", calibration.HandRange, self.hand.where)
        return calibration.applied(self.hand, found)


@config.config
class CameraDriverParameters:
    """Parameters of camera_driver."""

    hardware: Hardware = "real"
    camera: Literal["front", "wrist"] = "front"
    realsense: RealSenseConfig = RealSenseConfig()
    emulator: str = ""
    """host:port of an emulated camera"""
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality = {self.jpeg_quality}: must lie in 1..100")
        host, _, port = self.emulator.rpartition(":")
        if self.hardware == "emulated" and not (host and port.isdecimal()):
            raise ValueError(f"emulator = {self.emulator!r}: expected host:port of the emulator")

    def discovery(self) -> Discovery:
        """Where the camera is looked for."""
        if self.hardware == "real":
            return UsbDiscovery()
        host, _, port = self.emulator.rpartition(":")
        return RemoteDiscovery(host, int(port))


@config.config
class TrackerDriverParameters:
    """Parameters of tracker_driver."""

    hardware: Hardware = "real"
    tracker: Literal["vive", "aruco"] = "vive"
    vive: ViveConfig = ViveConfig(rate_hz=100.0)
    cube: CubeConfig = CubeConfig()
    camera: Literal["front", "wrist"] = "front"
    """the fixed camera that sees the cube"""
    calibration: str = ""
    """file of `dexpie calibrate tracker` that teleop uses; refused where it is another tracker's"""

    @property
    def device(self) -> str:
        """What a calibration of this tracker is for."""
        if self.tracker == "vive":
            return self.vive.serial
        return f"cube {self.cube.dictionary} {','.join(map(str, self.cube.ids))}"

    def check_calibration(self) -> None:
        """ConfigError where the file is no calibration of this tracker."""
        if self.calibration:
            mounting = calibration.TrackerMounting
            calibration.load(self.calibration, "tracker", mounting, self.device)


@config.config
class GloveDriverParameters:
    """Parameters of glove_driver."""

    hardware: Hardware = "real"
    source: Literal["auto", "ros", "zmq"] = "auto"
    """auto: manus_ros2_msgs where it is installed, else ZMQ; emulated gloves speak ZMQ"""
    topics: tuple[str, ...] = ("/manus_glove_0", "/manus_glove_1")
    """of the vendor's publisher; which hand a glove is on stands in its messages"""
    glove: ManusConfig = ManusConfig()


def require_loopback(name: str, host: str) -> None:
    """ValueError where an emulated device would be looked for in the laboratory's network."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise ValueError(
            f"hardware is emulated but {name} = {host!r} is no loopback address; a real device "
            "wants hardware:=real"
        )


def read(path: str | Path | None, node: str, cls: type[T]) -> T:
    """A node's section of a ROS parameter file, or the defaults where there is none.

    Raises:
        ConfigError: no such file, no parameter file, a section that is no node's, or a parameter that
            ``cls`` does not know.
    """
    if path is None:
        return config.from_dict(cls, {}, f"parameters of {node} (defaults)")
    refuse_unknown_nodes(path, NODE_NAMES, anywhere=True)
    where, values = f"{path}: {node}", of_node(path, node)
    values.pop("use_sim_time", None)
    return config.from_dict(cls, values, where)
