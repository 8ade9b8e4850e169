"""Takeover and hand-back from random states: how large are the largest step and the largest jerk?

The policy and the operator each move smoothly at up to 0.3 m/s and 1 rad/s. No step at a transition
may be larger than the faster of the two, and no change of velocity larger than stopping one and
starting the other.
"""

import numpy as np
from arbiter_rig import running

from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.takeover import wrong_frame
from dexpie_ros.control.types import STEP_NS, Chunk, Command, Mode, RobotState, Source
from dexpie_ros.geometry import Pose

SPEED, TURN, HAND = 0.3, 1.0, 1.5
"""m/s, rad/s and openings/s of whoever drives"""
DT = STEP_NS * 1e-9


class Wave:
    """A smooth motion of bounded speed through a random pose."""

    def __init__(self, rng, centre):
        self.centre = centre
        self.rate = rng.uniform(1.0, 3.0)
        direction = rng.normal(size=3)
        axis = rng.normal(size=3)
        self.shift = direction / np.linalg.norm(direction) * SPEED / self.rate
        self.turn = axis / np.linalg.norm(axis) * TURN / self.rate
        self.hand = rng.uniform(0.2, 0.8)
        self.swing = min(HAND / self.rate, 0.2)
        self.phase = rng.uniform(0, 6.28)

    def __call__(self, t: float) -> Command:
        s = np.sin(self.rate * t + self.phase)
        turned = q.from_rotvec(tuple(self.turn * s))
        tcp = q.compose(self.centre, Pose(self.shift * s, np.array(turned)))
        return Command(tcp, np.full(6, self.hand + self.swing * s))


def random_pose(rng, spread) -> Pose:
    return Pose(rng.normal(size=3) * spread, np.array(q.from_rotvec(tuple(rng.normal(size=3)))))


def run(seed: int):
    """One episode with a takeover and a hand-back at random steps; its steps."""
    rng = np.random.default_rng(seed)
    arbiter = Arbiter(ArbiterConfig())
    start = random_pose(rng, 0.02)  # far from the walls of the workspace
    policy, operator = Wave(rng, start), Wave(rng, random_pose(rng, 1.0))
    tcp, hand = policy(0.0).tcp, policy(0.0).hand
    arbiter.start("deployment")
    takeover, back = 20 + int(rng.integers(20)), 60 + int(rng.integers(20))
    pending: list[tuple[int, Chunk]] = []
    steps = []
    for tick in range(120):
        now = 10**9 + tick * STEP_NS
        if tick in (takeover, back):
            assert arbiter.toggle()[0]
        while pending and pending[0][0] <= tick:
            arbiter.add_chunk(pending.pop(0)[1])
        step = arbiter.step(
            now, RobotState(now, np.zeros(6), np.zeros(6), tcp, hand), operator(tick * DT)
        )
        tcp, hand = step.command.tcp, step.command.hand
        steps.append(step)
        if step.remaining <= 4 and not pending:
            # A policy that goes on from its prefix, along its own wave.
            prefix = step.upcoming
            anchor = prefix[-1] if prefix else step.command
            commands = list(prefix)
            first = policy((tick + len(prefix) - 1) * DT)
            offset = q.compose(anchor.tcp, q.inverse(first.tcp))
            for k in range(len(prefix), 24):
                ahead = policy((tick + k) * DT)
                opening = anchor.hand + ahead.hand - first.hand
                commands.append(Command(q.compose(offset, ahead.tcp), np.clip(opening, 0, 1)))
            chunk = Chunk(
                now,
                np.array([c.tcp.position for c in commands]),
                np.array([c.tcp.quaternion for c in commands]),
                np.array([c.hand for c in commands]),
                len(prefix),
            )
            pending.append((tick + 1 + int(rng.integers(4)), chunk))
    return steps


