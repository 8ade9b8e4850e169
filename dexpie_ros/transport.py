"""Which DDS transport a process uses; chosen before ``rclpy.init()``, where Fast DDS is the RMW.

Raw images need shared memory, and shared memory is not proof against ``kill -9``: who dies while it
writes to a reader leaves that reader's queue locked, and everybody else who writes to it stands still
for a second. So only the processes that send or take raw images use it. Those that command, guard
and watch speak UDP alone, and no death of a neighbour stops them.
"""

from __future__ import annotations

import importlib.metadata
import os

import rclpy

from dexpie_ros.resources import share

_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Fast DDS 3 renamed the variable and warns at the old name; Fast DDS 2 knows only the old one."""

_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"


def transport_environment(*, images: bool = False) -> dict[str, str]:
    """The variables that give this process its transport; empty where the user has a profile.

    ``images``: the process sends or takes raw images. ``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST``
    is kept by a profile of our own that is confined to loopback, since the RMW's way of doing it
    adds shared memory to every process.
    """
    if "fastrtps" not in rclpy.get_rmw_implementation_identifier():
        return {}
    profiles = {
        (needed, loopback): str(_profile(needed, loopback))
        for needed in (False, True)
        for loopback in (False, True)
    }
    set_already = [os.environ[name] for name in _VARIABLES if os.environ.get(name)]
    if any(file not in profiles.values() for file in set_already):
        return {}
    inherited = any(profiles[needed, True] in set_already for needed in (False, True))
    loopback = os.environ.get(_RANGE, "") == "LOCALHOST" or inherited
    variable = _VARIABLES[0] if _fast_dds_major() >= 3 else _VARIABLES[1]
    chosen = {variable: profiles[images, loopback]}
    if loopback:
        chosen[_RANGE] = "SYSTEM_DEFAULT"  # "as the profile says"
    return chosen


def _profile(images: bool, loopback: bool) -> os.PathLike[str]:
    kind = "images" if images else "control"
    return share("config", f"fastdds_{kind}{'_loopback' if loopback else ''}.xml")


def _fast_dds_major() -> int:
    distribution = os.environ.get("ROS_DISTRO", "")
    if distribution:
        return 2 if distribution in ("humble", "iron", "jazzy") else 3
    try:
        return 3 if int(importlib.metadata.version("ros-rclpy").split(".")[0]) >= 9 else 2
    except importlib.metadata.PackageNotFoundError:
        return 3
