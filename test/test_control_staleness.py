"""Streams that are silent, slow or frozen; the operator's keys."""

import pytest

from dexpie_ros.config import ConfigError
from dexpie_ros.control import keys
from dexpie_ros.control.keys import Action
from dexpie_ros.control.staleness import Health, StalenessMonitor, StreamConfig

MS = 1_000_000


def monitor(**settings):
    return StalenessMonitor(
        [StreamConfig("/arm", limit_s=0.1, **settings), StreamConfig("/cam", 0.5, needed=False)]
    )


def test_a_needed_stream_is_missing_fresh_and_stale_at_its_limit():
    m = monitor()
    assert "/arm never came" in m.problem(0)
    m.seen("/arm", 1000 * MS)
    assert m.problem(1100 * MS) == "" and m.fresh("/arm", 1100 * MS)
    assert m.problem(1100 * MS + 1) == "/arm is silent for more than 0.1 s"
    assert m.problem(1500 * MS) == m.problem(9000 * MS)  # a text that does not flicker
    arm, camera = m.status(1200 * MS)
    assert arm.health is Health.STALE and arm.age_s == pytest.approx(0.2)
    assert camera.health is Health.MISSING and not camera.needed
    m.seen("/arm", 1600 * MS)
    assert m.problem(1600 * MS) == ""
    m.forget()
    assert "never came" in m.problem(1600 * MS)


def test_values_that_repeat_themselves_are_frozen():
    m = monitor(frozen_s=0.5)
    for t in range(0, 700, 50):
        m.seen("/arm", t * MS, value=(1.0, 2.0))
    assert m.status(650 * MS)[0].health is Health.FROZEN and "repeats" in m.problem(650 * MS)
    m.seen("/arm", 700 * MS, value=(1.0, 2.1))
    assert m.problem(700 * MS) == ""
    for t in range(750, 1500, 50):
        m.seen("/arm", t * MS)  # without values nobody can tell
    assert m.problem(1450 * MS) == ""


def test_rates_are_measured_and_a_slow_stream_is_still_usable():
    m = monitor(rate_hz=125)
    for t in range(0, 600, 20):
        m.seen("/arm", t * MS)
    status = m.status(580 * MS)[0]
    assert status.rate_hz == pytest.approx(50) and status.health is Health.SLOW and status.usable
    assert m.problem(580 * MS) == "" and "half" in status.describe()


def test_a_clock_that_went_back_starts_anew():
    m = monitor(frozen_s=0.5)
    m.seen("/arm", 9000 * MS, value=1)
    m.seen("/arm", 10 * MS, value=1)
    assert m.status(20 * MS)[0].age_s == pytest.approx(0.01) and m.problem(20 * MS) == ""


def test_streams_that_are_unknown_or_listed_twice():
    with pytest.raises(KeyError):
        monitor().seen("/hand", 0)
    with pytest.raises(ConfigError, match="twice"):
        StalenessMonitor([StreamConfig("/a", 1.0), StreamConfig("/a", 2.0)])


def test_every_action_has_one_binding_and_no_key_two():
    assert [b.action for b in keys.BINDINGS] == list(Action)
    all_keys = [key for binding in keys.BINDINGS for key in binding.keys]
    assert len(all_keys) == len(set(all_keys))
    assert len(keys.help_lines()) == len(Action)


def test_keys_and_event_names_mean_the_same_and_only_in_their_phase():
    assert keys.resolve(" ", False)[0] is keys.resolve("toggle", True)[0] is Action.TOGGLE
    assert keys.resolve("Emergency_Stop\n", True)[0] is Action.EMERGENCY_STOP
    assert keys.resolve("s", True)[0] is Action.SUCCESS
    assert keys.resolve("s", False) == (None, "s: no episode is running")
    assert "still running" in keys.resolve("\r", True)[1]
    assert keys.resolve("X", True)[0] is Action.EMERGENCY_STOP, "also with caps lock"
    assert keys.resolve("?", True)[0] is None


def test_causes_are_chosen_by_number():
    assert keys.cause_of("1") == "tipped" and keys.cause_of("8") == "other"
    assert [keys.cause_of(x) for x in ("0", "9", "x", "", "²")] == [None] * 5