def test_transitions_are_smooth_from_random_states():
    largest = dict.fromkeys(("step", "turn", "hand", "change", "jerk"), 0.0)
    seen = set()
    for seed in range(150):
        steps = run(seed)
        seen |= {(a.mode, b.mode) for a, b in zip(steps, steps[1:], strict=False)}
        positions = np.array([s.command.tcp.position for s in steps])
        velocity = np.diff(positions, axis=0) / DT
        speed = np.linalg.norm(velocity, axis=1)
        turn = [
            q.distance_and_angle(a.command.tcp, b.command.tcp)[1] / DT
            for a, b in zip(steps, steps[1:], strict=False)
        ]
        hand = np.abs(np.diff([s.command.hand for s in steps], axis=0)) / DT
        change = np.linalg.norm(np.diff(velocity, axis=0), axis=1)
        jerk = np.linalg.norm(np.diff(velocity, 2, axis=0), axis=1) / DT**2
        largest["step"] = max(largest["step"], speed.max())
        largest["turn"] = max(largest["turn"], max(turn))
        largest["hand"] = max(largest["hand"], hand.max())
        largest["change"] = max(largest["change"], change.max())
        largest["jerk"] = max(largest["jerk"], jerk.max())
        first = next(i for i, s in enumerate(steps) if s.mode is Mode.HUMAN)
        assert speed[first - 1] < 1e-9  # the takeover itself moves nothing
        back = next(i for i, s in enumerate(steps) if s.mode is Mode.HANDING_BACK)
        assert steps[back].source is Source.HOLD and speed[back - 1] == 0.0
    assert {(Mode.POLICY, Mode.HUMAN), (Mode.HUMAN, Mode.HANDING_BACK)} <= seen
    assert (Mode.HANDING_BACK, Mode.POLICY) in seen
    assert largest["step"] <= SPEED * 1.001
    assert largest["turn"] <= TURN * 1.001
    # The blend closes up to the whole range within 0.4 s on a curve with slope 1.5 in its middle.
    assert largest["hand"] <= 1.5 / 0.4 + HAND
    assert largest["change"] <= SPEED * 1.1
    assert largest["jerk"] <= 2 * SPEED * 1.1 / DT**2


def test_a_robot_that_was_stopped_on_its_way_is_held_where_it_stands():
    """Recovered after a collision it must not go on to the command that made it collide."""
    rig = running()
    for _ in range(8):
        rig.step()
    commanded = rig.arbiter.last_command
    stopped_at = commanded.tcp.position - [0.0, 0.03, 0.0]
    moving = np.array([0.1, 0, 0, 0, 0, 0])

    def measured(velocity, hand=0.3):
        return RobotState(
            rig.time, np.zeros(6), velocity, Pose(stopped_at, commanded.tcp.quaternion),
            np.full(6, hand),
        )  # fmt: skip

    rig.arbiter.fault("protective stop: arm_driver: protective stop")
    rig.robot = measured(moving)
    assert rig.step().command is commanded, "still braking"
    rig.robot = measured(np.zeros(6))
    step = rig.step()
    assert np.array_equal(step.command.tcp.position, stopped_at)
    assert np.array_equal(step.command.hand, commanded.hand), "what it holds it goes on holding"
    rig.robot = measured(np.zeros(6))
    assert rig.step().command is step.command, "and stays there"
    # a software stop, the arm within its servo's error: nothing moves
    rig = running()
    rig.step()
    held = rig.step().command
    rig.arbiter.fault("emergency stop")
    near = Pose(held.tcp.position + np.array([0.0, 0.004, 0.0]), held.tcp.quaternion)
    rig.robot = RobotState(rig.time, np.zeros(6), np.zeros(6), near, held.hand)
    assert rig.step().command is held


def test_a_pose_of_another_world_is_not_gone_to():
    assert wrong_frame("relative", "tracker_world") == wrong_frame("relative", "base") == ""
    assert wrong_frame("absolute", "base") == ""
    for frame in ("tracker_world", "", "tcp"):
        assert "nobody is followed" in wrong_frame("absolute", frame)
