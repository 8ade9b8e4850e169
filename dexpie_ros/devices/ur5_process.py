"""The process that owns a UR arm: both ur_rtde interfaces, one servo loop at the controller's rate.

Why a process of its own: ur_rtde's constructors hold the GIL, and when the controller closes the
connection its background thread reconnects again and again and then crashes the process. So this
loop looks at the connection, at the advance of the controller's clock and at every return value in
every cycle, and leaves with ``os._exit`` as soon as anything is lost; its parent
(:mod:`dexpie_ros.devices.ur5`) starts it again. Started as
``python -m dexpie_ros.devices.ur5_process <socket fd> <config as JSON> <stop>``, where ``stop`` says
why the robot stopped under an earlier process and nobody has asked for recovery yet ("": it did not).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
import types
from typing import Any

import numpy as np

from dexpie_ros import config
from dexpie_ros.devices import ur5_wire as wire
from dexpie_ros.devices import ur_dashboard, ur_kinematics
from dexpie_ros.devices.arm_limits import MotionLimiter
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.devices.ur5_control import keep_time, library_priority, open_control
from dexpie_ros.devices.ur5_state import (
    PROTECTIVE_STOP,
    VARIABLES,
    ImpossibleState,
    RobotData,
    StateReader,
    pose_from_vector,
    vector_from_pose,
)
from dexpie_ros.devices.ur5_wire import ArmSample, Exit, Phase
from dexpie_ros.geometry import Array, Pose

RTDE_PORT = 30004
RECOVERY_PATIENCE = 1.0
"""s that a recovery waits for the robot to become ready."""
MODEL_TOLERANCE = 0.03
"""m between measured TCP and the model's forward kinematics before it must be the wrong model."""
AWAKE = 0.75
"""Share of a cycle after which the next data may come."""
HALTED = (
    "the controller halted its program: no inverse kinematics, watchdog expired, or stopped on the "
    "pendant; look at the robot, then ask for recovery"
)


