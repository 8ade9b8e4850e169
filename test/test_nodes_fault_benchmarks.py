"""What `dexpie bench faults` reads out of a trace of the emulated controller."""

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.nodes.fault_benchmarks import FAULTS, QUIET_NS, held_ms, rest_ms

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


def test_every_fault_names_its_device():
    devices = {name.split("_")[0] for name in FAULTS}
    assert devices == {"arm", "hand", "tracker", "glove", "teleop", "arbiter"}
