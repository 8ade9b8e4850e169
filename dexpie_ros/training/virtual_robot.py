"""A robot in virtual time: what inference delays do to execution, without a clock or a simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dexpie_ros.control.arbiter import Arbiter, ArbiterConfig
from dexpie_ros.control.types import STEP_NS, Chunk, Observation, RobotState, Source
from dexpie_ros.geometry import Pose
from dexpie_ros.policy.asynchronous import AsyncPolicy


class VirtualRobot:
    """Arbiter, policy and a robot that follows at once, in virtual time."""

    def __init__(self, policy: AsyncPolicy, delay: Callable[[], int]) -> None:
        self.policy, self.delay = policy, delay
        self.arbiter = Arbiter(ArbiterConfig(max_delay=policy.config.max_delay))
        self.arbiter.start("deployment")
        home = Pose(np.array([0.4, 0.0, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]))
        self.object = Pose(np.array([0.5, 0.1, 0.1]), home.quaternion)
        self.robot = RobotState(0, np.zeros(6), np.zeros(6), home, np.full(6, 0.5))
        self.stalls, self.tick = 0, 0
        self._arriving: list[tuple[int, Chunk]] = []

    def run(self, steps: int) -> None:
        """Go on for ``steps`` control steps."""
        for _ in range(steps):
            self.tick += 1
            now = self.tick * STEP_NS
            for _, chunk in [item for item in self._arriving if item[0] <= self.tick]:
                self.arbiter.add_chunk(self.policy.arrived(chunk, now))
            self._arriving = [item for item in self._arriving if item[0] > self.tick]
            robot = replace(self.robot, time_ns=now)
            step = self.arbiter.step(now, robot)
            observed = Observation(now, robot, {"object": self.object})
            found = self.policy.step(step, observed)
            if found is not None:
                self._arriving.append((self.tick + self.delay(), found))
            self.stalls = step.stalls
            if step.source == Source.POLICY:
                self.robot = replace(robot, tcp=step.command.tcp, hand=step.command.hand)