class Leave(Exception):
    """Ends the process with an exit code and a reason."""

    def __init__(self, code: Exit, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class ArmProcess:
    """The servo loop; see the module."""

    def __init__(self, settings: Ur5Config, link: socket.socket, stop: str = "") -> None:
        self._config, self._link, self._stop = settings, link, stop
        self._where = f"arm at {settings.host}"
        self._period = 1.0 / settings.frequency
        self._receive: Any = None
        self._control: Any = None
        self._phase, self._message = Phase.CONNECTING, ""
        self._cycles = self._missed = self._sequence = self._refused = 0
        self._cycle_at = self._stopped_at = time.monotonic()
        self._recovering = self._quit = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides about Ctrl-C
        signal.signal(signal.SIGTERM, self._on_terminate)

    def run(self) -> None:
        """Connect, servo, wait in a stop; leaves by raising :class:`Leave`."""
        self._report(Phase.CONNECTING, f"connecting to {self._config.host}")
        self._connect()
        problem = self._data.problem() or self._stop
        if problem:
            self._enter_stop(problem)
        else:
            self._start_control()
        while True:
            if self._phase is Phase.SERVOING:
                self._servo_cycle()
            else:
                self._stopped_cycle()

    def _connect(self) -> None:
        host, settings = self._config.host, self._config
        problem = ur_dashboard.reachable(host, RTDE_PORT, settings.connect_timeout)
        if problem:
            raise Leave(Exit.UNREACHABLE, f"arm not reachable at {problem}; is the robot on?")
        from rtde_receive import RTDEReceiveInterface

        try:
            keep_time(settings.realtime_priority)
        except PermissionError as error:
            raise Leave(Exit.REFUSED, str(error)) from None
        try:
            self._receive = RTDEReceiveInterface(
                host, settings.frequency, VARIABLES, False, settings.upper_registers,
                library_priority(settings),
            )  # fmt: skip
        except RuntimeError as error:
            raise Leave(Exit.UNREACHABLE, f"{self._where}: {error}") from None
        self._reader = StateReader(self._receive)
        while self._reader.waiting:
            if self._reader.silence > 2.0 or not self._receive.isConnected():
                raise Leave(Exit.UNREACHABLE, f"{self._where}: connected, but no data comes")
            time.sleep(self._period)
        self._read_state()

    def _start_control(self) -> None:
        settings = self._config
        try:
            self._control = open_control(settings)
            tcp = pose_from_vector(self._control.getTCPOffset())
        except RuntimeError as error:
            raise Leave(Exit.UNREACHABLE, f"{self._where}: {error}") from None
        self._await_model(tcp)
        self._limiter = MotionLimiter(settings.limits, settings.kinematics, tcp, self._period)
        # The first command is where the arm is.
        self._limiter.reset(self._data.tcp, self._data.joints)
        self._cycle_at = time.monotonic()
        self._report(Phase.SERVOING, "holding; ready for commands")

    def _await_model(self, tcp: Array) -> None:
        """Until the data show the TCP setting (a few cycles); refuse if they never fit the model.

        The reach check would be worthless with the wrong kinematics.
        """
        deadline = time.monotonic() + 1.0
        while True:
            self._control.kickWatchdog()
            self._read_state()  # first: the control interface may have taken seconds to start
            self._check_connection()
            expected = ur_kinematics.forward(self._config.kinematics, self._data.joints) @ tcp
            error = float(np.linalg.norm(expected[:3, 3] - self._data.tcp[:3, 3]))
            if error < MODEL_TOLERANCE:
                return
            if time.monotonic() > deadline:
                raise Leave(
                    Exit.REFUSED,
                    f"{self._where} is no {self._config.model}: its TCP is {error:.3f} m from "
                    "where this model has it; check arm.model and arm.tcp",
                )
            time.sleep(self._period)

    def _servo_cycle(self) -> None:
        self._wait_for_data()
        now = time.monotonic()
        self._missed += now - self._cycle_at > 2 * self._period
        self._cycle_at, self._cycles = now, self._cycles + 1
        self._check_connection()
        self._read_state()
        target = self._take_packets()
        if self._quit:
            self._end()
        problem = self._data.problem()
        if not problem:
            self._follow(target)
            pose, settings = vector_from_pose(self._limiter.pose), self._config
            if not self._control.servoL(
                pose, 0.5, 0.5, self._period, settings.lookahead_time, settings.gain
            ):
                self._check_connection()
                self._read_state()
                problem = self._data.problem() or HALTED
        if problem:
            self._enter_stop(problem)

    def _wait_for_data(self) -> None:
        """Until the controller's next cycle, so that this loop runs on the robot's clock.

        Two free-running loops of the same rate would lose or double a state whenever their phases
        meet. Without data the loop goes on by itself, to keep the watchdog and the checks alive.
        """
        now = time.monotonic()
        early = self._cycle_at + AWAKE * self._period - now
        if early > 0 and self._reader.waiting:
            time.sleep(early)
        deadline = self._cycle_at + 1.5 * self._period
        while self._reader.waiting and time.monotonic() < deadline:
            time.sleep(self._period / 32)

    def _follow(self, target: Array | None) -> None:
        """Move the limiter one cycle on; anything unusual makes it hold and is reported."""
        if self._reader.silence > self._config.hold_after:
            self._brake()
            self._report(Phase.SERVOING, "holding: the controller sends no data")
            return
        measured = self._data.tcp
        behind = self._limiter.lag(measured)
        if behind and not (target is not None and self._limiter.near(target, measured)):
            self._brake()
            self._refused += target is not None
            self._report(Phase.SERVOING, f"holding: {behind}")
            return
        message = self._limiter.accept(target, measured) if target is not None else ""
        _, problem = self._limiter.advance()
        message = message or problem
        self._refused += bool(message)
        if message:
            self._report(Phase.SERVOING, f"holding: {message}")
        elif target is not None:
            self._report(Phase.SERVOING, "following commands")

    def _brake(self) -> None:
        self._limiter.hold()
        self._limiter.advance()

    def _stopped_cycle(self) -> None:
        self._wait_for_data()
        self._cycle_at = time.monotonic()
        self._read_state()  # first: the dashboard may have taken its time
        self._check_connection()
        self._take_packets()
        if self._quit:
            self._end()
        if not self._recovering:
            return
        if self._data.safety_mode == PROTECTIVE_STOP:
            self._unlock()
        elif problem := self._data.problem():
            if time.monotonic() > self._recover_until:
                self._recovering = False
                self._report(Phase.STOPPED, f"cannot recover: {problem}")
        else:
            raise Leave(Exit.RECOVERED, "the stop has been cleared")

    def _unlock(self) -> None:
        if time.monotonic() < self._stopped_at + self._config.unlock_delay:
            self._report(Phase.STOPPED, "recovering: waiting until the stop may be unlocked")
            return
        self._stopped_at += 1.0  # at most one question per second
        try:
            ur_dashboard.ask(self._config.host, "close safety popup")
            answer = ur_dashboard.ask(self._config.host, "unlock protective stop")
        except ur_dashboard.DashboardError as error:
            answer = str(error)
        self._recovering = "releasing" in answer.lower()
        how = "recovering" if self._recovering else "cannot recover"
        self._report(Phase.STOPPED, f"{how}: {answer}")

    def _enter_stop(self, problem: str) -> None:
        self._stopped_at, self._recovering = time.monotonic(), False
        self._report(Phase.STOPPED, problem)

    def _end(self) -> None:
        """Graceful end: decelerate, end the script, leave."""
        signal.alarm(3)  # servoStop waits for the controller; without one this ends the process
        if self._control is not None and self._phase is Phase.SERVOING:
            self._control.servoStop()
            self._control.stopScript()
        raise Leave(Exit.DONE, "stopped")

    def _check_connection(self) -> None:
        """Leave when the connection is gone or silent."""
        control = self._control is None or self._control.isConnected()
        if not (control and self._receive.isConnected()):
            raise Leave(Exit.LOST, f"connection to the {self._where} lost")
        if self._reader.silence > self._config.lost_after:
            raise Leave(Exit.LOST, f"{self._where} sent no data for {self._reader.silence:.2f} s")

    def _read_state(self) -> None:
        """Take the newest state if it is a new one, and pass it on."""
        try:
            data = self._reader.read()
        except ImpossibleState as error:
            raise Leave(Exit.LOST, f"{self._where}: {error}") from None
        if data is None:
            return
        self._data: RobotData = data
        target = self._limiter.pose if self._phase is Phase.SERVOING else data.tcp
        sample = ArmSample(
            data.time_ns, data.robot_time, data.joints, data.joint_velocities,
            Pose.from_matrix(data.tcp), data.tcp_velocity, data.wrench, Pose.from_matrix(target),
            self._phase, data.robot_mode, data.safety_mode, self._cycles, self._missed,
            self._sequence, self._refused,
        )  # fmt: skip
        self._send(wire.pack_state(sample))

    def _take_packets(self) -> Array | None:
        """Read what the parent sent; the newest target, if any."""
        target = None
        try:
            for packet in wire.drain(self._link):
                if packet == wire.RECOVER:
                    self._recovering = self._phase is Phase.STOPPED
                    self._recover_until = time.monotonic() + RECOVERY_PATIENCE
                elif packet == wire.QUIT:
                    self._quit = True
                else:
                    self._sequence, target = wire.unpack_command(packet)
        except wire.WireError:
            self._refused += 1
        except EOFError:
            self._quit = True
        return target

    def _report(self, phase: Phase, message: str) -> None:
        if (phase, message) != (self._phase, self._message):
            self._phase, self._message = phase, message
            self._send(wire.pack_event(phase, message))

    def _send(self, packet: bytes) -> None:
        try:
            wire.send(self._link, packet)
        except EOFError:
            self._quit = True

    def _on_terminate(self, *_: object) -> None:
        self._quit = True


def main(argv: list[str]) -> None:
    """Entry point of the child; never returns."""
    sys.excepthook = _die
    link = socket.socket(fileno=int(argv[0]))
    link.setblocking(False)
    settings = config.from_dict(Ur5Config, json.loads(argv[1]), "arm process")
    try:
        ArmProcess(settings, link, argv[2]).run()
    except Leave as leave:
        with contextlib.suppress(EOFError):
            wire.send(link, wire.pack_event(Phase.CONNECTING, leave.reason))
        os._exit(leave.code)


def _die(
    kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
) -> None:
    """End without destructors: ur_rtde's would reconnect or crash where the connection is gone."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
