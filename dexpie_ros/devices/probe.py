"""A short look at configured devices, for `dexpie doctor --hardware`: is each there and well?

Nothing is moved and nothing is written to the arm: it is asked over its dashboard only, since
opening the control interface would stop a running program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dexpie_ros.config import ConfigError
from dexpie_ros.devices import ur_dashboard
from dexpie_ros.devices.aruco_camera import cube_tracker
from dexpie_ros.devices.device import DeviceError, Level, Status, Worker, wait_until
from dexpie_ros.devices.driver_parameters import (
    ArmDriverParameters,
    CameraDriverParameters,
    GloveDriverParameters,
    HandDriverParameters,
    TrackerDriverParameters,
    read,
)
from dexpie_ros.devices.inspire_hand import InspireHand
from dexpie_ros.devices.manus_glove import ManusGlove
from dexpie_ros.devices.pose_source import PoseTracker
from dexpie_ros.devices.realsense import RealSense
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.devices.ur5_process import RTDE_PORT
from dexpie_ros.devices.vive_tracker import vive_tracker

CUBE_S = 5.0
"""s at least for the cube: its camera has to be opened anew."""


def probe_arm(settings: Ur5Config, name: str = "arm", timeout: float = 1.0) -> Status:
    """Ports, robot mode and safety of a UR controller; takes at most about four ``timeout`` s."""
    began = time.monotonic()
    problem = ur_dashboard.reachable(settings.host, RTDE_PORT, timeout)
    if problem:
        return Status(name, Level.ERROR, f"not reachable: {problem}; check cable and address")
    values = {"host": settings.host, "reply_s": f"{time.monotonic() - began:.3f}"}
    try:
        for key, question in (
            ("version", "PolyscopeVersion"),
            ("robot_mode", "robotmode"),
            ("safety", "safetystatus"),
        ):
            values[key] = ur_dashboard.ask(settings.host, question, timeout)
        remote = "true"
        if settings.model == "ur5e":
            remote = ur_dashboard.ask(settings.host, "is in remote control", timeout)
    except ur_dashboard.DashboardError as error:
        return Status(name, Level.ERROR, str(error), values)
    if "NORMAL" not in values["safety"] and "REDUCED" not in values["safety"]:
        return Status(name, Level.ERROR, f"safety: {values['safety']}", values)
    if "RUNNING" not in values["robot_mode"]:
        message = f"{values['robot_mode']}: power on and release the brakes on the pendant"
        return Status(name, Level.ERROR, message, values)
    if "true" not in remote:
        return Status(name, Level.ERROR, "remote control is off; switch it on the pendant", values)
    return Status(name, Level.OK, "ok", values)


def probe(device: Worker[Any], timeout: float = 3.0) -> Status:
    """Start a hand, camera, tracker or glove, wait until it is well or ``timeout`` s, stop it."""
    device.start()
    wait_until(lambda: device.status().level in (Level.OK, Level.WARN), timeout, 0.02)
    status = device.status()
    try:
        device.stop()
    except DeviceError as error:
        return Status(device.name, Level.ERROR, str(error), status.values)
    return status


def probe_all(
    parameters: str | Path | None,
    timeout: float = 3.0,
    glove_of: Callable[[GloveDriverParameters], ManusGlove] | None = None,
) -> list[Status]:
    """All devices of a cell at the same time, in the order arm, hand, cameras, tracker, glove.

    ``parameters``: the ROS parameter file with their addresses; None: the defaults. A device that
    is not configured is an ERROR that says so. ConfigError where the file cannot be used.
    ``glove_of`` makes the glove; without it the glove speaks ZMQ.
    """
    arm = read(parameters, "arm_driver", ArmDriverParameters).arm
    hand = read(parameters, "hand_driver", HandDriverParameters).calibrated()
    cameras = {
        f"camera_{name}": read(parameters, f"camera_{name}", CameraDriverParameters)
        for name in ("front", "wrist")
    }
    tracker = read(parameters, "tracker_driver", TrackerDriverParameters)
    glove = read(parameters, "glove_driver", GloveDriverParameters)
    make_glove = glove_of or (lambda p: ManusGlove(p.glove))
    jobs: list[Callable[[], Status]] = [
        lambda: probe_arm(arm),
        lambda: probe(InspireHand(hand), timeout),
        *(partial(_probe_camera, name, camera, timeout) for name, camera in cameras.items()),
    ]
    cube = tracker.tracker == "aruco"
    if not cube:
        jobs.append(lambda: probe(vive_tracker(tracker.vive), timeout))
    jobs.append(lambda: probe(make_glove(glove), timeout))
    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(_configured, jobs))
    if cube:
        # behind the others: a camera belongs to one at a time
        camera = cameras[f"camera_{tracker.camera}"]
        found.insert(-1, _configured(partial(_probe_cube, tracker, camera, timeout)))
    return found


def _probe_cube(
    settings: TrackerDriverParameters, camera: CameraDriverParameters, timeout: float
) -> Status:
    """The tracker is well where the camera sees enough faces of the cube."""
    return probe(cube_of(settings, camera), max(timeout, CUBE_S))


def cube_of(settings: TrackerDriverParameters, camera: CameraDriverParameters) -> PoseTracker:
    """The cube of a cell, with the camera that is to see it."""
    name = f"camera_{settings.camera}"
    seen_by = RealSense(camera.realsense, name, camera.discovery(), resets=False)
    return cube_tracker(seen_by, settings.cube)


def _probe_camera(name: str, settings: CameraDriverParameters, timeout: float) -> Status:
    camera = RealSense(settings.realsense, name, settings.discovery(), resets=False)
    return probe(camera, timeout)


def _configured(job: Callable[[], Status]) -> Status:
    try:
        return job()
    except ConfigError as error:
        name, _, message = str(error).partition(": ")
        return Status(name, Level.ERROR, f"not configured: {message}")
