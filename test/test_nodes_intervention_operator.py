"""What the arbiter hears of the operator: how long it counts, live and in lockstep."""

import logging
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.control.arbiter import Arbiter
from dexpie_ros.control.timing import TimingMonitor
from dexpie_ros.control.types import STEP_NS, Command, ControlStep, Mode, Source
from dexpie_ros.geometry import Pose
from dexpie_ros.nodes.intervention_operator import InterventionOperator

S = 1_000_000_000


def heard(arbiter=None, timing=None, **which):
    """The operator's part of an arbiter, and what gives it messages."""
    given = {}
    node = SimpleNamespace(
        subscribe=lambda topic, callback: given.__setitem__(topic, callback),
        get_logger=lambda: logging.getLogger("arbiter"),
    )
    operator = InterventionOperator(
        node, arbiter or Arbiter(), threading.RLock(), timing or TimingMonitor(), 0.15,
        **{"lockstep": False, "simulated": False, "heard": lambda *_: None, **which},
    )  # fmt: skip
    return operator, given["/teleop/alignment"]


def message(stamp_ns=0, angle=0.1, aligned=True):
    stamp = SimpleNamespace(sec=stamp_ns // S, nanosec=stamp_ns % S)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=stamp), angle=angle, hand_difference=np.zeros(6),
        angle_limit=0.2, hand_limit=0.3, aligned=aligned,
    )  # fmt: skip


def test_on_a_robot_an_old_go_is_none(monkeypatch):
    now = [50 * S]
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    operator, hear = heard()
    unknown = operator.alignment(0)
    assert not unknown.aligned and "alignment unknown" in unknown.describe()
    hear(message())
    now[0] += 150_000_000
    assert operator.alignment(0).aligned
    now[0] += 1
    assert not operator.alignment(0).aligned and "unknown" in operator.alignment(0).describe()
    hear(message())
    assert operator.alignment(0).aligned


def test_in_simulation_the_worlds_own_clock_counts():
    operator, hear = heard(simulated=True)
    assert not operator.alignment(7 * S).aligned
    hear(message(7 * S))
    assert operator.alignment(7 * S + 5 * STEP_NS).aligned
    assert not operator.alignment(7 * S + 5 * STEP_NS + 1).aligned
    assert not operator.alignment(1 * S).aligned, "of a world that began anew"


def test_in_lockstep_nothing_ages():
    operator, hear = heard(lockstep=True, simulated=True)
    assert operator.alignment(7 * S) is None, "nobody judges it"
    hear(message(7 * S))
    assert operator.alignment(9_000 * S).aligned


def test_the_takeover_out_of_aligning_is_timed_from_the_alignment(monkeypatch):
    now, arbiter, timing = [50 * S], Arbiter(), TimingMonitor()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now[0])
    _, hear = heard(arbiter, timing)
    hear(message())  # aligned before anybody asked: that is no takeover
    command = Command(Pose([0.0] * 3, [0.0, 0.0, 0.0, 1.0]), np.zeros(6))
    timing.stepped(ControlStep(0, 1, command, Source.HUMAN, Mode.HUMAN), now[0] + 1)
    assert "takeover_count" not in timing.as_dict()
    assert arbiter.request(Mode.ALIGNING)[0]
    hear(message(angle=0.5, aligned=False))
    hear(message())
    timing.stepped(ControlStep(0, 2, command, Source.HUMAN, Mode.HUMAN), now[0] + 12_000_000)
    assert timing.as_dict()["takeover_max_ms"] == pytest.approx(12)
