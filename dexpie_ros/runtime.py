"""ROS start-up that all nodes share; what measurement settled is applied here, once.

* one SingleThreadedExecutor per process, control loops in plain threads (:class:`ControlLoop`);
* the transport that fits what the process does, malloc that keeps image-sized blocks;
* clean shutdown on Ctrl-C and SIGTERM, exit status 0 clean, 1 crash, 2 unusable config.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
)

from dexpie_ros.config import ConfigError
from dexpie_ros.contract import Qos
from dexpie_ros.control_loop import ControlLoop, LoopStatistics
from dexpie_ros.graph import EXIT_CONFIG, SUPERVISOR_VARIABLE
from dexpie_ros.parameters import declare_config, refuse_unknown_parameters
from dexpie_ros.transport import transport_environment

__all__ = [
    "ControlLoop",
    "LoopStatistics",
    "abort",
    "declare_config",
    "prepare_process",
    "qos_profile",
    "refuse_unknown_parameters",
    "run_node",
    "spin_for",
]

_failure: list[Exception] = []
_SLICE_S = 0.01


_QOS = {
    # reliability, durability, depth
    Qos.SENSOR: (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10),
    Qos.COMMAND: (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 10),
    Qos.EVENT: (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 100),
    Qos.STATE: (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1),
}


def qos_profile(purpose: Qos | str, *, depth: int = 0, best_effort: bool = False) -> QoSProfile:
    """The rclpy profile of a purpose (the table of `dexpie_ros.contract`).

    A subscriber may ask for a longer queue (``depth`` above 0), as a recorder does, or for
    ``best_effort`` where only the newest value matters; a publisher takes the profile as it is.
    """
    reliability, durability, usual_depth = _QOS[Qos(purpose)]
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth or usual_depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else reliability,
        durability=durability,
    )


def prepare_process(*, images: bool = False) -> None:
    """Process-wide settings; harmless to call twice, must come before ``rclpy.init()``.

    ``images``: the process sends or takes raw images (`dexpie_ros.transport`).
    """
    os.environ.update(transport_environment(images=images))
    # a pure Python thread may keep the interpreter this long from a control loop that is due
    sys.setswitchinterval(0.0005)
    try:
        libc = ctypes.CDLL(None)
        # glibc gives every image-sized block back to the kernel and faults it in again (0.7 ms)
        libc.mallopt(-3, 64 << 20)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another C library, with another malloc


def run_node(
    factory: Callable[[], Node], args: Sequence[str] | None = None, *, images: bool = False
) -> int:
    """Run one node until Ctrl-C, SIGTERM or :func:`abort`.

    ``factory`` makes the node (usually its class); what the node must close goes into its
    ``destroy_node``. Returns the exit status: 0 after a clean shutdown, 2 after a ConfigError,
    which becomes one line on stderr. Any other exception is a crash and passes through, after the
    node was destroyed, so that the process ends with a traceback and status 1. ``images`` as in
    :func:`prepare_process`.
    """
    prepare_process(images=images)
    _failure.clear()
    node: Node | None = None
    executor: SingleThreadedExecutor | None = None
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        try:
            rclpy.init(args=list(args) if args is not None else None)
        except RuntimeError as error:  # rcl refuses the command line or a parameter file
            raise ConfigError(f"ROS 2 arguments: {error}") from None
        _follow_supervisor()
        node = factory()
        refuse_unknown_parameters(node)
        # a full sweep over all that is loaded by now would take longer than a control step
        gc.collect()
        gc.freeze()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and not _failure:
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    finally:
        # a second Ctrl-C must not tear a file that is being closed
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if executor is not None:
            executor.shutdown(timeout_sec=1.0)
        if node is not None:
            node.destroy_node()
            rclpy.try_shutdown()
        # else there is at most half a node, which rclpy must not try to destroy: the process ends
        signal.signal(signal.SIGINT, interrupt)
    if _failure:
        raise _failure[0]
    return 0


def spin_for(executor: Executor, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Serve callbacks for this long (wall time, up to 10 ms longer), or until ``until()``.

    What is ready is served in rounds, but only while ``spin_once`` is called with the same timeout:
    asked with the time that is left, it begins each time with the first subscription, and on a busy
    machine the later ones are never served.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        executor.spin_once(timeout_sec=_SLICE_S)


def abort(error: Exception) -> None:
    """End the running node from any thread, as a crash: :func:`run_node` raises ``error``.

    Fits :class:`ControlLoop`'s ``on_error``. Does not touch the ROS context, which would destroy
    the node from the calling thread.
    """
    _failure.append(error)


def _follow_supervisor() -> None:
    """Leave if the supervisor died before it could arrange that its death ends this process."""
    supervisor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if supervisor and supervisor != str(os.getppid()):
        raise ExternalShutdownException
