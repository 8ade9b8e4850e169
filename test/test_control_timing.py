"""Figures of the loop's timing."""

import dataclasses

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
        timing.sample("any", float(k))
    assert timing.as_dict()["any_p99_ms"] == pytest.approx(99)


def test_a_takeover_out_of_aligning_lasts_from_the_alignment_on():
    timing = TimingMonitor()
    timing.aligned(True, 100 * MS)
    timing.aligned(False, 110 * MS)  # out again before a step came
    timing.stepped(step(Mode.ALIGNING), 111 * MS)
    timing.aligned(True, 130 * MS)
    timing.aligned(True, 170 * MS)
    timing.stepped(step(Mode.HUMAN), 151 * MS)
    figures = timing.as_dict()
    assert figures["takeover_count"] == 1 and figures["takeover_max_ms"] == pytest.approx(21)


def test_the_latency_of_a_command_is_chunk_decision_and_command_together():
    timing, policy = TimingMonitor(), dataclasses.replace(step(), source=Source.POLICY, tick=7)
    timing.decided(policy, 2.0)
    timing.command_arrived(7, 1.0)
    assert "command_latency_count" not in timing.as_dict(), "no chunk was heard yet"
    timing.chunk_arrived(4.0)
    timing.command_arrived(7, 1.0)
    timing.command_arrived(6, 1.0)  # of an earlier step
    timing.decided(step(), 50.0)
    timing.command_arrived(1, 1.0)  # nobody of the policy's
    figures = timing.as_dict()
    assert figures["command_latency_count"] == 1 and figures["command_latency_p99_ms"] == 7.0
    assert figures["decision_count"] == 2 and figures["command_way_count"] == 4
    timing.clear()
    timing.decided(policy, 2.0)
    timing.command_arrived(7, 1.0)
    assert "command_latency_count" not in timing.as_dict(), "a chunk of the episode before"
