"""`dexpie jog x 0.02`: a small motion through the arbiter, for the first motion of a robot.

Asks for a velocity 25 times a second until the arbiter has gone the way; whatever ends this program
ends the motion. Then it says what was measured, so that a wrong frame or a swapped finger shows at once.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from dexpie_ros.control.jogging import AXES, NAMES, JogConfig
from dexpie_ros.control.types import HAND_JOINTS, Mode

PERIOD_S = 0.04
PATIENCE_S = 10.0
RESTED_S = 0.6
"""s of holding, although still asked, after which the arbiter has done it."""
SETTLE_S = 0.8
"""s after which a servo has come to rest."""
FARTHEST = {"m": 0.1, "rad": 0.5, "openings": 1.0}
CONNECT_S = 10.0


def add_parser(groups: Any) -> None:
    """Add the command ``jog``."""
    parser = groups.add_parser(
        "jog", help="a small motion of the running robot, through its limits"
    )
    parser.add_argument("axis", choices=NAMES, help="along or about an axis of base, or a finger")
    parser.add_argument("amount", type=float, help="m (to 0.1), rad (to 0.5) or openings (to 1)")
    parser.add_argument("--speed", type=float, default=0.0, help="per second; default: a slow one")
    again = "the robot went a part of the way; the same command asks for the whole amount again"
    parser.set_defaults(run=run, interrupted=again)


def unit_of(axis: str) -> str:
    return "openings" if axis in HAND_JOINTS else ("m" if axis in AXES[:3] else "rad")


def plan(axis: str, amount: float, speed: float = 0.0) -> float:
    """Velocity of a jog; ConfigError where it is too far or too fast."""
    from dexpie_ros.config import ConfigError

    unit, limits = unit_of(axis), JogConfig()
    top = {
        "m": limits.linear_speed, "rad": limits.angular_speed, "openings": limits.hand_speed,
    }[unit]  # fmt: skip
    if not 0 < abs(amount) <= FARTHEST[unit]:
        raise ConfigError(f"jog {axis} {amount:g}: expected up to {FARTHEST[unit]:g} {unit}")
    if not 0 <= speed <= top:
        raise ConfigError(f"--speed {speed:g}: expected up to {top:g} {unit}/s")
    return float(np.copysign(speed or 0.4 * top, amount))


def run(options: argparse.Namespace) -> int:
    """1 where the robot did not do what was asked."""
    velocity = plan(options.axis, options.amount, options.speed)
    from dexpie_ros.nodes.session_client import GraphError

    with _Jogger() as jogger:
        before = jogger.measured()
        try:
            jogger.move(options.axis, options.amount, velocity)
        except GraphError as error:
            print(f"jog: {error}")
            return 1
        went, beside = compare(options.axis, before, jogger.measured())
    unit = unit_of(options.axis)
    print(
        f"{options.axis}: asked for {options.amount:+.3f} {unit}, measured {went:+.3f}, "
        f"{beside:.3f} in the other directions"
    )
    wrong = abs(went - options.amount) > 0.2 * abs(options.amount) + 0.002
    if wrong or beside > 0.2 * abs(options.amount) + 0.003:
        print("jog: that is not what was asked for; /diagnostics and docs/hardware.md say more")
        return 1
    return 0


def compare(axis: str, before: Any, after: Any) -> tuple[float, float]:
    """How far it went along ``axis``, and the most that anything of its kind went elsewhere.

    ``before`` and ``after`` are (pose (4, 4), openings (6,)).
    """
    from dexpie_ros import geometry

    if axis in HAND_JOINTS:
        moved, index = np.asarray(after[1]) - np.asarray(before[1]), HAND_JOINTS.index(axis)
    else:
        turned = geometry.rotation_log(after[0][:3, :3] @ before[0][:3, :3].T)
        moved = turned if axis in AXES[3:] else after[0][:3, 3] - before[0][:3, 3]
        index = AXES.index(axis) % 3
    return float(moved[index]), float(np.abs(np.delete(moved, index)).max())


class _Jogger:
    """A node that asks the arbiter; GraphError where the graph is not there."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from dexpie_ros.nodes.base import ContractNode
        from dexpie_ros.runtime import prepare_process

        prepare_process()
        # else Ctrl-C takes the context away before the arbiter is told to stop
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = node = ContractNode("jog")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._heard: dict[str, Any] = {}
        self._mode: Mode | None = None
        self._reason = ""
        for topic in ("/arm/tcp_pose", "/hand/joint_states"):
            node.subscribe(topic, lambda m, topic=topic: self._heard.__setitem__(topic, m))
        node.subscribe("/intervention/state", self._on_state)
        self._output = node.publisher("/intervention/jog")

    def __enter__(self) -> _Jogger:
        from dexpie_ros.nodes.session_client import GraphError

        end = time.monotonic() + CONNECT_S
        while time.monotonic() < end:
            self._spin(0.1)
            ready = len(self._heard) == 2 and self._mode is not None
            if ready and self._output.get_subscription_count():
                return self
        self.__exit__(None)
        raise GraphError(
            f"no measurements of arm and hand, or no intervention_arbiter, within {CONNECT_S:g} s; "
            "is the stack running? (dexpie launch collect sim:=false ...)"
        )

    def __exit__(self, *_: object) -> None:
        import rclpy

        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def measured(self) -> tuple[Any, Any]:
        """The newest pose (4, 4) and openings (6,)."""
        from dexpie_ros.messages import read_pose

        pose = read_pose(self._heard["/arm/tcp_pose"].pose).matrix()
        return pose, np.array(self._heard["/hand/joint_states"].position)

    def move(self, axis: str, amount: float, velocity: float) -> None:
        """Ask until the arbiter has done it; GraphError where it refuses or stops.

        The arbiter minds the way, so that it does not depend on how promptly this program asks.
        """
        from dexpie_ros.nodes.session_client import GraphError

        if not self._in(Mode.HOLD):
            raise GraphError(f"the robot does not hold: {self._reason}")
        jog = self._node.now_ns()
        end, rested = time.monotonic() + 3 * amount / velocity + PATIENCE_S, 0.0
        moved = False
        try:
            while rested < RESTED_S:
                if not (self._in(Mode.HOLD) or self._in(Mode.POLICY)):
                    raise GraphError(f"stopped on the way: {self._reason}")
                if time.monotonic() > end:
                    raise GraphError("it does not get there: a limit of the arbiter or of the arm?")
                moved = moved or self._in(Mode.POLICY)
                rested = rested + PERIOD_S if self._in(Mode.HOLD) else 0.0
                self._ask(axis, velocity, amount, jog)
                self._spin(PERIOD_S)
        finally:
            self._ask(axis, 0.0, amount, jog)
        if not moved:
            raise GraphError(f"the arbiter does not move: {self._reason}; its log says why")
        self._spin(SETTLE_S)

    def _in(self, mode: Mode) -> bool:
        return self._mode is mode

    def _ask(self, axis: str, velocity: float, amount: float, jog: int) -> None:
        make = self._node.messages
        way, speed = np.array([amount]), np.array([velocity])
        self._output.publish(make.joint_state(jog, (axis,), way, speed, frame="base"))

    def _spin(self, seconds: float) -> None:
        from dexpie_ros.runtime import spin_for

        spin_for(self._executor, seconds)

    def _on_state(self, message: Any) -> None:
        self._mode, self._reason = Mode(message.mode), message.reason
