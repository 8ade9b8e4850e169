"""A request to move home that nobody carries out is noticed, and one that is carried out is not."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs a ROS 2 installation or its wheels (make setup)")

from rclpy.executors import SingleThreadedExecutor

from dexpie_ros.nodes.base import OK, ContractNode
from dexpie_ros.nodes.home_watch import HomeWatch
from dexpie_ros.nodes.process_watch import PROCESS
from dexpie_ros.nodes.session import Session


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def status(process: str) -> Any:
    values = [
        SimpleNamespace(key="mode", value="POLICY"),
        SimpleNamespace(key=PROCESS, value=process),
    ]
    return SimpleNamespace(values=values)


def test_a_long_way_home_is_waited_for(clock: Clock) -> None:
    watch = HomeWatch(3.5)
    watch.hear(status("7 here"))
    lost = watch.asked()
    for _ in range(60):
        clock.now += 1.0
        watch.hear(status("7 here"))
        assert lost() == ""


def test_another_process_knows_nothing_of_it(clock: Clock) -> None:
    watch = HomeWatch(3.5)
    watch.hear(status("7 here"))
    lost = watch.asked()
    clock.now += 2.0
    assert lost() == ""
    watch.hear(status("8 here"))
    assert "started anew on the way home" in lost()
    # asked again, the new one is the one that moves
    assert watch.asked()() == ""


def test_silence_ends_the_wait_also_where_nothing_was_heard_before(clock: Clock) -> None:
    watch = HomeWatch(3.5)
    lost = watch.asked()
    clock.now += 3.4
    assert lost() == ""
    watch.hear(status("7 here"))  # the first word, after the request
    clock.now += 3.4
    assert lost() == ""
    clock.now += 0.2
    assert lost() == "the arbiter is silent for 4 s; is it running?"


def test_a_session_waits_no_longer_for_an_arbiter_that_was_started_anew() -> None:
    """Real nodes: the request is taken and never answered, then another process reports."""
    rclpy.init(args=["--ros-args", "-p", "record:=false", "-p", "policy:=false"])
    executor = SingleThreadedExecutor()
    session, arbiter = Session(), ContractNode("intervention_arbiter")
    taken: list[Any] = []

    async def never(request: Any, response: Any) -> Any:
        taken.append(request)
        await arbiter.pause(600.0)

    arbiter.serve("/intervention/home", never)
    arbiter.report_diagnostics(lambda: (OK, "", {}))
    arbiter._process = "1 before"
    for node in (session, arbiter):
        executor.add_node(node)
    try:
        end = time.monotonic() + 60.0
        while not session._home_watch._process:
            assert time.monotonic() < end, "the arbiter's diagnostics did not come"
            executor.spin_once(0.05)
        answer = executor.create_task(session.go_home)
        while not answer.done():
            assert time.monotonic() < end, "still waiting"
            executor.spin_once(0.05)
            if taken:
                arbiter._process = "2 after"
        assert answer.result() == (
            False,
            "the arbiter was started anew on the way home; the robot holds where it is",
        )
    finally:
        executor.shutdown(timeout_sec=1.0)
        for node in (session, arbiter):
            node.destroy_node()
        rclpy.try_shutdown()
