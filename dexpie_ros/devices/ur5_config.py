"""Configuration of a UR arm."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from dexpie_ros import config
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.ur_kinematics import MODELS, UrModel

Vector6 = tuple[
    config.Finite, config.Finite, config.Finite, config.Finite, config.Finite, config.Finite
]


@config.config
class Ur5Config:
    """One UR5 (CB3, 125 Hz) or UR5e (e-Series, 500 Hz), driven by servoL."""

    host: str = "192.168.1.10"
    """Address of the controller; its pendant must show remote control (e-Series only)."""
    model: Literal["ur5", "ur5e"] = "ur5"
    tcp: Vector6 | None = None
    """Flange to TCP: x y z in m and rotation vector in rad. None keeps the pendant's setting."""
    payload: config.Finite | None = None
    """kg, at ``payload_center``; None keeps the pendant's setting. The Inspire hand weighs 0.55."""
    payload_center: config.FinitePosition = (0.0, 0.0, 0.06)
    """m, in the flange frame."""
    lookahead_time: float = 0.1
    """s, 0.03..0.2: larger is smoother and later."""
    gain: float = 300.0
    """100..2000: larger is stiffer, too large oscillates."""
    watchdog_hz: float = 10.0
    """The controller stops the arm by itself when it hears less often than this."""
    hold_after: float = 0.06
    """s without new data from the controller until the arm is told to hold where it is."""
    lost_after: float = 0.5
    """s without new data until the connection counts as lost."""
    unlock_delay: float = 5.5
    """s after a protective stop until it is unlocked; the controller refuses during the first 5."""
    connect_timeout: float = 1.0
    """s for reaching the controller's port."""
    upper_registers: bool = False
    """Use RTDE registers 24..47; only where a fieldbus occupies the lower ones."""
    realtime_priority: int = 0
    """SCHED_FIFO priority of the arm process, 1..99, required then; 0: a low one where permitted."""
    limits: ArmLimits = field(default_factory=ArmLimits)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("lookahead_time", 0.03, 0.2), ("gain", 100.0, 2000.0), ("watchdog_hz", 1.0, 50.0),
            ("hold_after", 0.02, 1.0), ("lost_after", 0.1, 2.0), ("connect_timeout", 0.05, 30.0),
            ("unlock_delay", 0.0, 60.0), ("realtime_priority", 0, 99),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: must lie in {low}..{high}")
        if self.hold_after >= self.lost_after:
            raise ValueError(
                f"hold_after = {self.hold_after} must be less than lost_after = {self.lost_after}"
            )

    @property
    def kinematics(self) -> UrModel:
        return MODELS[self.model]

    @property
    def frequency(self) -> float:
        """Controller rate in Hz."""
        return 125.0 if self.model == "ur5" else 500.0
