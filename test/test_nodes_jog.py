"""`dexpie jog` and the arbiter's side of it: between episodes only, and only while it is asked for."""

import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from arbiter_rig import follower
from services_rig import MS, Asked, go_home

from dexpie_ros import geometry
from dexpie_ros.config import ConfigError
from dexpie_ros.control.types import Mode, Source
from dexpie_ros.nodes import intervention_services, jog


@pytest.fixture
def asked(monkeypatch):
    return Asked(monkeypatch)


def test_it_moves_while_it_is_asked_for_and_holds_then(asked):
    start = asked.x
    for _ in range(25):
        asked.ask()
        asked.step()
    assert 0.043 < asked.x - start < 0.051
    asked.ask(0.0)
    asked.step()
    held = asked.x
    last = [asked.step() for _ in range(10)][-1]
    assert (asked.x, last.source, last.mode) == (held, Source.HOLD, Mode.HOLD)
    assert asked.rig.arbiter.kind == "" and not asked.services.homing
    asked.ask(-0.05)
    for _ in range(5):
        asked.ask(-0.05)
        asked.step()
    assert asked.x < held, "and again"


def test_the_way_does_not_depend_on_how_promptly_it_is_asked_for(asked):
    start, asked.amount = asked.x, [0.03]
    for k in range(60):
        if k % 7 < 2:  # a program that hardly gets to run
            asked.ask()
        asked.step()
    assert asked.x - start == pytest.approx(0.03, abs=1e-6)
    assert asked.rig.arbiter.mode is Mode.HOLD
    asked.ask()
    asked.step()
    assert asked.x - start == pytest.approx(0.03, abs=1e-6), "the same jog is over"
    asked.jog = 2
    for _ in range(30):
        asked.ask()
        asked.step()
    assert asked.x - start == pytest.approx(0.06, abs=1e-6)


def test_a_program_that_died_leaves_a_robot_that_holds(asked):
    for _ in range(10):
        asked.ask()
        asked.step()
    began = asked.x
    for _ in range(15):
        asked.step()
    assert 0 < asked.x - began < 0.05 * 0.3
    assert asked.rig.arbiter.mode is Mode.HOLD


@pytest.mark.parametrize("kind", ["deployment", "demonstration"])
def test_an_episode_is_not_jogged(asked, kind):
    asked.rig.arbiter.start(kind)
    start = asked.x
    for _ in range(5):
        asked.ask()
        asked.step()
    assert asked.x == start and asked.rig.arbiter.kind == kind
    assert "an episode is running; end it first" in asked.warnings[0]


TAKEN = "the operator has the robot; he must give it back first"


@pytest.mark.parametrize("mode", [Mode.HUMAN, Mode.ALIGNING])
def test_the_operator_is_not_robbed_of_the_robot(asked, mode):
    asked.rig.step(follower())
    assert asked.rig.arbiter.request(mode, force=True)[0]
    assert asked.rig.step(follower(), aligned=False).mode is mode
    asked.ask()
    assert go_home(asked) == (False, TAKEN)
    assert asked.rig.arbiter.mode is mode and not asked.services.homing
    assert asked.warnings == [f"jog: {TAKEN}"]
    asked.services.carry_out(intervention_services.Action.HOLD)
    assert go_home(asked) is None and asked.services.homing


def test_the_way_home_after_an_episode_is_not_refused(asked):
    """Its end takes the robot from the operator: the session's way home begins in HOLD."""
    asked.rig.arbiter.start("demonstration")
    asked.rig.step(follower())
    assert asked.rig.arbiter.toggle(force=True)[0]
    assert asked.rig.step(follower()).mode is Mode.HUMAN
    assert go_home(asked) == (False, "an episode is running; end it first")
    asked.rig.arbiter.stop()
    assert go_home(asked) is None and asked.services.homing


def test_a_robot_that_holds_for_a_reason_is_not_jogged(asked):
    start = asked.x
    asked.rig.arbiter.hold("/arm/joint_states is silent")
    asked.ask()
    asked.step()
    asked.rig.arbiter.resume()
    assert asked.x == start and "is silent" in asked.warnings[-1]
    for _ in range(3):
        asked.ask()
        asked.step()
    asked.rig.arbiter.hold("/arm/joint_states is silent")
    asked.ask()
    held = asked.step().command.tcp.position[0]
    asked.rig.arbiter.resume()
    assert asked.step().command.tcp.position[0] == held, "the jog is over"
    asked.rig.arbiter.fault("stop")
    asked.ask()
    asked.step()
    assert asked.x == held and asked.rig.arbiter.mode is Mode.FAULT
    assert "stop" in asked.warnings[-1]


