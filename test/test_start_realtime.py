"""Scheduling: what is asked for is really set, and what is refused is said."""

import os
import subprocess
import sys
import threading

import pytest

from dexpie_ros.realtime import (
    NICE,
    PRIORITY,
    VARIABLE,
    make_ordinary,
    preferred_process,
    preferred_thread,
)

READ = """
import os, threading
from dexpie_ros.realtime import prefer_process
early = []
stay = threading.Event()
ready = threading.Event()
def look():
    ready.set(); stay.wait(); early.append(os.sched_getscheduler(0))
t = threading.Thread(target=look); t.start(); ready.wait()
result = prefer_process()
late = []
u = threading.Thread(target=lambda: late.append(os.sched_getscheduler(0))); u.start(); u.join()
stay.set(); t.join()
print(result, os.sched_getscheduler(0), early[0], late[0])
"""


def permitted() -> bool:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def said(**environment):
    run = subprocess.run(
        [sys.executable, "-c", READ],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    return run.stdout.split()


def test_all_threads_of_a_process_are_preferred_also_earlier_and_later_ones():
    got = said()
    if permitted():
        assert got == ["fifo"] + [str(os.SCHED_FIFO)] * 3
    else:
        assert got[0] in ("nice", "ordinary") and got[1:] == [str(os.SCHED_OTHER)] * 3


def test_scheduling_is_left_alone_where_the_user_says_so():
    assert said(**{VARIABLE: "0"}) == ["ordinary"] + [str(os.SCHED_OTHER)] * 3


def test_thread_is_ordinary_again_after_the_block(monkeypatch):
    with preferred_thread():
        inside = os.sched_getscheduler(0)
    assert inside == (os.SCHED_FIFO if permitted() else os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    monkeypatch.setenv(VARIABLE, "0")
    with preferred_thread():
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_thread_is_ordinary_again_after_an_error():
    with pytest.raises(KeyError), preferred_thread():
        raise KeyError
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_niceness_reaches_every_thread_and_is_no_real_time():
    read = READ.replace("prefer_process()", "prefer_process(realtime=False)").replace(
        "os.sched_getscheduler(0)", "(os.sched_getscheduler(0), os.nice(0))"
    )
    run = subprocess.run(
        [sys.executable, "-c", read], capture_output=True, text=True, check=True, timeout=180
    )
    niceness = NICE if permitted() else os.nice(0)
    one = str((os.SCHED_OTHER, niceness))
    assert run.stdout.strip() in (f"nice {one} {one} {one}", "ordinary " + " ".join([one] * 3))


def test_what_a_preferred_process_starts_is_ordinary():
    with preferred_thread():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        inherited = os.sched_getscheduler(child.pid)
        make_ordinary(child.pid)
    assert inherited == (os.SCHED_FIFO if permitted() else os.SCHED_OTHER)
    assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
    child.communicate(b"\n", timeout=60)
    make_ordinary(child.pid)  # it has ended: nothing to do


def test_process_is_ordinary_again_after_the_block():
    stay, seen = threading.Event(), []
    thread = threading.Thread(target=lambda: (stay.wait(60), seen.append(os.sched_getscheduler(0))))
    with preferred_process() as what:
        assert os.sched_getscheduler(0) == (os.SCHED_FIFO if what == "fifo" else os.SCHED_OTHER)
        thread.start()  # inherits, and is left
    stay.set()
    thread.join()
    assert [os.sched_getscheduler(0), *seen] == [os.SCHED_OTHER] * 2
