"""Scheduling of what must not wait: the arbiter, the drivers, the clock of a real-time simulation.

A control step takes a few milliseconds, yet on a machine that also renders, records and infers it
waited up to 28 ms for its turn. Where the system permits it (root, or `rtprio` in limits.conf),
such threads go before all others; where it does not, they are made a little nicer to themselves or
left as they are, and diagnostics say which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

VARIABLE = "DEXPIE_REALTIME"
"""Environment variable; 0 leaves all scheduling as it is."""
PRIORITY = 10
"""Of SCHED_FIFO: above every ordinary thread, below the kernel's own (50)."""
NICE = -10


def prefer_process() -> str:
    """Put all threads of this process, and those they start, before ordinary ones.

    Returns what came of it: ``fifo``, ``nice`` or ``ordinary``.
    """
    if not _wanted():
        return "ordinary"
    try:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(PRIORITY))
        return "fifo"
    except (OSError, AttributeError):  # not permitted, or not Linux
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        return "nice"
    except OSError:
        return "ordinary"


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
