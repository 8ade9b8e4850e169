"""What people ask of the arbiter by service and by key event: who drives afterwards."""

import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from arbiter_rig import follower
from services_rig import MS, Asked

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control.keys import Action
from dexpie_ros.control.types import Mode
from dexpie_ros.nodes.intervention_arbiter import InterventionArbiterParameters


@pytest.fixture
def asked(monkeypatch):
    return Asked(monkeypatch)


def brought_into(asked, mode):
    """An episode of the policy in ``mode``, the operator out of alignment."""
    arbiter = asked.rig.arbiter
    arbiter.start("deployment")
    asked.step(follower(), aligned=False)
    if mode is Mode.FAULT:
        arbiter.fault("protective stop")
    elif mode is Mode.HANDING_BACK:
        assert arbiter.request(Mode.HUMAN, force=True)[0] and arbiter.toggle()[0]
    elif mode is not Mode.POLICY:
        assert arbiter.request(mode, force=True)[0]
    assert asked.step(follower(), aligned=False).mode is mode


@pytest.mark.parametrize("mode", Mode)
def test_force_takes_over_from_every_mode_and_gives_nothing_back(asked, mode):
    brought_into(asked, mode)
    accepted, why = asked.services.carry_out(Action.FORCE)
    after = asked.step(follower(), aligned=False).mode
    if mode is Mode.FAULT:
        assert not accepted and "protective stop" in why and after is Mode.FAULT
        return
    assert accepted and after is Mode.HUMAN
    assert (why == "already in HUMAN") == (mode is Mode.HUMAN)
    taken = asked.rig.arbiter.interventions
    asked.key("F")
    asked.key("force")
    assert asked.step(follower(), aligned=False).mode is Mode.HUMAN
    assert asked.rig.arbiter.interventions == taken


def test_force_overrides_neither_a_silent_operator_nor_a_reason_to_hold(asked):
    asked.rig.arbiter.start("deployment")
    asked.step(None)
    assert not asked.services.carry_out(Action.FORCE)[0]
    asked.step(follower())
    asked.rig.arbiter.hold("/arm/joint_states is silent")
    assert not asked.services.carry_out(Action.FORCE)[0]
    asked.rig.arbiter.resume()
    assert asked.step(follower()).mode is Mode.POLICY


def test_a_pedal_that_bounces_takes_over_once(asked):
    brought_into(asked, Mode.POLICY)
    asked.key("toggle")
    assert asked.step(follower()).mode is Mode.POLICY, "refused: out of alignment"
    asked.now += 300 * MS
    for _ in range(2):
        asked.step(follower(), aligned=True)
    for ms in (0, 8, 20, 200):
        asked.now += ms * MS
        asked.key("toggle" if ms else " ")
    assert asked.step(follower()).mode is Mode.HUMAN
    assert "counted once" in asked.warnings[-1]
    asked.now += 300 * MS
    asked.key(" ")
    assert asked.step(follower()).mode is Mode.HANDING_BACK


@pytest.mark.parametrize(
    ("key", "value"),
    [("operator_s", 0.0), ("operator_s", 60.0), ("operator_s", float("nan")),
     ("inference_delay_steps", -1)],
)  # fmt: skip
def test_times_that_would_follow_an_absent_operator_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        from_dict(InterventionArbiterParameters, {key: value})
