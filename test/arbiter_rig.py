"""An arbiter with a clock and a robot that executes every command at once."""

import numpy as np

from dexpie_ros.control import quaternions as q
from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.types import STEP_NS, Chunk, Command, RobotState
from dexpie_ros.geometry import Pose

ORIGIN = 5_000_000_000


def pose(v=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(np.array(v, float), np.array(q.from_rotvec(tuple(turn))))


def robot(v=(0.3, 0.0, 0.3), hand=0.8, turn=(0.1, 0.2, 0.3)) -> RobotState:
    return RobotState(0, np.zeros(6), np.zeros(6), pose(v, turn), np.full(6, hand))


def follower(v=(1.0, 2.0, 3.0), turn=(0.5, 0.0, 0.0), hand=0.2) -> Command:
    return Command(pose(v, turn), np.full(6, hand))


class Rig:
    """An arbiter with a clock; the robot executes every command at once."""

    def __init__(self, **settings):
        self.arbiter = Arbiter(ArbiterConfig(**settings))
        self.time = ORIGIN
        self.robot = robot()

    def step(self, operator=None, aligned=None):
        step = self.arbiter.step(self.time, self.robot, operator, aligned)
        assert self.arbiter.mode is step.mode and self.arbiter.last_command is step.command
        self.robot = RobotState(
            self.time, np.zeros(6), np.zeros(6), step.command.tcp, step.command.hand
        )
        self.time += STEP_NS
        return step

    def chunk(self, since=0, length=24, prefix=0, start=None, speed=2e-3):
        """From the observation of ``since`` steps before the coming one; moves in y."""
        start = self.arbiter.last_command.tcp if start is None else start
        positions = np.tile(start.position, (length, 1))
        positions[prefix:, 1] += speed * np.arange(1, length - prefix + 1)
        quaternions = np.tile(start.quaternion, (length, 1))
        stamp = self.time - since * STEP_NS
        return Chunk(stamp, positions, quaternions, np.full((length, 6), 0.8), prefix)


def running(**settings) -> Rig:
    rig = Rig(**settings)
    rig.arbiter.start("deployment")
    rig.step()
    assert rig.arbiter.add_chunk(rig.chunk(since=1))
    return rig


def same(a: Command, b: Command) -> bool:
    return np.array_equal(a.tcp.position, b.tcp.position) and np.array_equal(a.hand, b.hand)
