"""Shared by the device tests: which vendor libraries there are, and a loopback address of one's own."""

import importlib
import itertools
import os

import pytest

from dexpie_ros.devices.device import wait_until

_numbers = itertools.count(2)


def needs(module):
    """The library, or a skip that says which is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} is not installed or not loadable here: {error}")


def loopback():
    """An address in 127/8 that no other test process uses; ports of some protocols are fixed."""
    pid = os.getpid()
    return f"127.{100 + (pid >> 8) % 100}.{pid % 250 + 1}.{next(_numbers) % 250}"


def eventually(condition, timeout=20.0, what="condition"):
    """Wait for ``condition``; generous, since the machine may be busy."""
    assert wait_until(condition, timeout), f"{what} did not hold within {timeout} s"


def gone(pid):
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
