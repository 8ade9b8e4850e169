"""Shared by the device tests: which vendor libraries there are, and a loopback address of one's own."""

import gc
import importlib
import itertools
import os
import shutil
import threading

import pytest

from dexpie_ros.devices import realsense_library
from dexpie_ros.devices.device import DeviceError, wait_until

_numbers = itertools.count(2)


def needs(module):
    """The library, or a skip that says which is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(
            f"{module} is not installed or not loadable here (pip install -e '.[hardware]'): {error}",
            allow_module_level=True,
        )


def needs_realsense():
    """librealsense, also by way of the libusb of its wheel, or a skip that says what is missing."""
    try:
        realsense_library.load()
    except DeviceError as error:
        pytest.skip(str(error), allow_module_level=True)


def needs_compiler():
    """A C compiler, or a skip: the emulated SteamVR is a library that is built here."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip(
            "no C compiler (apt install gcc): the SteamVR emulator cannot be built",
            allow_module_level=True,
        )


def loopback():
    """An address in 127/8 that no other test process uses; ports of some protocols are fixed."""
    pid = os.getpid()
    return f"127.{100 + (pid >> 8) % 100}.{pid % 250 + 1}.{next(_numbers) % 250}"


def eventually(condition, timeout=60.0, what="condition"):
    """Wait for ``condition``; generous, since the machine may be busy."""
    assert wait_until(condition, timeout), f"{what} did not hold within {timeout} s"


def memory_mb():
    """Of this process, resident now."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def repeat_without_leak(once, files=2, mb=25.0):
    """``once``, then 20 times more, which leave no threads, files or memory behind.

    The first time loads code and fills pools.
    """
    once()
    gc.collect()
    threads, opened, before = (
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        memory_mb(),
    )
    for _ in range(20):
        once()
    gc.collect()
    eventually(lambda: threading.active_count() <= threads, 60.0, f"no more than {threads} threads")
    now = len(os.listdir("/proc/self/fd"))
    assert now <= opened + files, f"{opened} open files became {now}"
    assert memory_mb() < before + mb, f"{before:.1f} MB became {memory_mb():.1f} MB"


def gone(pid):
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
