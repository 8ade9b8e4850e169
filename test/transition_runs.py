"""Random episodes with every transition of the arbiter, and how smooth their commands are."""

from __future__ import annotations

import numpy as np

from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.types import STEP_NS, Chunk, Command, ControlStep, Mode, RobotState
from dexpie_ros.geometry import Pose

SPEED, TURN, HAND = 0.3, 1.0, 1.5
"""m/s, rad/s and openings/s of whoever drives"""
DT = STEP_NS * 1e-9
TICKS = 240


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


class Robot:
    """Goes a constant share of what is left at each step: 1 follows perfectly."""

    def __init__(self, start: Command, share: float) -> None:
        self.tcp, self.hand, self.share, self.speed = start.tcp, start.hand, share, 0.0

    def go(self, command: Command) -> None:
        before = self.tcp
        if self.share == 1.0:
            self.tcp, self.hand = command.tcp, command.hand
        else:
            self.tcp = q.blend(before, command.tcp, self.share)
            self.hand = self.hand + self.share * (command.hand - self.hand)
        distance, angle = q.distance_and_angle(before, self.tcp)
        self.speed = distance + angle

    def state(self, now: int) -> RobotState:
        moving = np.full(6, 1.0 if self.speed > 1e-5 else 0.0)
        return RobotState(now, np.zeros(6), moving, self.tcp, self.hand)


def plan(policy: Wave, tick: int, now: int, step: ControlStep) -> Chunk:
    """A policy that goes on from its prefix, along its own wave."""
    prefix = step.upcoming
    anchor = prefix[-1] if prefix else step.command
    commands = list(prefix)
    first = policy((tick + len(prefix) - 1) * DT)
    offset = q.compose(anchor.tcp, q.inverse(first.tcp))
    for k in range(len(prefix), 24):
        ahead = policy((tick + k) * DT)
        opening = anchor.hand + ahead.hand - first.hand
        commands.append(Command(q.compose(offset, ahead.tcp), np.clip(opening, 0, 1)))
    return Chunk(
        now,
        np.array([c.tcp.position for c in commands]),
        np.array([c.tcp.quaternion for c in commands]),
        np.array([c.hand for c in commands]),
        len(prefix),
    )


def ask(arbiter: Arbiter, what: str) -> None:
    """One event; what is refused changes nothing."""
    if what == "fault":
        arbiter.fault("protective stop")
    elif what == "silence":
        arbiter.hold("/hand/joint_states is silent")
    else:
        arbiter.resume()
        arbiter.clear_fault()
        mode = {"hold": Mode.HOLD, "align": Mode.ALIGNING, "policy": Mode.POLICY}.get(what)
        if mode is not None:
            arbiter.request(mode)
        elif what == "toggle":
            arbiter.toggle(force=True)


EVENTS = ("toggle", "toggle", "toggle", "policy", "hold", "align", "fault", "silence", "go on")


def run(seed: int, share: float) -> list[ControlStep]:
    """One episode with random events 8 to 25 steps apart; its steps."""
    rng = np.random.default_rng(seed)
    arbiter = Arbiter(ArbiterConfig())
    start = random_pose(rng, 0.02)  # far from the walls of the workspace
    policy, operator = Wave(rng, start), Wave(rng, random_pose(rng, 1.0))
    robot = Robot(policy(0.0), share)
    arbiter.start("deployment")
    due, pending, steps = 20, None, []
    for tick in range(TICKS):
        now = 10**9 + tick * STEP_NS
        if tick == due:
            ask(arbiter, str(rng.choice(EVENTS)))
            due += int(rng.integers(8, 25))
        if pending is not None and pending[0] <= tick:
            arbiter.add_chunk(pending[1])
            pending = None
        aligned = tick % 12 > 6
        step = arbiter.step(now, robot.state(now), operator(tick * DT), aligned)
        robot.go(step.command)
        steps.append(step)
        if step.remaining <= 4 and pending is None:
            pending = (tick + 1 + int(rng.integers(4)), plan(policy, tick, now, step))
    return steps


QUANTITIES = ("linear", "angular", "fingers")


def motion(steps: list[ControlStep]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By quantity: speed, its change from step to step, and jerk; the size of each, by step."""
    commands = [step.command for step in steps]
    pairs = list(zip(commands, commands[1:], strict=False))
    turns = [q.compose(b.tcp, q.inverse(a.tcp)).quaternion for a, b in pairs]
    velocities = (
        np.diff([c.tcp.position for c in commands], axis=0) / DT,
        np.array([q.to_rotvec(turn) for turn in turns]) / DT,
        np.diff([c.hand for c in commands], axis=0) / DT,
    )
    found = {}
    for name, v in zip(QUANTITIES, velocities, strict=True):
        size = (lambda x: np.abs(x).max(axis=1)) if name == "fingers" else _norm
        found[name] = (size(v), size(np.diff(v, axis=0)), size(np.diff(v, 2, axis=0)) / DT**2)
    return found


def _norm(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x, axis=1)


def largest(runs: list[list[ControlStep]]) -> dict[tuple[Mode, Mode], dict[str, np.ndarray]]:
    """By transition and quantity: the largest step, change and jerk from the step before it to the
    third after it."""
    found: dict[tuple[Mode, Mode], dict[str, np.ndarray]] = {}
    for steps in runs:
        moved = motion(steps)
        for i in range(2, len(steps) - 4):
            key = (steps[i - 1].mode, steps[i].mode)
            if key[0] is key[1]:
                continue
            place = found.setdefault(key, {name: np.zeros(3) for name in QUANTITIES})
            for name, (speed, change, jerk) in moved.items():
                near = [
                    speed[i - 1 : i + 3].max(),
                    change[i - 2 : i + 2].max(),
                    jerk[i - 2 : i + 1].max(),
                ]
                place[name] = np.maximum(place[name], near)
    return found