def test_an_episode_that_begins_meanwhile_has_the_robot_for_itself(asked):
    for _ in range(3):
        asked.ask()
        asked.step()
    asked.rig.arbiter.start("deployment")
    asked.step()
    start = asked.x
    for _ in range(3):
        asked.ask()
        asked.step()
    assert asked.x == start and not asked.services.homing
    assert asked.rig.arbiter.kind == "deployment", "the episode goes on"


def test_an_operator_who_takes_over_ends_it(asked):
    for _ in range(3):
        asked.ask()
        asked.step()
    assert asked.services.carry_out(intervention_services.Action.HOLD)[0]
    held = asked.x
    for _ in range(3):
        asked.step()
    assert asked.x == held and asked.rig.arbiter.kind == ""


# -- the command -----------------------------------------------------------------------------------
def test_a_jog_is_short_and_slow():
    assert jog.plan("x", 0.02) == pytest.approx(0.02)
    assert jog.plan("rz", -0.1, 0.05) == pytest.approx(-0.05)
    assert jog.plan("index", -0.5) == pytest.approx(-0.2)
    for axis, amount, speed in (("x", 0.2, 0), ("x", 0.0, 0), ("ry", 0.1, 1.0), ("z", 0.01, -1.0),
                                ("thumb_bend", 2.0, 0), ("y", float("nan"), 0)):  # fmt: skip
        with pytest.raises(ConfigError, match="expected up to"):
            jog.plan(axis, amount, speed)


def test_what_was_measured_is_compared_with_what_was_asked_for():
    a = (np.eye(4), np.ones(6))
    b = (geometry.make_pose(geometry.rotation_exp([0, 0, 0.1]), [0.02, 0, -0.001]), np.ones(6))
    assert jog.compare("x", a, b) == pytest.approx((0.02, 0.001))
    assert jog.compare("rz", a, b) == pytest.approx((0.1, 0.0))
    closed = np.array([1, 1, 1, 0.6, 1, 0.9])
    assert jog.compare("index", a, (a[0], closed)) == pytest.approx((-0.4, 0.1))


def test_ctrl_c_still_tells_the_arbiter_to_stop(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    jogger = jog._Jogger()
    asked, publish = [], jogger._output.publish

    def record(message):
        publish(message)
        asked.append(message.velocity[0])
        if len(asked) == 3:
            # while it waits for the next step, as nearly always
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()

    monkeypatch.setattr(jogger, "_output", SimpleNamespace(publish=record))
    monkeypatch.setattr(jogger, "_in", lambda mode: mode is (Mode.POLICY if asked else Mode.HOLD))
    try:
        with pytest.raises(KeyboardInterrupt):
            jogger.move("x", 0.02, 0.05)
    finally:
        jogger.__exit__(None)
        signal.signal(signal.SIGINT, before)
    assert asked[:2] == [0.05, 0.05] and asked[-1] == 0.0


def test_random_events_never_move_a_robot_that_nobody_drives(monkeypatch):
    """Jogs and ways home among episodes, stops, holds and faults: 6000 random events."""
    import random

    rng, asked = random.Random(3), Asked(monkeypatch)
    arbiter = asked.rig.arbiter
    wanted, jogged, seen = 0, 0, set()
    for _ in range(6000):
        event = rng.choice(("jog",) * 8 + ("nothing",) * 4 + (
            "episode", "stop", "hold", "resume", "fault", "clear", "toggle", "new", "home"))  # fmt: skip
        if event == "jog":
            asked.ask(rng.choice((0.05, -0.05)), rng.choice(("x", "y", "z")))
            wanted = asked.now
        elif event == "episode":
            arbiter.start(rng.choice(("deployment", "demonstration")))
        elif event == "stop":
            arbiter.stop()
        elif event == "hold":
            arbiter.hold("a stream is silent")
        elif event == "resume":
            arbiter.resume()
        elif event == "fault":
            arbiter.fault("protective stop")
        elif event == "clear":
            arbiter.clear_fault()
        elif event == "toggle":
            arbiter.toggle(force=True)
        elif event == "new":
            asked.jog += 1
        elif event == "home" and not asked.services._move():
            asked.services._home_from_next_step, asked.services._home_end_ns = True, 0
        own = asked.services.homing and arbiter.counts is asked.services._run
        before = arbiter.last_command.tcp.position
        step = asked.step()
        moved = float(np.linalg.norm(step.command.tcp.position - before))
        seen.add(step.mode)
        if moved > 1e-12:
            assert step.source is Source.POLICY and own, (
                f"{event}: moved {moved} in {step.mode.name}"
            )
            assert moved <= 0.15 * 0.04 + 1e-9
            jogged += 1
        if asked.services._jogs:
            assert asked.now - wanted < 300 * MS and arbiter.kind == "deployment"
    assert jogged > 200 and {Mode.HOLD, Mode.POLICY, Mode.FAULT} <= seen
