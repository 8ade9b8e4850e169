"""The arbiter under 10,000 random sequences of events: one source per step, limits, stillness.

The sequences come from seeded generators, so that a failure names the seed that repeats it.
"""

import math
import random

import numpy as np
import pytest

from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.limits import Limiter, LimitsConfig
from dexpie_ros.control.types import STEP_NS, Chunk, Command, Mode, RobotState, Source
from dexpie_ros.geometry import Pose

SEQUENCES = 10_000
EVENTS = 14
LIMITS = LimitsConfig(linear_speed=0.5, angular_speed=3.0, hand_speed=4.0, linear_acceleration=5.0)
SOURCES = {
    Mode.HOLD: {Source.HOLD},
    Mode.FAULT: {Source.HOLD},
    Mode.ALIGNING: {Source.HOLD},
    Mode.HANDING_BACK: {Source.HOLD},
    Mode.POLICY: {Source.POLICY, Source.HOLD},
    Mode.HUMAN: {Source.HUMAN, Source.BLEND, Source.HOLD},
}


def pose(rng, spread: float) -> Pose:
    v = [rng.gauss(0, spread) for _ in range(6)]
    return Pose(np.array(v[:3]), np.array(q.from_rotvec((v[3], v[4], v[5]))))


class Player:
    """Throws random events at an arbiter and checks every step against what it may do."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.arbiter = Arbiter(ArbiterConfig(limits=LIMITS, blend_seconds=0.12))
        self.time = 1_000_000_000 + self.rng.randrange(10**9)
        self.robot_at(Command(pose(self.rng, 0.2), np.full(6, 0.5)))
        self.follower = Command(pose(self.rng, 1.0), np.full(6, 0.5))
        self.last = None
        self.rebase = "always"  # whether the robot is taken as measured at the next step
        self.seen_modes = set()
        self.stalls = self.tick = 0

    def robot_at(self, command: Command, noise: float = 0.0):
        tcp = command.tcp
        if noise:
            tcp = q.compose(tcp, pose(self.rng, noise))
        self.robot = RobotState(self.time, np.zeros(6), np.zeros(6), tcp, command.hand)

    def chunk(self):
        rng, last = self.rng, self.last.tcp if self.last else self.robot.tcp
        length, prefix = rng.choice((3, 8, 24)), rng.choice((0, 2, 4))
        velocity = np.array([rng.gauss(0, rng.choice((1e-3, 0.02))) for _ in range(3)])
        positions = last.position + np.arange(length)[:, None] * velocity
        quaternions = np.tile(last.quaternion, (length, 1))
        hand = np.full((length, 6), rng.random())
        if rng.random() < 0.03:
            positions[rng.randrange(length)] = math.nan
        stamp = self.time - rng.choice((0, 1, 1, 1, 2, 5, 30)) * STEP_NS
        self.arbiter.add_chunk(Chunk(stamp, positions, quaternions, hand, min(prefix, length)))

    def event(self):
        rng, arbiter = self.rng, self.arbiter
        kind = rng.choices(
            ("chunk", "toggle", "request", "start", "stop", "hold", "resume", "fault", "clear",
             "carried", "jump", "policy lost", "nothing"),
            (6, 4, 3, 2, 0.5, 1, 2, 0.7, 2, 0.5, 0.5, 1, 3),
        )[0]  # fmt: skip
        before = arbiter.mode
        if kind == "chunk":
            self.chunk()
        elif kind == "toggle":
            arbiter.toggle(force=rng.random() < 0.5)
        elif kind == "request":
            arbiter.request(rng.choice(list(Mode)), force=rng.random() < 0.5)
        elif kind == "start":
            accepted, _ = arbiter.start(rng.choice(("demonstration", "deployment", "correction")))
            assert accepted == (before is not Mode.FAULT)
            self.rebase = "always" if accepted else self.rebase
            self.stalls = 0 if accepted else self.stalls
        elif kind == "stop":
            arbiter.stop()
        elif kind == "hold":
            arbiter.hold("a stream is stale")
        elif kind == "policy lost":
            arbiter.policy_lost("the policy server is silent")
            assert arbiter.mode is before, "the operator may take over all the same"
        elif kind == "resume":
            if arbiter.suspended and self.rebase == "no":
                self.rebase = "far"
            arbiter.resume()
        elif kind == "fault":
            arbiter.fault("protective stop")
        elif kind == "clear":
            self.rebase = "always" if arbiter.clear_fault()[0] else self.rebase
        elif kind == "carried":
            self.robot_at(Command(pose(rng, 0.3), np.full(6, rng.random())))
        elif kind == "jump":
            self.follower = Command(pose(rng, 1.0), np.full(6, rng.random()))
        if before is Mode.FAULT and kind != "clear":
            assert arbiter.mode is Mode.FAULT

    def step(self):
        rng = self.rng
        moved = q.compose(self.follower.tcp, pose(rng, 0.01))
        self.follower = Command(moved, np.clip(self.follower.hand + rng.gauss(0, 0.1), 0, 1))
        given = None if rng.random() < 0.1 else self.follower
        aligned = rng.choice((None, True, True, False))
        before = self.last
        allowed = Limiter(LIMITS)
        allowed._state = self.arbiter.limiter._state
        step = self.arbiter.step(self.time, self.robot, given, aligned)
        self.check(step, before, given, allowed)
        self.last = step.command
        self.robot_at(step.command, noise=rng.choice((0.0, 0.001)))
        self.time += rng.choice((STEP_NS,) * 12 + (STEP_NS - 4_000_000, 3 * STEP_NS))
        if rng.random() < 0.005:
            self.time -= 10 * STEP_NS

    def check(self, step, before, given, allowed):
        self.seen_modes.add(step.mode)
        self.tick += 1
        assert step.tick == self.tick and step.mode is self.arbiter.mode
        assert step.source in SOURCES[step.mode]
        assert step.stalls >= self.stalls
        self.stalls = step.stalls
        command, last = step.command, before
        measured = Command(self.robot.tcp, self.robot.hand)
        if self.rebase == "always" or (self.rebase == "far" and far(last, measured)):
            # what the fingers are told they go on being told
            last = measured if last is None else Command(measured.tcp, last.hand)
            allowed.reset(last)
        elif step.mode is Mode.FAULT and far(last, measured, 0.005, 0.02):
            last = Command(measured.tcp, last.hand)  # stopped elsewhere: held there
        self.rebase = "no"
        # Stillness: whoever does not drive leaves the command as it is.
        if step.source is Source.HOLD:
            assert np.array_equal(command.tcp.position, last.tcp.position)
            assert np.array_equal(command.tcp.quaternion, last.tcp.quaternion)
            assert np.array_equal(command.hand, last.hand)
        # One source: the command is that source's wish behind the limits, nothing else.
        if step.source is Source.POLICY:
            wish = allowed.limit(step.proposal, measured=self.robot.tcp)
            assert np.array_equal(command.tcp.position, wish.tcp.position)
            assert np.array_equal(command.hand, wish.hand)
        if step.source in (Source.HUMAN, Source.BLEND):
            assert given is not None and step.human is not None
            wish = allowed.limit(Command(step.human.tcp, command.hand), measured=self.robot.tcp)
            np.testing.assert_allclose(command.tcp.position, wish.tcp.position, atol=1e-12)
        # Limits, whatever happened.
        distance, angle = q.distance_and_angle(last.tcp, command.tcp)
        assert distance <= 0.5 * 0.04 + 1e-9 and angle <= 3.0 * 0.04 + 1e-7
        assert np.abs(command.hand - last.hand).max() <= 4.0 * 0.04 + 1e-12
        # The promise for an inference.
        if step.mode is Mode.HUMAN:
            assert step.upcoming == ()
        elif step.source is Source.HOLD:
            assert len(step.upcoming) == 4 and all(c is command for c in step.upcoming)
        else:
            assert step.upcoming[0] is command
            assert len(step.upcoming) == min(4, max(1, step.remaining))


def far(a: Command, b: Command, metres: float = 0.02, radians: float = 0.1) -> bool:
    distance, angle = q.distance_and_angle(a.tcp, b.tcp)
    return distance > metres or angle > radians


@pytest.mark.parametrize("block", range(10))
def test_random_events(block):
    modes, count = set(), SEQUENCES // 10
    for seed in range(block * count, (block + 1) * count):
        player = Player(seed)
        try:
            for _ in range(EVENTS):
                player.event()
                if player.rng.random() < 0.85:
                    player.step()
        except AssertionError as error:
            raise AssertionError(f"sequence {seed}: {error}") from error
        modes |= player.seen_modes
    assert modes == set(Mode)  # the sequences do reach everything
