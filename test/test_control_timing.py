"""Figures of the loop's timing."""

import numpy as np
import pytest

from dexpie_ros.control.timing import TimingMonitor
from dexpie_ros.control.types import STEP_NS, Command, ControlStep, Mode, Source
from dexpie_ros.geometry import Pose

MS = 1_000_000


def step(mode=Mode.POLICY):
    command = Command(Pose(np.zeros(3), np.array([0, 0, 0, 1.0])), np.zeros(6))
    return ControlStep(0, 1, command, Source.HOLD, mode)


def test_jitter_is_the_deviation_from_the_step_and_pauses_are_none():
    timing, now = TimingMonitor(), 0
    assert timing.as_dict() == {}
    for late in (0, 2, -2, 0):
        timing.stepped(step(), now)
        now += STEP_NS + late * MS
    timing.pause()
    timing.stepped(step(), now + 10**12)
    figures = timing.as_dict()
    assert figures["jitter_count"] == 3
    assert figures["jitter_p50_ms"] == pytest.approx(2) and figures["jitter_max_ms"] == 2


def test_a_takeover_lasts_until_the_first_human_step():
    timing = TimingMonitor()
    timing.toggled(100 * MS)
    timing.stepped(step(), 110 * MS)
    timing.stepped(step(Mode.HUMAN), 131 * MS)
    timing.stepped(step(Mode.HUMAN), 171 * MS)
    assert timing.as_dict()["takeover_max_ms"] == pytest.approx(31)
    assert timing.as_dict()["takeover_count"] == 1
    for k in range(101):
        timing.sample("command_latency", float(k))
    assert timing.as_dict()["command_latency_p99_ms"] == pytest.approx(99)
