"""A Vive tracker by serial number, through SteamVR (openvr). It needs no headset.

OpenVR's world is right-handed with y up; it is passed on as it is, since only relative motion is
used. Poses carry no stamp, so a pose is stamped when it is read.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from dexpie_ros import config
from dexpie_ros.devices.device import Backoff, DeviceError
from dexpie_ros.devices.pose_source import PoseTracker, Reading, rigid
from dexpie_ros.geometry import Array

RUNNING_OK = 200
RESULTS = {
    1: "not initialised", 100: "calibrating", 101: "calibrating, out of range",
    200: "running", 201: "out of range of the lighthouses", 300: "rotation only",
}  # fmt: skip
SERIAL, BATTERY = 1002, 1012
ACTIVATED, DEACTIVATED, QUIT = 100, 101, 700
CHECK_PERIOD = 0.5
"""s between checks that the index still belongs to the serial number."""


@config.config
class ViveConfig:
    """One tracker."""

    serial: str = ""
    """As SteamVR shows it under Devices, for instance LHR-0A1B2C3D; must be given."""
    rate_hz: float = 120.0
    max_speed: float = 8.0
    """m/s; faster changes are jumps of the tracking and left out."""
    frozen_after: float = 0.3
    """s of a pose identical to the last bit until SteamVR counts as hung: it goes on giving the last
    one as valid, and a tracker at rest has noise."""
    path_registry: str = ""
    """An openvrpaths.vrpath instead of the user's own (emulator, second SteamVR)."""

    def __post_init__(self) -> None:
        if not 10 <= self.rate_hz <= 1000:
            raise ValueError(f"rate_hz = {self.rate_hz}: must lie in 10..1000")
        if not self.max_speed > 0:
            raise ValueError(f"max_speed = {self.max_speed}: must be positive")
        if not 0.1 <= self.frozen_after <= 60:
            raise ValueError(f"frozen_after = {self.frozen_after}: must lie in 0.1..60")


class ViveSource:
    """Poses of one tracker; all calls from one thread."""

    def __init__(self, settings: ViveConfig) -> None:
        self._config = settings
        self._openvr: Any = None
        self._system: Any = None
        self._index: int | None = None
        self._checked = 0.0
        self._matrix, self._moved = b"", 0.0
        """The newest pose as SteamVR gives it, and since when it is the same."""

    @property
    def where(self) -> str:
        return f"vive {self._config.serial}"

    def open(self) -> None:
        try:
            import openvr
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"openvr cannot be loaded ({error}); pip install 'dexpie_ros[hardware]'"
            ) from None
        if self._config.path_registry:
            os.environ["VR_PATHREG_OVERRIDE"] = self._config.path_registry
        self._openvr = openvr
        try:
            self._system = openvr.init(openvr.VRApplication_Other)
        except openvr.OpenVRError as error:
            raise DeviceError(
                f"SteamVR does not answer ({type(error).__name__}); start it, with requireHmd "
                "false as docs/hardware.md says"
            ) from None
        self._poses = (openvr.TrackedDevicePose_t * openvr.k_unMaxTrackedDeviceCount)()
        self._event = openvr.VREvent_t()
        self._index = None

    def close(self) -> None:
        if self._system is not None:
            self._system = None
            self._openvr.shutdown()

    def read(self) -> Reading:
        """One look; DeviceError when SteamVR is going away."""
        while self._system.pollNextEvent(self._event):
            kind = self._event.eventType
            if kind == QUIT:
                self._system.acknowledgeQuit_Exiting()
                raise DeviceError("SteamVR is closing; start it again")
            if kind in (ACTIVATED, DEACTIVATED):
                self._index = None  # indices change when trackers come and go
        now = time.monotonic()
        if self._index is not None and now - self._checked > CHECK_PERIOD:
            self._checked = now
            if self._serial_at(self._index) != self._config.serial:
                self._index = None
        if self._index is None:
            seen = self._find()
            if self._index is None:
                there = ", ".join(seen) or "none"
                reason = f"no tracker {self._config.serial}; SteamVR has: {there}; is it paired?"
                return Reading(time.time_ns(), None, reason)
        universe = self._openvr.TrackingUniverseStanding
        self._system.getDeviceToAbsoluteTrackingPose(universe, 0.0, self._poses)
        time_ns = time.time_ns()
        found = self._poses[self._index]
        pose, reason = judge(found)
        matrix = bytes(found.mDeviceToAbsoluteTracking)
        if matrix != self._matrix:
            self._matrix, self._moved = matrix, now
        if pose is not None and now - self._moved > self._config.frozen_after:
            pose, reason = None, "the pose is frozen; SteamVR hangs, start it again"
        return Reading(time_ns, pose, reason)

    def battery(self) -> float | None:
        """Charge 0..1, None where unknown; only from the thread that reads."""
        if self._system is None or self._index is None:
            return None
        try:
            return float(self._system.getFloatTrackedDeviceProperty(self._index, BATTERY))
        except self._openvr.OpenVRError:
            return None

    def _find(self) -> list[str]:
        """Set the index of the tracker; the serial numbers of all trackers."""
        seen = []
        for index in range(self._openvr.k_unMaxTrackedDeviceCount):
            kind = self._system.getTrackedDeviceClass(index)
            if kind != self._openvr.TrackedDeviceClass_GenericTracker:
                continue
            serial = self._serial_at(index)
            seen.append(serial)
            if serial == self._config.serial:
                self._index, self._checked = index, time.monotonic()
        return seen

    def _serial_at(self, index: int) -> str:
        try:
            return str(self._system.getStringTrackedDeviceProperty(index, SERIAL))
        except self._openvr.OpenVRError:
            return ""


def judge(pose: Any) -> tuple[Array | None, str]:
    """The pose (4, 4) of a ``TrackedDevicePose_t`` if it can be trusted, else None and why.

    After a loss OpenVR goes on extrapolating for a while, so validity alone is not enough.
    """
    if not pose.bDeviceIsConnected:
        return None, "the tracker is off or out of radio range; check its battery and dongle"
    if pose.eTrackingResult != RUNNING_OK or not pose.bPoseIsValid:
        result = RESULTS.get(pose.eTrackingResult, f"tracking result {pose.eTrackingResult}")
        return None, f"no tracking ({result}); can the lighthouses see the tracker?"
    with np.errstate(invalid="ignore"):  # a signalling NaN is judged below
        matrix = np.ctypeslib.as_array(pose.mDeviceToAbsoluteTracking.m).astype(np.float64)
    found = rigid(matrix)
    return (found, "") if found is not None else (None, "SteamVR sent a pose that is no pose")


def vive_tracker(
    settings: ViveConfig, name: str = "tracker", backoff: Backoff | None = None
) -> PoseTracker:
    """A tracker device over SteamVR; ConfigError where its serial number is not given."""
    if not settings.serial:
        raise config.ConfigError(
            f"{name}: serial is empty; SteamVR shows it under Devices > Manage trackers"
        )
    return PoseTracker(ViveSource(settings), name, settings.rate_hz, settings.max_speed, backoff)
