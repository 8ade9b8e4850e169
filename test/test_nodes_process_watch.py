"""Whether a node's process has ended: told once, at once, and only where its number means it."""

import subprocess
import sys

import pytest
from emulated import eventually

pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from dexpie_ros.nodes.process_watch import ProcessWatch, own_process


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


@pytest.fixture
def watch():
    watch = ProcessWatch()
    yield watch
    watch.close()


@pytest.fixture
def child():
    child = sleeper()
    yield child
    child.kill()
    child.stdin.close()
    child.wait()


def process_of(child):
    return f"{child.pid} {own_process().partition(' ')[2]}"


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux'")
def test_a_killed_process_is_told_once_before_anybody_has_waited_for_it(watch, child):
    watch.said("hand_driver", process_of(child))
    watch.said("arm_driver", own_process())
    assert watch.ended() == []
    child.kill()
    ended = []
    eventually(lambda: ended.extend(watch.ended()) or ended)
    assert ended == ["hand_driver"]
    watch.said("hand_driver", process_of(child))
    assert watch.ended() == [], "a last word that came late is no news"


def test_the_next_process_of_a_node_takes_the_place_of_the_last(watch, child):
    watch.said("hand_driver", process_of(child))
    watch.said("hand_driver", own_process())
    child.kill()
    child.wait()
    assert watch.ended() == []


@pytest.mark.parametrize("text", ["", "x", "1", "-3 here", "12 another machine", "99999999999 "])
def test_what_means_nothing_here_is_left_alone(watch, text):
    watch.said("hand_driver", text)
    watch.said("arm_driver", f"{2**22 - 1} {own_process().partition(' ')[2]}")
    assert watch.ended() == []
