"""An arm that is lost again and again, and one that lags: no leak, no crash, no storm, no surprise."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from emulated import eventually, needs
from test_devices_arm_motion import FakeReceive
from test_devices_ur5 import drive, make

from dexpie_ros.devices import ur5_wire as wire
from dexpie_ros.devices import ur_dashboard
from dexpie_ros.devices.arm_limits import ArmLimits
from dexpie_ros.devices.device import Level
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.devices.ur5_process import ArmProcess, Leave
from dexpie_ros.devices.ur5_state import StateReader
from dexpie_ros.devices.ur5_wire import Exit, Phase

pytest_plugins = ("ur5_fixtures",)
EMULATOR = ("--unlock-delay", "1")


@pytest.fixture(scope="module", autouse=True)
def _library():
    needs("rtde_control")


def test_twenty_drops_without_crash_or_leak(host, robot):
    arm = make(host)
    arm.start()
    eventually(lambda: arm.ready)
    files = len(os.listdir("/proc/self/fd"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    uploads = robot.ask("state")["uploads"]
    for cycle in range(20):
        robot.ask("drop")
        eventually(lambda: arm.losses > cycle, what=f"loss {cycle + 1}")  # noqa: B023
        eventually(lambda: arm.ready, what=f"return {cycle + 1}")
    assert arm.losses == 20
    assert robot.ask("state")["uploads"] - uploads == 20, "one upload a return"
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < memory + 20_000  # kB
    arm.stop()
    eventually(lambda: robot.ask("state")["sessions"] == 0)


def test_no_storm_of_uploads_from_a_process_that_leaves_late(host, robot):
    """ur_rtde reconnects by itself, again and again; it must not upload its script each time."""
    code = (
        "import os, time\n"
        "from dexpie_ros.devices.ur5_config import Ur5Config\n"
        "from dexpie_ros.devices.ur5_control import open_control\n"
        f"control = open_control(Ur5Config(host={host!r}, watchdog_hz=1.0))\n"
        "print(control.isProgramRunning(), flush=True)\ntime.sleep(1.0)\nos._exit(0)\n"
    )
    uploads, connected = robot.ask("state")["uploads"], len(robot.events("connect"))
    late = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert late.stdout.readline() == b"True\n"
    began = time.monotonic()
    while late.poll() is None and time.monotonic() - began < 0.8:
        robot.ask("drop")
        time.sleep(0.1)
    late.wait()
    late.stdout.close()
    assert len(robot.events("connect")) - connected > 1, "it did not try to reconnect"
    assert robot.ask("state")["uploads"] == uploads + 1


def test_a_slowed_arm_gathers_no_way_to_go_on_its_own(host, robot):
    """The speed slider at 1 %: the targets stop where the arm may still be that far behind."""
    arm = make(host, limits=ArmLimits(workspace_low=(-0.75, -0.75, -0.1), max_lag=0.05))
    arm.start()
    eventually(lambda: arm.ready)
    start = arm.newest().tcp.position
    robot.ask("speed", share=0.01)
    drive(arm, 1.2, speed=0.2)
    sample = arm.newest()
    assert np.linalg.norm(sample.target.position - sample.tcp.position) < 0.055
    assert np.linalg.norm(sample.target.position - start) < 0.15, "asked for were 0.24 m"
    assert arm.status().message.startswith("holding: ") and arm.status().level is Level.WARN
    held = sample.target
    robot.ask("speed", share=1.0)
    eventually(lambda: np.linalg.norm(arm.newest().tcp.position - held.position) < 1e-3)
    assert np.allclose(arm.newest().target.position, held.position, atol=1e-9), "and no further"
    moved = drive(arm, 0.4)
    time.sleep(0.7)
    assert np.linalg.norm(arm.newest().tcp.position - moved.position) < 2e-3
    arm.stop()


def test_a_slowed_arm_is_let_off_the_way_that_is_taken_back(host, robot):
    """Further ahead than a step: else it would go there by itself when it is no longer slowed."""
    arm = make(host)
    arm.start()
    eventually(lambda: arm.ready)
    robot.ask("speed", share=0.01)
    drive(arm, 0.6, speed=0.2)
    sample = arm.newest()
    assert np.linalg.norm(sample.target.position - sample.tcp.position) > ArmLimits().max_step
    here = sample.tcp
    for _ in range(30):
        arm.command(here)
        time.sleep(0.04)
    assert np.allclose(arm.newest().target.position, here.position, atol=1e-6)
    robot.ask("speed", share=1.0)
    time.sleep(0.5)
    assert np.linalg.norm(arm.newest().tcp.position - here.position) < 2e-3
    arm.stop()


@pytest.mark.parametrize("stop", ["halt", "protective stop unlocked at the pendant"])
@pytest.mark.parametrize("loss", ["drop", "kill"])
def test_a_stop_outlasts_the_connection_and_the_process(host, robot, stop, loss):
    """Else a lost packet would set an arm in motion again that a person has stopped."""
    arm = make(host)
    arm.start()
    eventually(lambda: arm.ready)
    if stop == "halt":
        robot.ask("halt", reason="stopped on the pendant")
    else:
        robot.ask("protective_stop")
    eventually(lambda: arm.phase is Phase.STOPPED, 60.0)
    why, uploads = arm.status().message, robot.ask("state")["uploads"]
    if stop != "halt":
        unlocked = "Protective stop releasing"
        eventually(lambda: robot.ask("dashboard", question="unlock protective stop") == unlocked)
    for losses in (1, 2):  # the second one's process has it from the first one's
        if loss == "drop":
            robot.ask("drop")
        else:
            eventually(lambda: arm.process_id is not None, 60.0)
            os.kill(arm.process_id, signal.SIGKILL)
        eventually(lambda: arm.losses >= losses, 60.0, "loss")  # noqa: B023
        eventually(lambda: arm.phase is Phase.STOPPED, 60.0, "stop kept")
        assert arm.status().message == why
    count = arm.samples.count
    assert arm.wait(count + 20, 60.0) is not None, "the state goes on"
    assert arm.phase is Phase.STOPPED and robot.ask("state")["uploads"] == uploads
    assert arm.recover()[0]
    eventually(lambda: arm.ready, 60.0, "recovered")
    assert robot.ask("state")["uploads"] > uploads
    robot.ask("drop")
    eventually(lambda: arm.losses >= 3, 60.0)
    eventually(lambda: arm.ready, 60.0, "back by itself: nothing is remembered any more")
    arm.stop()


def test_a_slow_dashboard_does_not_lose_the_recovery(monkeypatch):
    """Its answers block for longer than the connection may be silent."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the process sets its own
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    receive = FakeReceive()
    receive.isConnected = lambda: True
    receive.getSafetyMode = lambda: safety[0]
    safety, asked = [3], []
    process = ArmProcess(Ur5Config(unlock_delay=0.0), theirs)
    process._receive, process._reader = receive, StateReader(receive)
    process._read_state()
    process._enter_stop("protective stop")

    def ask(host, question):
        asked.append(question)
        receive.time += 0.8  # the robot goes on sending meanwhile
        process._reader._fresh_at -= 0.8
        return "Protective stop releasing"

    monkeypatch.setattr(ur_dashboard, "ask", ask)
    ours.send(wire.RECOVER)
    for _ in range(3):
        process._stopped_cycle()
    assert asked == ["close safety popup", "unlock protective stop"] and process._recovering
    safety[0] = 1
    receive.time += 0.008
    with pytest.raises(Leave) as left:
        process._stopped_cycle()
    assert left.value.code is Exit.RECOVERED
    ours.close()
    theirs.close()


def test_data_that_come_late_are_old_data_however_steadily_they_come(host, robot):
    """As over a bad network: nobody must take them for what the arm does now."""
    arm = make(host, hold_after=0.5, lost_after=2.0, watchdog_hz=1.0)
    arm.start()
    eventually(lambda: arm.ready)
    losses, uploads = arm.losses, robot.ask("state")["uploads"]
    robot.ask("slow", seconds=0.3)
    eventually(lambda: arm.status().level is Level.STALE, what="late data told")
    count = arm.samples.count
    eventually(lambda: arm.samples.count > count + 20, what="the data go on coming")
    assert arm.samples.age() > 0.25 and not arm.ready
    robot.ask("slow")
    eventually(lambda: arm.ready, what="fresh data")
    assert arm.losses == losses and robot.ask("state")["uploads"] == uploads
    arm.stop()
