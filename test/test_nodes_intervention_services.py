"""What people ask of the arbiter by service and by key event: who drives afterwards."""

from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from arbiter_rig import follower, robot
from services_rig import MS, Asked, go_home

from dexpie_ros.config import ConfigError, from_dict
from dexpie_ros.control.homing import HomingConfig
from dexpie_ros.control.keys import Action
from dexpie_ros.control.types import Mode
from dexpie_ros.nodes.intervention_arbiter import InterventionArbiter, InterventionArbiterParameters


@pytest.fixture(autouse=True)
def ordinary(monkeypatch):
    """An arbiter puts its process before all others, which here is that of all tests."""
    monkeypatch.setenv("DEXPIE_REALTIME", "0")


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


HOME = {"position": (0.3, 0.0, 0.4), "quaternion": (0.0, 0.0, 0.0, 1.0), "hand": (1.0,) * 6}


@pytest.mark.parametrize("missing", [*HOME, ""])
def test_a_robot_goes_home_only_where_it_was_told(monkeypatch, missing):
    given = {name: value for name, value in HOME.items() if name != missing}
    asked = Asked(monkeypatch, HomingConfig(**given))
    answer = go_home(asked)
    if not missing:
        assert answer is None and asked.services.homing
        return
    assert not answer[0] and f"set homing.{missing} of" in answer[1]
    assert asked.rig.arbiter.kind == "" and not asked.services.homing
    at_home = HomingConfig(**given).in_simulation()
    assert not at_home.unknown() and getattr(at_home, missing) != HOME[missing]


def test_a_stack_that_will_go_home_does_not_start_without_one():
    given = [word for k, v in HOME.items() for word in ("-p", f"homing.{k}:={list(v)}")]
    for words, refused in (
        (["-p", "home_needed:=true"], True),
        (["-p", "home_needed:=true", *given], False),
        (["-p", "home_needed:=true", "-p", "use_sim_time:=true"], False),
        ([], False),
    ):
        rclpy.init(args=["--ros-args", *words])
        try:
            if refused:
                with pytest.raises(ConfigError, match=r"homing\.position, homing\.quaternion"):
                    InterventionArbiter()
            else:
                InterventionArbiter().destroy_node()
        finally:
            rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("key", "value"),
    [("operator_s", 0.0), ("operator_s", 60.0), ("operator_s", float("nan")),
     ("inference_delay_steps", -1)],
)  # fmt: skip
def test_times_that_would_follow_an_absent_operator_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        from_dict(InterventionArbiterParameters, {key: value})


@pytest.mark.parametrize(("simulated", "opening"), [("true", 0.4), ("false", 0.8)])
def test_an_episode_goes_on_with_the_grip_unless_its_scene_is_new(simulated, opening):
    """A simulator puts the hand where the scene begins; on a robot nobody but the arbiter moves it."""
    rclpy.init(args=["--ros-args", "-p", f"use_sim_time:={simulated}"])
    try:
        node = InterventionArbiter()
        request = SimpleNamespace(
            kind="deployment", episode_id="a", policy_id="p",
            scene_stamp=SimpleNamespace(sec=0, nanosec=0),
        )  # fmt: skip
        node._arbiter.step(1, robot(hand=0.8))
        assert node._serve_start(request, SimpleNamespace()).success
        assert node._arbiter.step(2, robot(hand=0.4)).command.hand.tolist() == [opening] * 6
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
