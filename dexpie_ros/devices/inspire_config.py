"""Configuration of an Inspire hand and of the line to it."""

from __future__ import annotations

from typing import Literal

from dexpie_ros import config
from dexpie_ros.control.types import HAND_JOINTS
from dexpie_ros.devices.inspire_transport import Eb90Transport, Transport, modbus_rtu, modbus_tcp

Six = tuple[
    config.Finite, config.Finite, config.Finite, config.Finite, config.Finite, config.Finite
]
SixInt = tuple[int, int, int, int, int, int]


@config.config
class InspireConfig:
    """One hand and the line to it."""

    transport: Literal["modbus_tcp", "modbus_rtu", "eb90"] = "modbus_tcp"
    host: str = "192.168.11.210"
    port: int = 6000
    device: str = "/dev/ttyUSB0"
    """Serial device of the RS-485 adapter; better a udev name such as /dev/inspire_hand."""
    baudrate: int = 115200
    hand_id: int = 1
    timeout: float = 0.0
    """s for one transaction; 0: 20 ms over TCP, on a serial line 12 ms and the bytes' own time
    (15 ms at 115200 baud; published: 6 to 8.4 ms), and what the adapter's `latency_timer` says."""
    rate_hz: float = 50.0
    """Reads per second; a serial line at 115200 baud carries about 70."""
    speed: int = 1000
    """0..1000, all fingers."""
    force: int = 500
    """Grip force at which a finger stops, 0..1000 (g)."""
    order: tuple[str, str, str, str, str, str] = HAND_JOINTS
    """Which finger the hand's first, second, ... channel moves."""
    raw_closed: SixInt = (0, 0, 0, 0, 0, 0)
    """ANGLE value of opening 0 by finger (order of HAND_JOINTS), from `dexpie calibrate hand`."""
    raw_open: SixInt = (1000, 1000, 1000, 1000, 1000, 1000)
    """ANGLE value of opening 1 by finger."""
    force_scale: Six = (0.00981, 0.00981, 0.00981, 0.00981, 0.00981, 0.00981)
    """N per unit of FORCE_ACT by finger (nominally grams)."""
    force_offset: Six = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """N to add."""
    high_byte_first: bool = False
    """Byte registers over Modbus come high byte first (some firmwares); see docs/hardware.md."""
    hot: config.Finite = 60.0
    """Celsius from which a finger is reported."""

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(HAND_JOINTS):
            raise ValueError(f"order = {self.order}: must name each of {', '.join(HAND_JOINTS)}")
        for finger, closed, opened in zip(HAND_JOINTS, self.raw_closed, self.raw_open, strict=True):
            if abs(opened - closed) < 100:
                raise ValueError(
                    f"{finger}: raw_open {opened} and raw_closed {closed} are nearly equal; "
                    "calibrate the hand again"
                )
        for name, low, high in (
            ("hand_id", 1, 254), ("timeout", 0.01, 2.0), ("rate_hz", 1.0, 500.0),
            ("speed", 0, 1000), ("force", 0, 3000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high and (name, value) != ("timeout", 0):
                raise ValueError(f"{name} = {value}: must lie in {low}..{high}")

    def make_transport(self) -> Transport:
        if self.transport == "modbus_tcp":
            return modbus_tcp(self.host, self.port, self.hand_id, self.timeout)
        if self.transport == "modbus_rtu":
            return modbus_rtu(self.device, self.baudrate, self.hand_id, self.timeout)
        return Eb90Transport(self.device, self.baudrate, self.hand_id, self.timeout)

    @property
    def where(self) -> str:
        tcp = self.transport == "modbus_tcp"
        return (
            f"{self.transport} {self.host}:{self.port}"
            if tcp
            else (f"{self.transport} {self.device}")
        )
