"""Tests' ROS traffic stays on loopback and in a domain of its own; torch keeps to one thread.

Tests of running processes (live graph, devices, page) are tried again where they failed, with a new
graph, at most twice, and the summary names each such test: a machine that stood still for seconds
must not look like a defect, and a race must not stay unseen.
"""

import os
from pathlib import Path

import pytest

LIVE = (
    "test_graph_", "test_devices_", "test_nodes_", "test_start_", "test_web_", "test_demo_",
    "test_episodes_killed", "test_training_processes",
)  # fmt: skip

# before anything imports rclpy or torch, and inherited by the processes that tests start
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
else:
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("OMP_NUM_THREADS", "1")


try:
    import hypothesis
except ImportError:  # its tests are skipped or fail by themselves
    pass
else:  # how fast a machine is says nothing about the code
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("any", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("any")

FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items):
    for item in items:
        if is_live(item):
            item.add_marker(pytest.mark.flaky(reruns=2))


def is_live(item):
    return Path(item.fspath).name.startswith(LIVE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed and is_live(item):
        item.stash[FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """What failed may have left its graph or emulator in any state: the next try has a new one."""
    done = yield
    if item.stash.get(FAILED, False):
        del item.stash[FAILED]
        for definitions in item._fixtureinfo.name2fixturedefs.values():
            for definition in definitions:
                if definition.scope == "module":
                    definition.finish(item._request)
    return done


@pytest.fixture(autouse=True)
def no_device_outlasts_its_test(request, monkeypatch):
    """Two programs on one serial line: a device that a failed test left would fail the next one."""
    if not request.path.name.startswith("test_devices_"):
        yield
        return
    from dexpie_ros.devices.device import Worker
    from dexpie_ros.devices.ur5 import Ur5

    started = []
    for kind in (Worker, Ur5):

        def start(device, kind=kind, really=kind.start):
            started.append(device)
            really(device)

        monkeypatch.setattr(kind, "start", start)
    yield
    for device in started:
        device.stop()


@pytest.fixture(autouse=True)
def _stays_ordinary():
    """A test that leaves this process before ordinary ones gives its place to every node that a later
    test starts, and one that waits busily then keeps the machine from all others.
    """
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail(
            "left the tests' process with real-time scheduling (DEXPIE_REALTIME=0 keeps it)"
        )
