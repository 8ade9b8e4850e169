"""Tests' ROS traffic stays on loopback and in a domain of its own; torch keeps to one thread.

Tests of running processes (live graph, devices, page) are run once more where they failed, and the
summary names each such test: a machine that stood still for seconds must not look like a defect,
and a race must not stay unseen.
"""

import os
from pathlib import Path

import pytest

LIVE = ("test_graph_", "test_devices_", "test_nodes_", "test_start_", "test_web_")

# before anything imports rclpy or torch, and inherited by the processes that tests start
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.fspath).name.startswith(LIVE):
            item.add_marker(pytest.mark.flaky(reruns=1))
