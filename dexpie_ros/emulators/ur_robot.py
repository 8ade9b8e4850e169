"""A UR controller and its arm as ur_rtde's control script sees them: registers in, motion out.

The uploaded script is not interpreted; its main loop is re-stated here (command register 0, state
register 0: 1 ready, 2 done). The arm moves with the real kinematics; servo targets are followed
with a first-order lag of the lookahead time.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from dexpie_ros import geometry
from dexpie_ros.devices import ur_kinematics
from dexpie_ros.devices.ur5_state import pose_from_vector, vector_from_pose
from dexpie_ros.emulators.channel import EventLog
from dexpie_ros.emulators.rtde import INPUTS
from dexpie_ros.geometry import Array

HOME = (-1.54, -1.83, -2.28, -0.59, 1.60, 0.023)
STOPPED, PLAYING, PAUSED = 1, 2, 4
SAFETY_BITS = {1: 1 << 0, 2: 1 << 1, 3: 1 << 2, 5: 1 << 4, 7: 1 << 6 | 1 << 7}
STREAMED = frozenset((6, 9, 10, 11, 24, 25, 26, 27, 38, 58, 66, 67, 68, 69, 70, 71))
MOVE_J, MOVE_L, SPEED_L, SERVO_J, SPEED_STOP, SERVO_STOP, SET_TCP = 1, 3, 10, 11, 15, 16, 29
SERVO_L, IK_NEAR, PROTECTIVE_STOP, WATCHDOG, TCP_OFFSET = 24, 30, 31, 35, 40
FK_ACTUAL, FK_OF, IK_ACTUAL, END = 43, 44, 46, 255
JOINT_SPEED = 3.14
UNLOCK_REFUSAL = "Cannot unlock protective stop until 5s after occurrence"


class Robot:
    """State and behaviour; :meth:`step` once per controller cycle."""

    def __init__(
        self, model: ur_kinematics.UrModel, frequency: float, log: EventLog, unlock_delay: float
    ) -> None:
        self.model, self.frequency, self.log = model, frequency, log
        self._unlock_delay = unlock_delay
        self.home: Sequence[float] = HOME
        self.place(HOME)
        self.tcp = np.eye(4)
        self.runtime, self.safety, self.mode = STOPPED, 1, 7
        self.uploads = 0
        self.fail_ik = False
        self.script_starts = True
        self.speed_share = 1.0
        self._inputs: dict[str, Any] = dict.fromkeys(INPUTS, 0)
        self._inputs["external_force_torque"] = (0.0,) * 6
        self._outputs: dict[str, Any] = {}
        self._offset, self._executing = 0, False
        self._servo: tuple[Array, float] | None = None
        self._speed: Array | None = None
        self._move: tuple[Array, float] | None = None
        self._watchdog, self._kicked = 0.0, 0.0
        self._stopped_at = -math.inf
        self._began = time.monotonic()
        self.trace: deque[tuple[int, float, int, tuple[float, ...], int]] = deque(maxlen=40_000)
        """(time_ns, fastest joint rad/s, servo targets so far, TCP xyz, last change of the target in
        ns) per cycle."""
        self.servo_count = 0
        self.target_changed_ns = 0
        self._last_servo: tuple[float, ...] = ()

    def place(self, joints: Sequence[float]) -> None:
        """Put the arm at rest at joints (6,) in rad."""
        self.joints = np.array(joints, np.float64)
        self._target = self.joints.copy()
        self.velocity = np.zeros(6)

    def reset(self) -> None:
        """Powered on, no stop, no program, at rest at ``home``."""
        self.halt("reset")
        self.safety, self.mode = 1, 7
        self.fail_ik, self.script_starts, self.speed_share = False, True, 1.0
        self.place(self.home)
        self.servo_count, self.target_changed_ns, self._last_servo = 0, 0, ()
        self.trace.clear()

    def receive(self, values: dict[str, Any]) -> None:
        """Inputs of one data packet."""
        self._inputs.update(values)
        if f"input_int_register_{self._offset}" in values:
            self._kicked = time.monotonic()

    def upload(self, program: str) -> None:
        """A script arrived on a script port."""
        self.uploads += 1
        self.log.add("upload", bytes=len(program), accepted=self.safety == 1 and self.mode == 7)
        if not self.script_starts or self.safety not in (1, 2) or self.mode != 7:
            return
        found = re.search(r"# float register offset\n(\d+)", program)
        self._offset = int(found.group(1)) if found else 0
        self._rest()
        self.runtime, self._watchdog = PLAYING, 0.0
        self._set_int(0, 1)

    def halt(self, reason: str) -> int:
        """The program ends and the arm stops; returns the stamp, as all faults do."""
        now = time.monotonic_ns()
        if self.runtime != STOPPED:
            now = self.log.add("halt", reason=reason)
        self.runtime, self._watchdog = STOPPED, 0.0
        self._rest()
        self._set_int(0, 0)
        return now

    def protective_stop(self) -> int:
        now = self.log.add("protective_stop")
        self._stopped_at = time.monotonic()
        self.safety, self.runtime = 3, PAUSED if self.runtime == PLAYING else self.runtime
        self._rest()
        return now

    def unlock(self) -> str:
        """What the dashboard answers to `unlock protective stop`."""
        if self.safety != 3:
            return "Protective stop releasing"
        if time.monotonic() - self._stopped_at < self._unlock_delay:
            return UNLOCK_REFUSAL
        self.log.add("unlock")
        self.safety = 1
        return "Protective stop releasing"

    def emergency_stop(self, pressed: bool) -> None:
        self.log.add("emergency_stop", pressed=pressed)
        self.halt("emergency stop")
        # Releasing the button leaves the brakes closed: idle, not running.
        self.safety, self.mode = (7, 3) if pressed else (1, 5)

    def power(self, on: bool) -> None:
        self.log.add("power", on=on)
        if not on:
            self.halt("power off")
        self.mode = 7 if on else 3

    def step(self) -> None:
        """One controller cycle."""
        period = 1.0 / self.frequency
        if self.runtime == PLAYING:
            if self._watchdog and time.monotonic() - self._kicked > 1.0 / self._watchdog:
                self.halt("watchdog")
            elif self._move is not None:
                self._step_move(period)
            else:
                self._dispatch()
        if self._servo is not None:
            goal, lookahead = self._servo
            step = (goal - self._target) * min(1.0, period / max(lookahead, 0.03))
            fastest = float(np.abs(step).max())
            self._target = self._target + step * min(
                1.0, JOINT_SPEED * self.speed_share * period / max(fastest, 1e-12)
            )
        elif self._speed is not None:
            jacobian = ur_kinematics.jacobian(self.model, self._target)
            self._target = self._target + np.linalg.lstsq(jacobian, self._speed)[0] * period
        before = self.joints
        self.joints = before + (self._target - before) * min(1.0, period * 60)
        self.velocity = (self.joints - before) / period
        position = self.pose()[:3, 3]
        self.trace.append(
            (
                time.monotonic_ns(),
                float(np.abs(self.velocity).max()),
                self.servo_count,
                tuple(float(x) for x in position),
                self.target_changed_ns,
            )
        )

    def pose(self) -> Array:
        """TCP pose (4, 4) in the base frame."""
        return ur_kinematics.forward(self.model, self.joints) @ self.tcp

    def sample(self) -> dict[str, Any]:
        """The RTDE outputs of this cycle."""
        pose = self.pose()
        twist = ur_kinematics.jacobian(self.model, self.joints) @ self.velocity
        lever = pose[:3, :3] @ geometry.invert(self.tcp)[:3, 3]
        twist[:3] -= np.cross(twist[3:], lever)
        vector = vector_from_pose(pose)
        bits = SAFETY_BITS.get(self.safety, 1) | (0 if self.safety == 1 else 1 << 10)
        return {
            "timestamp": time.monotonic() - self._began + 1.0,
            "actual_q": self.joints, "target_q": self._target, "actual_qd": self.velocity,
            "target_qd": self.velocity, "actual_TCP_pose": vector, "target_TCP_pose": vector,
            "actual_TCP_speed": twist, "robot_mode": self.mode, "safety_mode": self.safety,
            "runtime_state": self.runtime, "safety_status_bits": bits,
            "robot_status_bits": (self.mode > 3) | (2 if self.runtime == PLAYING else 0),
            "speed_scaling": 1.0, "target_speed_fraction": 1.0, "joint_mode": (253,) * 6,
            **self._outputs,
        }  # fmt: skip

    def _rest(self) -> None:
        self._servo = self._speed = self._move = None
        self._executing = False
        self._target = self.joints.copy()

    def _int(self, index: int) -> int:
        return int(self._inputs[f"input_int_register_{index + self._offset}"])

    def _double(self, index: int) -> float:
        return float(self._inputs[f"input_double_register_{index + self._offset}"])

    def _vector(self, first: int = 0) -> Array:
        return np.array([self._double(first + i) for i in range(6)])

    def _set_int(self, index: int, value: int) -> None:
        self._outputs[f"output_int_register_{index + self._offset}"] = value

    def _answer(self, vector: Any) -> None:
        for i, value in enumerate(vector):
            self._outputs[f"output_double_register_{i + self._offset}"] = float(value)

    def _inverse(self, tcp_vector: Array, near: Array) -> Array | None:
        if self.fail_ik or not np.all(np.isfinite(tcp_vector)):
            return None
        flange = pose_from_vector(tcp_vector) @ geometry.invert(self.tcp)
        return ur_kinematics.nearest(self.model, flange, near)

    def _dispatch(self) -> None:
        command = self._int(0)
        if command in STREAMED:
            self._stream(command)
            if self.runtime == PLAYING:
                self._set_int(0, 1)
        elif command == 0:
            self._executing = False
            self._set_int(0, 1)
        elif not self._executing:
            self._executing = True
            if self._execute(command) and self.runtime == PLAYING:
                self._set_int(0, 2)

    def _stream(self, command: int) -> None:
        if command == SPEED_L:
            self._speed = self._vector()
        if command not in (SERVO_J, SERVO_L):
            return
        values = self._vector()
        goal = values if command == SERVO_J else self._inverse(values, self._target)
        if goal is None:
            self.fail_ik = False
            self.halt("no inverse kinematics")
            return
        self._servo = (goal, self._double(9))
        self.servo_count += 1
        seen = tuple(float(x) for x in values)
        if (
            not self._last_servo
            or max(abs(a - b) for a, b in zip(seen, self._last_servo, strict=True)) > 1e-6
        ):
            self.target_changed_ns = time.monotonic_ns()
        self._last_servo = seen

    def _execute(self, command: int) -> bool:
        """Run a one-shot command; whether it is done at once."""
        if command in (MOVE_J, MOVE_L):
            values = self._vector()
            goal = values if command == MOVE_J else self._inverse(values, self._target)
            if goal is None:
                self.halt("no inverse kinematics")
                return False
            self._move = (goal, max(self._double(6), 0.05))
            return False
        if command == SPEED_STOP:
            self._speed = None
        elif command == SERVO_STOP:
            self._servo, self._target = None, self.joints.copy()
            self.log.add("servo_stop")
        elif command == SET_TCP:
            self.tcp = pose_from_vector(self._vector())
        elif command == TCP_OFFSET:
            self._answer(vector_from_pose(self.tcp))
        elif command == PROTECTIVE_STOP:
            self.protective_stop()
            return False
        elif command == WATCHDOG:
            self._watchdog, self._kicked = self._double(0), time.monotonic()
        elif command in (IK_NEAR, IK_ACTUAL):
            near = self._vector(6) if command == IK_NEAR else self._target
            goal = self._inverse(self._vector(), near)
            if goal is not None:
                self._answer(goal)
        elif command in (FK_ACTUAL, FK_OF):
            joints = self.joints if command == FK_ACTUAL else self._vector()
            pose = ur_kinematics.forward(self.model, joints) @ self.tcp
            self._answer(vector_from_pose(pose))
        elif command == END:
            self.halt("end of script")
            return False
        return True

    def _step_move(self, period: float) -> None:
        assert self._move is not None
        goal, speed = self._move
        gap = goal - self._target
        farthest, step = float(np.abs(gap).max()), speed * period
        if farthest <= step:
            self._target, self._move = goal.copy(), None
            self._set_int(0, 2)
        else:
            self._target = self._target + gap * (step / farthest)
