"""Scheduling of what must not wait: arbiter, drivers, teleoperation, a real-time simulation's clock.

A control step takes a few milliseconds, yet on a machine that also renders, records and infers it
waited up to 28 ms for its turn. Where the system permits it (root, or `rtprio` in limits.conf),
such threads go before all others; where it does not, they are made a little nicer to themselves or
left as they are, and diagnostics say which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

VARIABLE = "DEXPIE_REALTIME"
"""Environment variable; 0 leaves all scheduling as it is."""
PRIORITY = 10
"""Of SCHED_FIFO: above every ordinary thread, below the kernel's own (50)."""
NICE = -10


def prefer_process(realtime: bool = True) -> str:
    """Put all threads of this process, and those they start, before ordinary ones.

    ``realtime`` False asks for niceness only: right for what must be prompt but computes long.
    Returns what came of it: ``fifo``, ``nice`` or ``ordinary``.
    """
    if not _wanted():
        return "ordinary"
    if realtime and _each_thread(_fifo):
        return "fifo"
    # on Linux every thread has a niceness of its own
    return "nice" if _each_thread(_nice) else "ordinary"


@contextlib.contextmanager
def preferred_process() -> Iterator[str]:
    """:func:`prefer_process` for a block; behind it all threads of this process are ordinary."""
    result = prefer_process()
    try:
        yield result
    finally:
        if result == "fifo":
            _each_thread(_ordinary)


def make_ordinary(pid: int) -> None:
    """A process that was just started does not inherit this one's place before ordinary ones.

    A node asks for that itself where it needs it. librealsense waits busily when it closes; with
    such a place, inherited from a benchmark that stands for a driver, it kept two cores from
    everything else for ever.
    """
    with contextlib.suppress(OSError, AttributeError):  # it ended already, or this is not Linux
        if os.sched_getscheduler(pid) != os.SCHED_OTHER:
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))


def _each_thread(apply: Callable[[int], None]) -> bool:
    """Whether it was permitted."""
    try:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                apply(int(thread))
    except (OSError, AttributeError):  # not permitted, or not Linux
        return False
    return True


def _fifo(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(PRIORITY))


def _ordinary(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _nice(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, NICE)


@contextlib.contextmanager
def preferred_thread() -> Iterator[None]:
    """The calling thread goes before ordinary ones within the block, where that is permitted."""
    try:
        if not _wanted():
            raise PermissionError
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (OSError, AttributeError):
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def _wanted() -> bool:
    return os.environ.get(VARIABLE, "1") != "0"
