"""The control interface of a UR arm, opened so that its script is uploaded exactly once.

When the controller closes the connection, ur_rtde reconnects from a thread of its own and uploads its
script again, as often as it takes, until the process that owns the arm has noticed and left. Its
flag UPLOAD_SCRIPT allows both the first upload and those. So the interface is opened without that
flag and the one upload is asked for: however late the process is scheduled, there is no storm.
"""

from __future__ import annotations

import contextlib
import gc
import os
import time
from typing import Any

from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.realtime import PRIORITY, prefer_process

START_TIMEOUT = 5.0
"""s that the controller gets for starting the script."""
UR_CAP_PORT = 50002
"""ur_rtde's default; not used."""


def open_control(settings: Ur5Config) -> Any:
    """A connected RTDEControlInterface whose script runs, with watchdog, payload and TCP set.

    Raises RuntimeError with the reason where any of that did not happen.
    """
    from rtde_control import RTDEControlInterface

    flags = RTDEControlInterface.FLAG_NO_WAIT | RTDEControlInterface.FLAG_NO_EXT_FT
    if settings.upper_registers:
        flags |= RTDEControlInterface.FLAG_UPPER_RANGE_REGISTERS
    control = RTDEControlInterface(
        settings.host, settings.frequency, flags, UR_CAP_PORT, library_priority(settings)
    )
    if not control.reuploadScript():
        raise RuntimeError("the control script could not be sent to port 30003")
    deadline = time.monotonic() + START_TIMEOUT
    while not control.isProgramRunning():
        if time.monotonic() > deadline or not control.isConnected():
            raise RuntimeError(
                f"the controller did not start the control script within {START_TIMEOUT:g} s; look "
                "at the pendant: is a program or a message open?"
            )
        time.sleep(0.002)
    # without its watchdog an arm whose computer hangs would go on to its last target
    _require(control.setWatchdog(settings.watchdog_hz), "its watchdog")
    if settings.payload is not None:
        _require(control.setPayload(settings.payload, list(settings.payload_center)), "the payload")
    if settings.tcp is not None:
        _require(control.setTcp(list(settings.tcp)), "the TCP")
    return control


def keep_time(priority: int) -> None:
    """Make this process one that keeps a cycle; before ur_rtde's threads start, which inherit it.

    ``priority`` 1..99 (SCHED_FIFO) is required, PermissionError where it is not granted; with 0 a
    low one is taken where that is permitted (`dexpie_ros.realtime`), just above that of the nodes: none
    of them has a cycle as short as this one.
    """
    # A full collection takes longer than a cycle, and what there is by now stays to the end anyway.
    gc.collect()
    gc.freeze()
    gc.disable()
    if not priority:
        if prefer_process() == "fifo":
            with contextlib.suppress(PermissionError):  # the limit may end at the others' priority
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY + 1))
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        raise PermissionError(
            "realtime_priority needs the right to set it: add `rtprio 99` for this user to "
            "/etc/security/limits.conf, or set arm.realtime_priority=0"
        ) from None


def library_priority(settings: Ur5Config) -> int:
    """What to tell ur_rtde, which takes 0 for "90" where the kernel is a real-time one."""
    return settings.realtime_priority or -1


def _require(done: bool, what: str) -> None:
    if not done:
        raise RuntimeError(f"the controller did not take {what}; is the robot stopped?")
