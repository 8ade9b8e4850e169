"""A UR arm as the rest of the package sees it: newest state, command, recovery, status.

Supervises the process that owns the robot (:mod:`dexpie_ros.devices.ur5_process`): starts it, takes
its state packets, starts it again with growing pauses when it leaves or crashes. A lost connection
is retried by itself and the arm then holds; a stop of the robot waits for :meth:`Ur5.recover`, also
when its process is lost meanwhile or somebody else clears it.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from dexpie_ros import config
from dexpie_ros.devices import ur5_wire as wire
from dexpie_ros.devices.clock import ClockWatch
from dexpie_ros.devices.device import Backoff, DeviceError, Level, Newest, Status
from dexpie_ros.devices.ur5_config import Ur5Config
from dexpie_ros.devices.ur5_wire import ArmSample, Exit, Phase
from dexpie_ros.geometry import Pose

__all__ = ["ArmSample", "Phase", "Ur5", "Ur5Config"]

STALE_AFTER = 0.1
"""s without a new state until the status says so."""
SILENT_AFTER = 8.0
"""s without any packet until the child counts as hung and is killed; starting takes up to 6 s."""

STOP_PATIENCE = 4.0
"""s that the child gets for stopping gracefully until it is killed."""


class Ur5:
    """One UR5 or UR5e; see :mod:`dexpie_ros.devices` for the common shape."""

    def __init__(
        self, settings: Ur5Config, name: str = "arm", backoff: Backoff | None = None
    ) -> None:
        self.name = name
        self.samples: Newest[ArmSample] = Newest()
        self.starts = 0
        self.losses = 0
        self.malformed = 0
        """Packets of the arm process that made no sense; they are left out."""
        self._config = settings
        self._backoff = backoff or Backoff(0.25, 5.0)
        self._lock = threading.Lock()
        self._link: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._phase, self._message = Phase.CONNECTING, "not started"
        self._stop = ""
        """Why the robot stopped, until a recovery has been asked for and has worked."""
        self._sequence = 0
        self._clock_watch = ClockWatch()

    def start(self) -> None:
        """Begin connecting in the background; harmless when it runs already."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
        self._message = "connecting"
        self._thread = threading.Thread(target=self._supervise, name=self.name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Bring the arm to rest, end its program on the controller and the process here."""
        self._stopping.set()
        self._tell(wire.QUIT)
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise DeviceError(f"{self.name}: did not stop within {timeout} s")
            self._thread = None
        self._phase, self._message = Phase.CONNECTING, "stopped"

    def newest(self) -> ArmSample | None:
        """The newest state, however old; None before the first. Never blocks."""
        return self.samples.get()

    def wait(self, after: int, timeout: float) -> ArmSample | None:
        """The newest state once more than ``after`` have come (see ``samples.count``)."""
        return self.samples.wait(after, timeout)

    def command(self, tcp: Pose) -> bool:
        """Where the TCP shall be one control step (40 ms) from now. Never blocks.

        False when nobody can take it now (no connection, robot stopped); limits are checked by the
        arm process, and a refusal shows in the status and in ``ArmSample.refused``.
        """
        self._sequence += 1
        return self._phase is Phase.SERVOING and self._tell(wire.pack_command(self._sequence, tcp))

    def recover(self) -> tuple[bool, str]:
        """The operator wants the arm back after a stop. Accepted or not, and why; see the status
        for how it goes (unlocking a protective stop takes at least 5 s).
        """
        if self._phase is not Phase.STOPPED:
            return False, f"{self.name} is not stopped: {self._message}"
        if not self._tell(wire.RECOVER):
            return False, f"{self.name}: no connection"
        return True, "recovering"

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def ready(self) -> bool:
        """Whether commands are followed."""
        return self._phase is Phase.SERVOING and self.samples.age() < STALE_AFTER

    @property
    def process_id(self) -> int | None:
        """Of the process that owns the arm, while there is one."""
        with self._lock:
            return None if self._child is None else self._child.pid

    def status(self) -> Status:
        """Level, message and values for /diagnostics. Never blocks."""
        age, sample = self.samples.age(), self.samples.get()
        values = {
            "phase": self._phase.name.lower(),
            "samples": str(self.samples.count),
            "starts": str(self.starts),
            "losses": str(self.losses),
            "malformed": str(self.malformed),
            "age_s": "never" if sample is None else f"{age:.3f}",
        }
        if sample is not None:
            values |= {
                "robot_mode": str(sample.robot_mode),
                "safety_mode": str(sample.safety_mode),
                "cycles": str(sample.cycles),
                "missed_cycles": str(sample.missed),
                "refused_commands": str(sample.refused),
            }
        level, clock = Level.OK, self._clock_watch.said()
        if self._phase is not Phase.SERVOING:
            level = Level.ERROR
        elif age > STALE_AFTER:
            return Status(self.name, Level.STALE, f"no state for {age:.3f} s{clock}", values)
        elif self._message.startswith("holding:"):
            level = Level.WARN
        return Status(self.name, level, self._message + clock, values)

    def _tell(self, packet: bytes) -> bool:
        with self._lock:
            try:
                return self._link is not None and wire.send(self._link, packet)
            except EOFError:
                return False

    def _supervise(self) -> None:
        backoff = self._backoff
        while not self._stopping.is_set():
            child, link = self._spawn()
            ready_at = time.monotonic()
            try:
                self._listen(child, link)
            finally:
                code = self._reap(child, link)
            if self._stopping.is_set() or code == Exit.DONE:
                break
            if code == Exit.REFUSED:
                return  # the message stays; only another configuration helps
            if code == Exit.RECOVERED:
                self._stop = ""
                backoff.reset()
                continue
            self.losses += code != Exit.UNREACHABLE
            if code not in Exit.__members__.values():
                self._message = f"the arm process ended unexpectedly ({_describe(code)})"
            if time.monotonic() - ready_at > 10.0:
                backoff.reset()
            self.samples.wake()  # who looks at the status shall see why, before it is tried again
            self._stopping.wait(backoff.next())

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        arguments = json.dumps(config.to_dict(self._config))
        # Ctrl-C goes to the whole process group, but what it means for the arm is decided here. The
        # child inherits the mask, so that it cannot be torn apart before it can say so itself.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                child = subprocess.Popen(
                    [
                        *(sys.executable, "-m", __name__ + "_process"),
                        *(str(theirs.fileno()), arguments, self._stop),
                    ],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what ur_rtde prints belongs to the log
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with self._lock:
            self._link, self._child = ours, child
        self.starts += 1
        if self._stopping.is_set():  # stop() may have come before there was a link to tell
            self._tell(wire.QUIT)
        return child, ours

    def _listen(self, child: subprocess.Popen[bytes], link: socket.socket) -> None:
        poll = select.poll()
        poll.register(link, select.POLLIN)
        heard, stop_by = time.monotonic(), float("inf")
        while True:
            if self._stopping.is_set():
                # While it connects, the child does not listen; the watchdog covers a servoing one.
                stop_by = min(stop_by, time.monotonic() + STOP_PATIENCE)
            if time.monotonic() > stop_by:
                child.kill()
                return
            if poll.poll(500):
                try:
                    packets = wire.drain(link)
                except EOFError:
                    return
                for packet in packets:
                    self._take(packet)
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_AFTER:
                self._message = f"the arm process was silent for {SILENT_AFTER} s"
                child.kill()
                return

    def _take(self, packet: bytes) -> None:
        try:
            if packet[:1] == b"S":
                self.samples.put(wire.unpack_state(packet))
            elif packet[:1] == b"E":
                self._phase, self._message = wire.unpack_event(packet)
                if self._phase is Phase.STOPPED and not self._stop:
                    self._stop = self._message
            else:
                raise wire.WireError(f"unknown kind {packet[:1]!r}")
        except wire.WireError:
            self.malformed += 1

    def _reap(self, child: subprocess.Popen[bytes], link: socket.socket) -> int:
        with self._lock:
            self._link, self._child = None, None
            link.close()
        self._phase = Phase.CONNECTING
        try:
            return child.wait(4.0)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _describe(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
