"""What `dexpie bench faults` reads out of a trace of the emulated controller."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.config import ConfigError
from dexpie_ros.nodes.fault_benchmarks import _specs, bench_faults
from dexpie_ros.nodes.fault_cases import CELLS
from dexpie_ros.nodes.fault_cell import QUIET_NS, follows, held_ms, rest_ms
from dexpie_ros.nodes.session_client import GraphError
from dexpie_ros.policy.policy import Policy

MS = 1_000_000
CYCLE = 8 * MS


def trace(changes, moves, length=125, fault=1000 * MS):
    """Cycles of 8 ms from the fault on; until when (ms) the target changes and the arm moves."""
    entries = []
    for k in range(1, length):
        now = fault + k * CYCLE
        changed = min(now, fault + changes * MS)
        entries.append([now, 0.1 if now <= fault + moves * MS else 0.0, k, [0, 0, 0], changed])
    return entries


def test_the_last_change_before_the_target_stays_counts():
    assert held_ms(1000 * MS, trace(64, 0)) == 64.0
    assert held_ms(1000 * MS, trace(-20, 0)) == 0.0, "held before anybody could notice"
    assert held_ms(1000 * MS, trace(10_000, 0)) == -1.0, "followed on"
    short = [entry for entry in trace(64, 0) if entry[0] < 1064 * MS + QUIET_NS]
    assert held_ms(1000 * MS, short) == -1.0, "not watched for long enough"


def test_a_target_that_changes_again_later_was_held_all_the_same():
    """A connection that comes back: the operator goes on."""
    first = trace(64, 0, 80)
    later = [[t, v, n, p, max(c, t)] for t, v, n, p, c in trace(64, 0)[79:]]
    assert held_ms(1000 * MS, first + later) == 64.0


def test_an_arm_is_at_rest_when_it_stays_so():
    assert rest_ms(1000 * MS, trace(0, 160)) == 160.0
    assert rest_ms(1000 * MS, trace(0, 0)) == 0.0
    assert rest_ms(1000 * MS, trace(0, 10_000)) == -1.0
    turning = trace(0, 80)
    for entry in turning:  # at rest for a moment, where a circle turns
        if 1160 * MS < entry[0] <= 1240 * MS:
            entry[1] = 0.1
    assert rest_ms(1000 * MS, turning) == 240.0


def test_an_arm_follows_while_its_target_changes_all_the_time():
    assert follows(trace(10_000, 0)) and not follows(trace(10_000, 0)[:5]), "too short a look"
    assert not follows(trace(700, 0))


def test_every_fault_names_its_device():
    names = [name for cell in CELLS.values() for name in cell.faults]
    assert len(set(names)) == len(names)
    devices = {name.split("_")[0] for name in names}
    assert devices == {
        "arm", "ur5e", "hand", "tracker", "glove", "teleop", "arbiter", "camera", "policy",
    }  # fmt: skip
    assert all(all(fault.tells) for cell in CELLS.values() for fault in cell.faults.values())


class Hands:
    """Notes what is asked of emulators, and answers it."""

    def __init__(self, stamp):
        self.stamp, self.asked = stamp, []

    def ask(self, emulator, do, **values):
        self.asked.append((emulator, do, values))
        return self.stamp

    def pid(self, node):
        return os.getpid()


def test_a_fault_without_a_stamp_is_refused():
    """It would be reckoned from the machine's start."""
    fault = CELLS["modbus_tcp"].faults["arm_protective_stop"]
    assert fault.begin(Hands(17)) == 17
    with pytest.raises(GraphError, match="protective_stop gives no stamp"):
        fault.begin(Hands(None))
    hands = Hands(17)
    CELLS["eb90"].faults["hand_eb90_silent"].end(hands)
    assert hands.asked == [("inspire", "line_fault", {"kind": ""})]


def test_a_killed_process_is_found_below_its_node():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "ur5_process"])
    try:
        before = time.monotonic_ns()
        # until then the child's command line is still this process' own
        assert child.poll() is None
        stamp = CELLS["ur5e"].faults["ur5e_process_killed"].begin(Hands(0))
        assert stamp >= before and child.wait(60) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
    with pytest.raises(GraphError, match="no child ur5_process"):
        CELLS["ur5e"].faults["ur5e_process_killed"].begin(Hands(0))


def test_emulators_and_drivers_of_a_cell_are_those_it_names(tmp_path):
    specs = {spec.name: spec for spec in _specs(CELLS["eb90"], tmp_path)}
    hand = specs["hand_driver"].parameters
    assert (hand["hand.transport"], hand["hand.device"]) == ("eb90", str(tmp_path / "eb90"))
    assert specs["emulator_inspire"].arguments[-2:] == ("--folder", str(tmp_path))
    assert specs["camera_front"].parameters["realsense.width"] == 320
    assert {"tracker_driver", "recorder"} <= set(specs)
    with pytest.raises(ConfigError, match="no fault is called"):
        bench_faults(only="hand_ir")


def test_a_policy_drives_without_the_operator_and_goes_on_a_circle(tmp_path):
    names = {spec.name for spec in _specs(CELLS["policy"], tmp_path)}
    assert {"policy_server", "camera_front", "emulator_front"} <= names
    assert not names & {"recorder", "tracker_driver", "camera_wrist"}
    policy = Policy.load(tmp_path / "policy", "cpu", ("images",))
    pictures = np.zeros((1, 3, 64, 64), np.uint8)
    tcp, _ = policy.sample(np.zeros(policy.config.observation.size), np.eye(4), pictures)
    steps = np.linalg.norm(np.diff(tcp[:, :3, 3], axis=0), axis=1)
    assert steps == pytest.approx(0.06 * 0.04, rel=0.02)
